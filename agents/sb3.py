"""Any algorithm of stable-baselines3 (or of its style) as an agent: `--agent sb3:PPO`, `sb3:SAC`, `mine:MyAlgorithm`.

An update plays one batch of whole episodes through `SB3VecEnv` and lets the algorithm learn from it in its own way. Its keyword
arguments are the settings. What is saved are tensors and numbers, never the pickle inside a stable-baselines3 zip file.
"""

import dataclasses
import functools
import inspect
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import NoneType
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.save_util import recursive_getattr
from torch import Tensor

from hardattn.envs.errors import UsageError
from hardattn.envs.sb3_env import SB3VecEnv
from hardattn.envs.world import World

# Arguments that are not settings: given by the study, or without a plain value.
OURS = {"self", "policy", "env", "seed", "device", "verbose", "tensorboard_log", "stats_window_size", "_init_setup_model"}
BUFFER = 100_000  # steps kept by off-policy algorithms; their own million would take gigabytes of these wide observations
PARTS, AT_LEAST = 8, 64  # minibatches that a batch of looks is cut into unless batch_size is given, and the looks in each


def config_of(algorithm: type[BaseAlgorithm]) -> Any:
    """A frozen dataclass of the algorithm's plain keyword arguments, with its own defaults and the sentences of its docstring."""
    on_policy = issubclass(algorithm, OnPolicyAlgorithm)
    fields: list[tuple[str, Any, Any]] = []
    for name, parameter in inspect.signature(algorithm.__init__).parameters.items():
        default = parameter.default
        if name in OURS or not (default is None or isinstance(default, bool | int | float | str)):
            continue
        if on_policy and name == "n_steps":
            continue  # an update plays whole episodes: the horizon
        if default is None and (name.endswith(("_class", "_kwargs")) or name == "action_noise"):
            continue
        kind: Any = type(default)  # text is read as the first kind that fits it, so words come last
        if default is None or isinstance(default, str):
            kind = NoneType | int | float | str
        if on_policy and name == "batch_size":
            kind, default = NoneType | int, None
        if name == "buffer_size":
            default = BUFFER
        fields.append((name, kind, dataclasses.field(default=default)))
    fields.append(("net_arch", str, dataclasses.field(default="")))
    if on_policy:
        fields.append(("std", NoneType | float, dataclasses.field(default=None)))
    found = re.findall(r":param (\w+): (.*?)(?=\n\s*:param|\Z)", algorithm.__doc__ or "", flags=re.DOTALL)
    sentences = {name: " ".join(text.split()) for name, text in found}
    sentences["net_arch"] = "Units of the hidden layers, as 64,64; empty leaves the policy's own."
    sentences["std"] = "An action's standard deviation at the start, in units of the action space; none leaves the policy's own, 1."
    if on_policy:
        sentences["batch_size"] = f"Looks in a minibatch; none cuts a batch of episodes into {PARTS} parts, or fewer of {AT_LEAST}."
    name = f"{algorithm.__name__}Config"
    return dataclasses.make_dataclass(name, fields, frozen=True, namespace={"sentences": sentences})


@functools.lru_cache(maxsize=32)
def wrap(algorithm: type[BaseAlgorithm]) -> type["SB3Agent"]:
    """The agent class for an algorithm class."""
    return type(f"SB3{algorithm.__name__}", (SB3Agent,), {"algorithm": algorithm, "Config": config_of(algorithm)})


class SB3Agent:
    """An agent that leaves its learning to `algorithm`; made by `wrap`.

    Raises UsageError if the algorithm refuses its settings or the spaces.
    """

    algorithm: type[BaseAlgorithm]
    Config: Any

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Space[Any],
        *,
        config: Any = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        self.config = config or self.Config()
        self.device, self.seed = torch.device(device), seed
        self.world: Any = _Spaces(observation_space, action_space, self.device)  # until update() brings a real one
        self._buffer: dict[str, Any] | None = None  # a loaded replay buffer, until a world brings its width
        before = _random_state(action_space)
        self.model = self._build(self.world)
        self._random = _random_state(action_space)  # as the algorithm seeded it
        _set_random_state(before, action_space)

    def begin(self, batch_size: int) -> None:
        """Nothing to remember: the world's observation carries the history."""

    def act(self, observation: Tensor, memory: None, greedy: bool = False) -> tuple[Tensor, None]:
        """The policy's action for each row, in the bounds of the action space."""
        policy, space = self.model.policy, self.model.action_space
        policy.set_training_mode(False)
        with self._own_random(), torch.no_grad():
            action: Tensor = policy._predict(observation, deterministic=greedy)
        if isinstance(space, spaces.Box):
            low, high = (torch.as_tensor(bound, device=action.device) for bound in (space.low, space.high))
            action = low + (action + 1) / 2 * (high - low) if policy.squash_output else action.clamp(low, high)
        return action, None

    def update(self, world: World) -> dict[str, float]:
        """Play one batch of episodes and learn as the algorithm does. Raises UsageError if its settings split episodes."""
        with self._own_random():
            if world is not self.world:
                self._move_to(world)
            model = self.model
            model._last_obs = None  # begin with new episodes
            model._current_progress_remaining = 1 - world.progress
            model.learn(world.horizon * world.batch_size, log_interval=None, reset_num_timesteps=False)  # type: ignore[arg-type]
        env = model.env
        assert isinstance(env, SB3VecEnv)
        report = {key.removeprefix("train/"): float(value) for key, value in model.logger.name_to_value.items() if "loss" in key}
        return {**report, "return": env.mean_return}

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimisers, counters, the replay buffer's filled part, and the random states, as tensors and numbers."""
        model = self.model
        names, variables = model._get_torch_save_params()
        state: dict[str, Any] = {
            "policy": model.policy.state_dict(),
            "optimizer": {name: recursive_getattr(model, name).state_dict() for name in names if name != "policy"},
            "variables": {name: recursive_getattr(model, name).detach() for name in variables},
            "counters": {name: getattr(model, name) for name in ("num_timesteps", "_n_updates", "_episode_num")},
            "random": self._random,
        }
        if self._buffer is not None:
            state["buffer"] = self._buffer
        elif isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None and model.replay_buffer.size():
            state["buffer"] = _save_buffer(model.replay_buffer)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`; with the policy alone it can act but not learn on."""
        model = self.model
        model.policy.load_state_dict(state["policy"])
        for name, part in state.get("optimizer", {}).items():
            recursive_getattr(model, name).load_state_dict(part)
        for name, tensor in state.get("variables", {}).items():
            recursive_getattr(model, name).data.copy_(tensor)
        for name, value in state.get("counters", {}).items():
            setattr(model, name, value)
        self._random = state.get("random", self._random)
        self._buffer = state.get("buffer")

    def _move_to(self, world: World) -> None:
        """Go on in another world, with a model of its batch size."""
        state = self.state_dict()
        every = getattr(self.config, "train_freq", 1)
        if every < 1 or world.horizon % every:
            raise UsageError(f"train_freq={every}: wanted a divisor of the horizon, {world.horizon}, so that no episode is split")
        self.world, self.model = world, self._build(world)
        self.load_state_dict(state)
        _set_random_state(self._random, self.model.action_space)  # building a model seeded everything
        if isinstance(self.model, OffPolicyAlgorithm) and self.model.replay_buffer is not None and self._buffer:
            _load_buffer(self.model.replay_buffer, self._buffer)
        self._buffer = None

    def _build(self, world: Any) -> BaseAlgorithm:
        settings = {field.name: getattr(self.config, field.name) for field in dataclasses.fields(self.config)}
        net, std = settings.pop("net_arch"), settings.pop("std", None)
        if std is not None and std <= 0:
            raise UsageError(f"sb3:{self.algorithm.__name__}: std={std}, wanted more than 0")
        policy: dict[str, Any] = {"log_std_init": float(np.log(std))} if std is not None else {}
        if net:
            policy["net_arch"] = [int(units) for units in net.split(",")]
        if issubclass(self.algorithm, OnPolicyAlgorithm):
            looks, settings["n_steps"] = world.horizon * world.batch_size, world.horizon
            if "batch_size" in settings and settings["batch_size"] is None:
                settings["batch_size"] = max(AT_LEAST, looks // PARTS)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "You have specified a mini-batch size")  # a smaller last minibatch is fine
                model = self.algorithm(
                    "MlpPolicy",
                    SB3VecEnv(world, autoreset=False),
                    policy_kwargs=policy or None,
                    device=self.device,
                    seed=self.seed,
                    **settings,
                )
        except (AssertionError, ValueError, TypeError) as error:
            raise UsageError(f"sb3:{self.algorithm.__name__} refuses these settings or spaces: {error}") from error
        model.env._reset_seeds()  # type: ignore[union-attr]  # the study has seeded the world
        model.set_logger(Logger(folder=None, output_formats=[]))
        # The study knows how far the run is; learn() would take each update for a whole run.
        model._update_current_progress_remaining = lambda *_: None  # type: ignore[method-assign]
        return model

    @contextmanager
    def _own_random(self) -> Iterator[None]:
        """Stable-baselines3 draws from global random states: lend it this agent's, and put the others back."""
        before = _random_state(self.model.action_space)
        _set_random_state(self._random, self.model.action_space)
        try:
            yield
        finally:
            self._random = _random_state(self.model.action_space)
            _set_random_state(before, self.model.action_space)


@dataclasses.dataclass
class _Spaces:
    """Stands in for a world while only its spaces are known; nothing can be played in it."""

    observation_space: spaces.Box
    action_space: spaces.Space[Any]
    device: torch.device
    batch_size: int = AT_LEAST
    horizon: int = 1


def _random_state(space: spaces.Space[Any]) -> dict[str, Any]:
    """Every random state that stable-baselines3 draws from: torch, numpy and the action space."""
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    state = {
        "torch": torch.get_rng_state(),
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "actions": space.np_random.bit_generator.state,
    }
    return state | ({"cuda": torch.cuda.get_rng_state_all()} if torch.cuda.is_initialized() else {})


def _set_random_state(state: dict[str, Any], space: spaces.Space[Any]) -> None:
    keys, position, has_gauss, gauss = state["numpy"]
    torch.set_rng_state(state["torch"])
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    space.np_random.bit_generator.state = state["actions"]
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


COLUMNS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def _save_buffer(buffer: ReplayBuffer) -> dict[str, Any]:
    """The filled part of a replay buffer."""
    columns = {name: torch.from_numpy(getattr(buffer, name)[: buffer.size()].copy()) for name in COLUMNS if hasattr(buffer, name)}
    return {"columns": columns, "pos": buffer.pos, "full": buffer.full}


def _load_buffer(buffer: ReplayBuffer, saved: dict[str, Any]) -> None:
    """Fill a replay buffer as it was. Raises UsageError if it was of another batch size."""
    buffer.pos, buffer.full = saved["pos"], saved["full"]
    for name, column in saved["columns"].items():
        if column.shape[1] != buffer.n_envs:
            raise UsageError(f"the saved replay buffer has {column.shape[1]} rows, this world {buffer.n_envs}: keep batch_size")
        getattr(buffer, name)[: len(column)] = column.numpy()
