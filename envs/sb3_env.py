"""The face of stable-baselines3: a world as a VecEnv, one transfer to numpy a step for the whole batch."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices
from torch import Tensor

from hardattn.envs.world import World


class SB3VecEnv(VecEnv):
    """`world.batch_size` rows as stable-baselines3 wants them; all end together and begin again within the same step.

    infos[i] is empty but at an episode's end, when it holds "terminal_observation", "TimeLimit.truncated" (never) and "episode"
    with return and length. With `autoreset=False` nothing begins again: the observation after an episode's end is its last one,
    and `reset()` must follow (who resumes a run exactly wants no episodes begun between two updates). Raises ValueError for an
    action that the world refuses.
    """

    def __init__(self, world: World, autoreset: bool = True) -> None:
        self.world, self.autoreset = world, autoreset
        self.render_mode = None
        self.mean_return = 0.0  # of the episodes that ended last
        self._nothing: list[dict[str, Any]] = [{} for _ in range(world.batch_size)]
        super().__init__(world.batch_size, world.observation_space, world.action_space)

    def reset(self) -> NDArray[np.float32]:
        """Start the next batch of episodes: [B, D]. After `seed()` the shuffled pass starts afresh."""
        if self._seeds[0] is not None and hasattr(self.world, "reseed"):
            self.world.reseed(self._seeds[0])
        self._reset_seeds()
        observation = self.world.reset()
        self._return = torch.zeros(self.num_envs, device=self.world.device)
        self._steps = 0
        return np.asarray(observation.cpu().numpy())

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions [B, A] for `step_wait()`."""
        kind = torch.int64 if isinstance(self.action_space, spaces.Discrete) else torch.float32
        self._actions = torch.as_tensor(actions, dtype=kind, device=self.world.device)

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Step: observation [B, D], reward [B], done [B] and one info a row."""
        step = self.world.step(self._actions)
        self._return += step.reward
        self._steps += 1
        done = self._steps == self.world.horizon  # known without asking the device
        if not done:
            observation, reward = _fetch(step.observation, step.reward[:, None])
            return observation, reward[:, 0], np.zeros(self.num_envs, np.bool_), self._nothing
        first = self.world.reset() if self.autoreset else step.observation
        observation, last, numbers = _fetch(first, step.observation, torch.stack([step.reward, self._return], dim=1))
        returns, steps = numbers[:, 1].tolist(), self._steps
        self.mean_return = float(numbers[:, 1].mean())
        self._return, self._steps = torch.zeros_like(self._return), 0
        infos = [
            {"terminal_observation": row, "TimeLimit.truncated": False, "episode": {"r": total, "l": steps, "t": 0.0}}
            for row, total in zip(last, returns, strict=True)
        ]
        return observation, numbers[:, 0], np.ones(self.num_envs, np.bool_), infos

    def close(self) -> None:
        """Nothing to release."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute of this environment, once a row asked for."""
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Rows share one world: set it there. Raises NotImplementedError."""
        raise NotImplementedError(f"set_attr({attr_name!r}): the rows share one world; set it on SB3VecEnv.world")

    def env_method(self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any) -> list[Any]:
        """Rows share one world: call it there. Raises NotImplementedError."""
        raise NotImplementedError(f"env_method({method_name!r}): the rows share one world; call it on SB3VecEnv.world")

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """No row is wrapped."""
        return [False] * len(list(self._get_indices(indices)))

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """No pictures here: use the Gymnasium face."""
        return [None] * self.num_envs


def _fetch(*parts: Tensor) -> Iterable[NDArray[np.float32]]:
    """Several [B, n] tensors as numpy arrays: on a CPU without a copy, from a GPU in one transfer."""
    if parts[0].device.type == "cpu":
        return [np.asarray(part.numpy()) for part in parts]
    whole = torch.cat(parts, dim=1).cpu().numpy()
    return np.split(whole, np.cumsum([part.shape[1] for part in parts])[:-1], axis=1)
