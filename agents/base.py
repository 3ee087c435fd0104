"""What an agent is, what one batch of episodes leaves behind, and how a batch is played."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from gymnasium import spaces
from torch import Tensor

from hardattn.envs.world import World


class Agent(Protocol):
    """Anything with these five methods is an agent; subclass nothing.

    The constructor is `Agent(observation_space, action_space, *, config, device, seed)`. A class attribute `Config`, a frozen
    dataclass with a sentence under each field, holds the settings; `--set key=value` reaches them. A class attribute
    `attention = "soft"` asks for training worlds whose loss can be differentiated with respect to the looks; `repeats = 2` says
    that it learns only where each example is shown at least twice; `takes_bf16 = True` that observations may come in bf16 while it
    learns, as they do on a processor where perception multiplies so; a subclass says so itself.

    `recordable = True` lets `update()` be recorded and replayed without Python; here, too, a subclass says so itself. Such an agent
    has a method `schedule(progress)` that sets its step size, and a `generator` from which it draws; its update plays one batch,
    changes its state in place and asks the device nothing.
    """

    def begin(self, batch_size: int) -> Any:
        """The memory before the first look; None for a memoryless policy."""

    def act(self, observation: Tensor, memory: Any, greedy: bool = False) -> tuple[Tensor, Any]:
        """The next action for each row of the observation [B, D], and the memory after it."""

    def update(self, world: World) -> Mapping[str, float | Tensor]:
        """One round of getting better, however you do it. Plays at least one batch of episodes in `world`.

        Tells numbers for the curve, or tensors of one number, for which the loop waits once.
        """

    def state_dict(self) -> dict[str, Any]:
        """Enough to resume exactly: tensors, numbers, strings, and lists and dicts of them."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`. Parts that only training needs (an "optimizer") may be missing."""


@dataclass(frozen=True)
class Rollout:
    """One batch of complete episodes."""

    observations: Tensor  # [B, T, D], before each action
    actions: Tensor  # [B, T, A] float, or [B, T] int64
    rewards: Tensor  # [B, T]
    logits: Tensor  # [B, T, K], after each action
    states: Tensor | None = None  # [B, T, S], the world's own state before each action, where it tells one


def collect(agent: Agent, world: World, greedy: bool = False, indices: Tensor | None = None) -> Rollout:
    """Play one batch of episodes to its end, on the examples at `indices` [n] or the next ones.

    An agent with a method `watch(world)` is told the world first: for controls that know more than an observation holds.
    """
    if hasattr(agent, "watch"):
        agent.watch(world)
    observation = world.reset(indices)
    memory = agent.begin(len(observation))
    seen, actions, rewards, logits, states = [], [], [], [], []
    for _ in range(world.horizon):
        state = getattr(world, "state", None)
        states += [] if state is None else [state]
        action, memory = agent.act(observation, memory, greedy)
        step = world.step(action)
        seen.append(observation)
        actions.append(action)
        rewards.append(step.reward)
        logits.append(step.logits)
        observation = step.observation
    observations, acted, paid, said = (torch.stack(parts, dim=1) for parts in (seen, actions, rewards, logits))
    return Rollout(observations, acted, paid, said, torch.stack(states, dim=1) if states else None)


def action_width(space: spaces.Space[Any]) -> int:
    """How many numbers a policy puts out for this action space: one a coordinate of a Box, one a choice of a Discrete.

    Raises ValueError for another kind of space.
    """
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return int(space.shape[0])
    raise ValueError(f"action space: got {space}, wanted a flat Box or a Discrete")
