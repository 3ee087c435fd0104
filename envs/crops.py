"""A window of each image: anywhere in training, in the middle for measuring."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from hardattn.envs.augment import random_affine
from hardattn.envs.datasets import Dataset, Shown
from hardattn.envs.errors import UsageError


@dataclass(frozen=True)
class Crops:
    """Windows of size x size pixels over the images of a data set, at a new place whenever they are shown.

    Raises UsageError if the images are smaller than that.
    """

    source: Dataset
    size: int

    def __post_init__(self) -> None:
        height, width = self.source.images.shape[2:]
        if not 1 <= self.size <= min(height, width):
            raise UsageError(f"crop={self.size}: images of {self.source.name} are {height} x {width}; wanted no larger a window")
        if self.source.in_place:
            raise UsageError(f"crop={self.size}: where things lie in images of {self.source.name} says something; wanted crop=0")

    def __len__(self) -> int:
        return len(self.source)

    @property
    def labels(self) -> Tensor:
        """As of the whole images."""
        return self.source.labels

    @property
    def classes(self) -> int:
        """How many labels there are (K)."""
        return self.source.classes

    @property
    def channels(self) -> int:
        """Colours of an image (C)."""
        return self.source.channels

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what is shown, in pixels."""
        return self.size, self.size

    @property
    def boxes(self) -> None:
        """Unknown."""
        return None

    def to(self, device: torch.device | str) -> "Crops":
        """The same on another device."""
        return Crops(self.source.to(device), self.size)

    def show(self, indices: Tensor, generator: torch.Generator, augment: float = 0.0) -> Shown:
        """A window of each image at `indices` [B], at a random place; distorted with strength `augment` (then as floats)."""
        images = self.source.images.index_select(0, indices)
        height, width = images.shape[2:]
        top, left = (
            torch.randint(length - self.size + 1, (len(images), 1), generator=generator, device=images.device)
            for length in (height, width)
        )
        span = torch.arange(self.size, device=images.device)
        row, column, batch = (
            (top + span)[:, :, None],
            (left + span)[:, None, :],
            torch.arange(len(images), device=images.device)[:, None, None],
        )
        windows = images.movedim(1, -1)[batch, row, column].movedim(-1, 1).contiguous()
        if augment:
            windows = random_affine(windows.float() / 255, augment, generator)
        return Shown(windows, self.source.labels[indices], None)

    def fixed(self) -> Dataset:
        """The middle window of every image, as a data set: for measuring."""
        height, width = self.source.images.shape[2:]
        top, left = (height - self.size) // 2, (width - self.size) // 2
        images = self.source.images[:, :, top : top + self.size, left : left + self.size].contiguous()
        return Dataset(self.source.name, images, self.source.labels, self.source.classes)

    def sha256(self) -> str:
        """A fingerprint of the images and of what is done with them."""
        return hashlib.sha256(f"{self.source.sha256()} crop {self.size}".encode()).hexdigest()
