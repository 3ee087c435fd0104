"""Observations that say which of their numbers mean what."""

import math

import numpy as np
from gymnasium import spaces
from torch import Tensor


class Observation(spaces.Box):
    """A flat Box [D] made of named parts, one after the other: {"core": (256,), "location": (2,), "context": (1, 20, 20)}.

    To whoever does not ask for the parts it is a Box as any other. `state` is how many numbers the world's own `state` has, of
    which an agent sees nothing and which a critic may read in training; 0 where the world tells none.
    """

    def __init__(self, parts: dict[str, tuple[int, ...]], state: int = 0) -> None:
        self.parts, self.state = dict(parts), state
        super().__init__(-np.inf, np.inf, (sum(math.prod(shape) for shape in parts.values()),), np.float32)

    def split(self, observation: Tensor) -> dict[str, Tensor]:
        """Observations [..., D] by part, each [..., *shape]."""
        pieces = observation.split([math.prod(shape) for shape in self.parts.values()], dim=-1)
        return {
            name: piece.unflatten(-1, shape) if len(shape) > 1 else piece
            for (name, shape), piece in zip(self.parts.items(), pieces, strict=True)
        }
