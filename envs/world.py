"""The contract between a world and whoever acts in it: batched tensors in, batched tensors out, and the world counts.

B episodes run in lockstep. An episode lasts `horizon` steps and then ends: terminated, never truncated, because the horizon is
part of the task and the step index is part of the observation.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from gymnasium import spaces
from torch import Tensor

Precision = Literal["auto", "fp32", "bf16"]
Attention = Literal["hard", "soft"]  # soft: a gradient reaches the action


class Step(NamedTuple):
    """What one step brings."""

    observation: Tensor  # [B, D] float32, detached; bf16 for an agent that takes it
    reward: Tensor  # [B] float32
    done: Tensor  # [B] bool; all True at the horizon
    logits: Tensor  # [B, K] float32, what perception believes now


@dataclass(frozen=True)
class Counts:
    """What the world has seen happen since it was made; of glimpses, when an episode has ended."""

    episodes: int = 0
    """Images classified, repeats included."""
    steps: int = 0
    """Looks taken; a look that a stopped episode skips does not count."""
    correct: int = 0
    """Episodes whose most likely class at the end was right."""
    processed_pixels: int = 0
    """Values read by the retina: looks x scales x size x size."""
    unique_pixels: int = 0
    """Different image pixels read, summed over episodes."""
    clipped: int = 0
    """Locations that lay outside [-1, 1] and were clipped."""
    on_target: int = 0
    """Looks whose middle lay in the box of something that counts; 0 where boxes are unknown."""


class World(Protocol):
    """Anything an agent can act in.

    A world may tell its own `state` [B, S] besides, for critics in training alone; `observation_space.state` is then S.
    """

    progress: float  # share of the training budget that is spent, 0 to 1; the study sets it, schedules read it
    attention: Attention  # soft: `loss()` can be differentiated with respect to the actions

    @property
    def observation_space(self) -> spaces.Box:
        """What one row of the observation looks like: [D]."""

    @property
    def action_space(self) -> spaces.Space[Any]:
        """What one row of the action looks like: a Box [A] or a Discrete."""

    @property
    def horizon(self) -> int:
        """Steps in an episode (T)."""

    @property
    def batch_size(self) -> int:
        """Episodes that `reset()` starts side by side (B)."""

    @property
    def repeats(self) -> int:
        """How many of them show the same example, next to each other (M)."""

    @property
    def device(self) -> torch.device:
        """Where all tensors live."""

    @property
    def counts(self) -> Counts:
        """Totals so far. Reading them waits for the device."""

    def reset(self, indices: Tensor | None = None) -> Tensor:
        """Start the next batch of episodes, or the examples named. Returns the observation [B, D]."""

    def step(self, action: Tensor) -> Step:
        """Act in every episode: [B, A] float for a Box, [B] int64 for a Discrete action space."""

    def loss(self) -> Tensor:
        """The perception loss of the episodes just played, a scalar."""


def use_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether perception multiplies in bf16: "auto" does so where the device multiplies bf16 faster than float32."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # torch has no public question for this; on a release without these two, "auto" means float32.
        probes = [getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")]
        return any(probe() for probe in probes if probe is not None)
    return False


def not_finite(action: Tensor, rows: int, world: World, says: str) -> Tensor | None:
    """Refuse an action [rows, A] that `world` cannot take: raises ValueError for another shape, type or device, or for a gradient.

    NaN and infinity are refused too, saying `says`; but on a GPU, where asking would make it wait at every step, the answer is
    returned, for the world to keep and to raise when its counts are read. None is "no". On a CPU the question is one of torch's
    operations, so that an update that is written down asks it at each replay.
    """
    wanted = (rows, *(world.action_space.shape or ()))
    if tuple(action.shape) != wanted or not action.is_floating_point():
        raise ValueError(
            f"action: got {action.dtype} {list(action.shape)}, wanted floating point {list(wanted)}, one row an episode"
        )
    if action.device.type != world.device.type:
        raise ValueError(f"action: got a tensor on {action.device}, wanted one on {world.device}")
    if action.requires_grad and world.attention == "hard":
        raise ValueError("action: it carries a gradient, which cannot pass a hard look; act under torch.no_grad()")
    zero = (action.detach() * 0).sum()  # NaN and infinity times 0 are NaN; fewer steps than asking each
    if world.device.type != "cpu":
        return zero != 0
    try:
        torch._assert_async(zero == 0, says)
    except RuntimeError:
        raise ValueError(says) from None
    return None
