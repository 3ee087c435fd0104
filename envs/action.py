"""Actions that are partly a choice among few: a gaze and a move."""

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor


class Action(spaces.Box):
    """A flat Box from -high to high whose last `choices` numbers are scores: the world does what scores most.

    A policy that knows may choose outright, by scores of 1 and 0. To whoever does not ask it is a Box as any other.
    """

    def __init__(self, high: NDArray[np.float32], choices: int) -> None:
        self.choices = choices
        super().__init__(-high, high, dtype=np.float32)


def indicators(choice: Tensor, choices: int) -> Tensor:
    """1 at the choice and 0 elsewhere: [...] int64 -> [..., choices] float32.

    `F.one_hot` first reads off the device whether the largest choice fits, which an update that is recorded cannot.
    """
    return (choice[..., None] == torch.arange(choices, device=choice.device)).float()
