"""Gymnasium's two faces over a world: a vector environment of tensors, and a single environment of numpy arrays.

The spaces are ordinary numpy spaces and say shape, type and bounds; the vector environment returns tensors of that shape on
its device, as other simulators that live on a GPU do. All episodes of a batch end together, so a finished batch is reset as a
whole within the same step, and nobody has to ask the device which rows are done.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from hardattn.envs.canvases import Canvases
from hardattn.envs.catch import Games
from hardattn.envs.catch_world import CatchWorld
from hardattn.envs.crops import Crops
from hardattn.envs.datasets import Dataset
from hardattn.envs.errors import UsageError
from hardattn.envs.filter_world import FilterWorld
from hardattn.envs.glimpse_world import GlimpseWorld
from hardattn.envs.pictures import Pictures

Tree = Any  # a tensor, or a dict of them


class LookVectorEnv(VectorEnv[Tree, Tree, Tensor]):
    """What the vector environments here share: spaces of B rows, tensors on a device, reset within the step that ends a batch.

    A subclass says `_start(examples)` -> (observation, info) and `_look(action)` -> (observation, reward, done, info, note), where
    the note is what `final_info` shall hold when `done`.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  # gymnasium types it so
        "render_modes": ["rgb_array"],
        "render_fps": 4,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }
    autoreset_mode = AutoresetMode.SAME_STEP  # TorchRL looks here, Gymnasium in the metadata

    def __init__(
        self,
        num_envs: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        dataset: Dataset | Canvases | Crops | Games | Pictures,
        device: torch.device,
        render_mode: str | None,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise UsageError(f"render_mode={render_mode!r}: wanted None or 'rgb_array'")
        self.num_envs, self.dataset, self.device, self.render_mode = num_envs, dataset, device, render_mode
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self._sampler = torch.Generator(device)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tree, dict[str, Any]]:
        """Start B episodes. A seed starts the shuffled pass afresh; options={"examples": [B] integers} names the images.

        Returns the observation and an info with "example" [B] int64, the image that each row shows. Raises ValueError after
        `close()`, or for options of another kind.
        """
        self._open("reset")
        if seed is not None:
            self._seed(int(seed))
            self._sampler.manual_seed(int(seed))
        examples = (options or {}).get("examples")
        unknown = set(options or {}) - {"examples"}
        if unknown:
            raise ValueError(f"options: got the key {sorted(unknown)[0]!r}, wanted 'examples' alone")
        if examples is not None:
            examples = torch.as_tensor(examples)
            if tuple(examples.shape) != (self.num_envs,) or examples.is_floating_point() or examples.dtype == torch.bool:
                raise ValueError(
                    f"options['examples']: got {examples.dtype} {list(examples.shape)}, wanted integers [{self.num_envs}]"
                )
            low, high = int(examples.min()), int(examples.max())
            if low < 0 or high >= len(self.dataset):
                raise ValueError(f"options['examples']: got {low} to {high}, wanted 0 to {len(self.dataset) - 1}")
            examples = examples.to(self.device, torch.int64)
        return self._start(examples)

    def step(self, actions: Tree) -> tuple[Tree, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Look once in every row; arrays are taken as well as tensors.

        Returns observation, reward [B], terminated [B], truncated [B] (never) and info. After an episode's last look the
        observation is the next episode's first; the old one's lies in info["final_obs"], and what it came to in
        info["final_info"]. Raises ValueError for an action of another shape, type or device, before `reset()` and after `close()`.
        """
        self._open("step")
        observation, reward, done, info, note = self._look(actions)
        terminated = torch.full((self.num_envs,), done, device=self.device)
        if done:
            if self.render_mode and self.num_envs == 1:
                self.last_picture = self._picture(0)  # with its last look, which the reset below forgets
            final = {"final_obs": observation, "_final_obs": terminated, "final_info": note, "_final_info": terminated}
            observation, info = self._start(None)
            info = info | final
        return observation, reward, terminated, torch.zeros_like(terminated), info

    def sample_actions(self) -> Tree:
        """Uniform actions for all rows, drawn on the device."""
        return _sample(self.single_action_space, self.num_envs, self._sampler)

    def render(self) -> tuple[NDArray[np.uint8], ...]:
        """A picture of each row: its image with the looks so far, [H', W', 3]. Empty unless render_mode is "rgb_array"."""
        if self.render_mode is None:
            return ()
        self._open("render")
        return tuple(self._picture(row) for row in range(self.num_envs))

    def _open(self, method: str) -> None:
        if self.closed:
            raise ValueError(f"{method}() after close(): make a new environment")

    def _seed(self, seed: int) -> None:
        raise NotImplementedError

    def _start(self, examples: Tensor | None) -> tuple[Tree, dict[str, Any]]:
        raise NotImplementedError

    def _look(self, actions: Tree) -> tuple[Tree, Tensor, bool, dict[str, Any], dict[str, Tensor]]:
        raise NotImplementedError

    def _picture(self, row: int) -> NDArray[np.uint8]:
        raise NotImplementedError


class GlimpseVectorEnv(LookVectorEnv):
    """A world as a vector environment: `world.batch_size` rows of tensors on `world.device`.

    info["logits"] [B, K] is what perception believes and info["example"] [B] the image shown, both of the episode whose observation
    comes along; info["final_info"] holds those of the episode that ended, its "label" and whether it was "correct". The world must
    show each image once (repeats of 1) and have no stop action; raises UsageError otherwise.
    """

    def __init__(self, world: GlimpseWorld | CatchWorld | FilterWorld, render_mode: str | None = None) -> None:
        if world.repeats != 1 or world.stop:
            raise UsageError(f"GlimpseVectorEnv: got repeats={world.repeats} and stop={world.stop}, wanted 1 and False")
        self.world = world
        spaces_of_a_row = world.observation_space, world.action_space
        super().__init__(world.batch_size, *spaces_of_a_row, world.dataset, world.device, render_mode)

    def _seed(self, seed: int) -> None:
        self.world.reseed(seed)

    def _start(self, examples: Tensor | None) -> tuple[Tensor, dict[str, Any]]:
        observation, self._steps = self.world.reset(examples), 0
        return observation, {"example": self.world.examples, "logits": self.world.logits}

    def _look(self, actions: Any) -> tuple[Tensor, Tensor, bool, dict[str, Any], dict[str, Tensor]]:
        step = self.world.step(as_floats("action", actions, self.device))
        self._steps += 1
        done = self._steps == self.world.horizon  # asking step.done would make a GPU wait
        info = {"example": self.world.examples, "logits": step.logits}
        note = {"label": self.world.labels, "correct": self.world.right} if done else {}
        return step.observation, step.reward, done, info, info | note

    def _picture(self, row: int) -> NDArray[np.uint8]:
        return self.world.render(row)


class SingleEnv(gym.Env[Tree, Tree]):
    """One row of a vector environment as numpy: what `gym.make`, the environment checkers and single-environment libraries want."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, rows: LookVectorEnv) -> None:
        if rows.num_envs != 1:
            raise UsageError(f"SingleEnv: got a vector environment of {rows.num_envs} rows, wanted 1")
        self.rows, self.render_mode = rows, rows.render_mode
        self.observation_space, self.action_space = rows.single_observation_space, rows.single_action_space
        self._next: tuple[Tree, dict[str, Any]] | None = None  # the episode that the vector environment has begun already

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tree, dict[str, Any]]:
        """Start an episode; options={"example": n} names the image. Returns the observation and an info with "example"."""
        super().reset(seed=seed)
        options = dict(options or {})
        if "example" in options:
            options["examples"] = [options.pop("example")]
        begun, self._next = self._next, None
        if begun is None or seed is not None or options:
            begun = self.rows.reset(seed=seed, options=options)
        return _row(begun[0]), _row(begun[1])

    def step(self, action: Tree) -> tuple[Tree, float, bool, bool, dict[str, Any]]:
        """Look once. Returns observation, reward, terminated, truncated (never) and info; raises as the vector environment does."""
        if self._next is not None:
            raise ValueError("step() after the episode's last look: call reset() to start a new one")
        observation, reward, terminated, _, info = self.rows.step(_batch_of_one(action))
        done = bool(terminated[0])
        if done:
            final = info["final_obs"], info["final_info"]
            self._next = observation, {key: value for key, value in info.items() if "final" not in key}
            observation, info = final
        return _row(observation), float(reward[0]), done, False, _row(info)

    def render(self) -> NDArray[np.uint8] | None:
        """The image with the looks so far, [H', W', 3]; None unless render_mode is "rgb_array"."""
        if self._next is not None and self.render_mode:
            return self.rows.last_picture
        frames = self.rows.render()
        return frames[0] if frames else None

    def close(self) -> None:
        """Closing twice does no harm; stepping afterwards raises ValueError."""
        self.rows.close()


class EpisodeStatistics(VectorWrapper[Tree, Tree, Tensor]):
    """Adds info["episode"] = {"r": return [B], "l": length [B]} and info["_episode"] when episodes end, as tensors on the device.

    Gymnasium's own RecordEpisodeStatistics keeps numpy arrays, and refuses tensors.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Tree, dict[str, Any]]:
        """Start B episodes with nothing earned yet."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._return: Tensor | None = None
        self._length = 0
        return observation, info

    def step(self, actions: Tree) -> tuple[Tree, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Step, and add the statistics of episodes that end."""
        observation, reward, terminated, truncated, info = self.env.step(actions)
        self._return = reward if self._return is None else self._return + reward
        self._length += 1
        if "_final_obs" in info:  # the whole batch ends at once, and says so without a look at the device
            length = torch.full_like(reward, self._length, dtype=torch.int64)
            info = info | {"episode": {"r": self._return, "l": length}, "_episode": info["_final_obs"]}
            self._return, self._length = None, 0
        return observation, reward, terminated, truncated, info


def as_floats(name: str, values: Any, device: torch.device) -> Tensor:
    """A float32 tensor without graph from a floating-point array or tensor. Raises ValueError for another type or device."""
    if isinstance(values, Tensor):
        if values.device.type != device.type:
            raise ValueError(f"{name}: got a tensor on {values.device}, wanted one on {device}")
        tensor = values.detach()
    else:
        tensor = torch.as_tensor(np.asarray(values))
    if not tensor.is_floating_point():
        raise ValueError(f"{name}: got {tensor.dtype} {list(tensor.shape)}, wanted floating point")
    return tensor.to(device, torch.float32)


def _sample(space: spaces.Space[Any], count: int, generator: torch.Generator) -> Any:
    """Uniform draws [count, ...] from a bounded Box, a Discrete, or a Dict of them."""
    if isinstance(space, spaces.Dict):
        return {key: _sample(part, count, generator) for key, part in space.items()}
    if isinstance(space, spaces.Discrete):
        return torch.randint(int(space.n), (count,), generator=generator, device=generator.device)
    assert isinstance(space, spaces.Box)
    low, high = (torch.as_tensor(bound, device=generator.device) for bound in (space.low, space.high))
    return low + (high - low) * torch.rand(count, *space.shape, generator=generator, device=generator.device)


def _batch_of_one(tree: Any) -> Any:
    """Every array with a leading axis of 1."""
    return {key: _batch_of_one(part) for key, part in tree.items()} if isinstance(tree, dict) else np.asarray(tree)[None]


def _row(tree: Any) -> Any:
    """The first row of every tensor, as numpy."""
    if isinstance(tree, dict):
        return {key: _row(value) for key, value in tree.items()}
    return tree[0].cpu().numpy() if tree.ndim > 1 else tree[0].item()
