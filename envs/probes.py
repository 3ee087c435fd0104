"""Tiny worlds whose best value is known, each isolating one part of an agent; a sound learner solves one in seconds.

After the probe environments of Andy Jones ("Debugging RL, without the agonizing pain"). They keep the contract of
`hardattn.envs.world.World` with looks (x, y) in [-1, 1]; only x counts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from hardattn.envs.errors import unknown
from hardattn.envs.world import Attention, Counts, Step


@dataclass(frozen=True)
class Probe:
    """One probe: what it tests, how long an episode is, what is earned, and what the best policies earn."""

    tests: str
    horizon: int
    reward: Callable[[Tensor, list[Tensor]], Tensor]  # (cue [B], actions so far, each [B, 2]) -> reward [B]
    best: float  # return of the best policy
    blind: float  # return of the best policy that never reads the observation


def nearness(x: Tensor, target: Tensor | float) -> Tensor:
    """1 at the target, falling by 1 a unit, never below 0."""
    return (1 - (x - target).abs()).clamp_min(0)


def _constant(cue: Tensor, actions: list[Tensor]) -> Tensor:
    return torch.ones_like(cue)


def _left(cue: Tensor, actions: list[Tensor]) -> Tensor:
    return nearness(actions[-1][:, 0], -0.5)


def _cue(cue: Tensor, actions: list[Tensor]) -> Tensor:
    return nearness(actions[-1][:, 0], cue)


def _late(cue: Tensor, actions: list[Tensor]) -> Tensor:
    return nearness(actions[0][:, 0], cue) if len(actions) == 2 else torch.zeros_like(cue)


PROBES = {
    "constant": Probe("the critic learns a constant return", 1, _constant, 1.0, 1.0),
    "left": Probe("the policy moves towards reward", 1, _left, 1.0, 1.0),
    "cue": Probe("the policy reads the observation", 1, _cue, 1.0, 0.5),
    "late": Probe("reward reaches an action two steps back", 2, _late, 1.0, 0.5),
}


class ProbeWorld:
    """A probe as a world. Observation [B, 4]: the cue (-0.5 or 0.5), the step as two indicators, 1.

    With `attention="soft"` rewards keep their graph, and `loss()` is minus the mean return: a probe for agents that differentiate
    through their looks. Raises UsageError for an unknown name.
    """

    def __init__(
        self,
        name: str,
        batch_size: int = 64,
        repeats: int = 1,
        attention: Attention = "hard",
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        if name not in PROBES:
            raise unknown("probe", name, PROBES)
        self.attention = attention
        self.probe = PROBES[name]
        self.device, self.horizon = torch.device(device), self.probe.horizon
        self.batch_size, self.repeats, self.progress = batch_size, repeats, 0.0
        self.observation_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.action_space: spaces.Box = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._episodes = 0

    def reset(self, indices: Tensor | None = None) -> Tensor:
        """New cues, or those of the examples named: even ones have their cue left, odd ones right."""
        if indices is None:
            indices = torch.randint(2, (self.batch_size // self.repeats,), generator=self._generator, device=self.device)
        self._cue = (indices.to(self.device) % 2 - 0.5).repeat_interleave(self.repeats)
        self._actions: list[Tensor] = []
        self._return = torch.zeros_like(self._cue)
        return self._observe()

    def step(self, action: Tensor) -> Step:
        """Act: [B, 2]. Raises ValueError for another shape."""
        if action.shape != (len(self._cue), 2):
            raise ValueError(f"action: got {list(action.shape)}, wanted [{len(self._cue)}, 2]")
        self._actions.append((action if self.attention == "soft" else action.detach()).clamp(-1, 1))
        last = len(self._actions) == self.horizon
        self._episodes += len(self._cue) * last
        reward = self.probe.reward(self._cue, self._actions)
        self._return = self._return + reward
        done = torch.full_like(self._cue, last, dtype=torch.bool)
        return Step(self._observe(), reward.detach(), done, torch.zeros(len(self._cue), 2, device=self.device))

    def loss(self) -> Tensor:
        """Nothing perceives here: 0, or minus the mean return where the looks keep their graph."""
        return -self._return.mean() if self.attention == "soft" else torch.zeros((), device=self.device)

    @property
    def counts(self) -> Counts:
        """Episodes and steps so far."""
        return Counts(episodes=self._episodes, steps=self._episodes * self.horizon)

    def _observe(self) -> Tensor:
        clock = torch.zeros(len(self._cue), 2, device=self.device)
        if len(self._actions) < 2:
            clock[:, len(self._actions)] = 1
        return torch.cat([self._cue[:, None], clock, torch.ones_like(self._cue)[:, None]], dim=1)
