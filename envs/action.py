"""Actions that are partly a choice among few: a gaze and a move."""

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class Action(spaces.Box):
    """A flat Box from -high to high whose last `choices` numbers are scores: the world does what scores most.

    A policy that knows may choose outright, by scores of 1 and 0. To whoever does not ask it is a Box as any other.
    """

    def __init__(self, high: NDArray[np.float32], choices: int) -> None:
        self.choices = choices
        super().__init__(-high, high, dtype=np.float32)
