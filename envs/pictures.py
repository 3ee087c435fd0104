"""Whole pictures, shifted and mirrored anew and spoiled anew whenever they are shown; the training side of a task of gains."""

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hardattn.envs.augment import shifted
from hardattn.envs.corruptions import corrupt
from hardattn.envs.datasets import Dataset, Shown
from hardattn.envs.errors import UsageError

SHIFT = 3  # pixels that a training picture may be moved each way
FIXED_SEED = 5  # of the spoiled pictures on which everybody measures: part of the task, never to be changed


@dataclass(frozen=True)
class Pictures:
    """Pictures of a data set, spoiled by a corruption of GatingConfig at a strength of 1 to 5 (0 for each).

    Raises UsageError for `jpeg` of pictures whose sides are no multiples of 8.
    """

    source: Dataset
    corruption: str = "none"
    strength: int = 0

    def __post_init__(self) -> None:
        height, width = self.source.images.shape[2:]
        if self.corruption in ("jpeg", "all") and (height % 8 or width % 8):
            raise UsageError(
                f"corruption={self.corruption}: pictures are {height} x {width}, wanted multiples of 8 for JPEG; try noise"
            )

    def __len__(self) -> int:
        return len(self.source)

    @property
    def labels(self) -> Tensor:
        """What the pictures show."""
        return self.source.labels

    @property
    def classes(self) -> int:
        """How many labels there are (K)."""
        return self.source.classes

    @property
    def channels(self) -> int:
        """Colours of a picture (C)."""
        return self.source.channels

    @property
    def boxes(self) -> None:
        """Unknown."""
        return None

    def to(self, device: torch.device | str) -> "Pictures":
        """The same on another device."""
        return Pictures(self.source.to(device), self.corruption, self.strength)

    def show(self, indices: Tensor, generator: torch.Generator, augment: float = 0.0) -> Shown:
        """The pictures at `indices` [B], spoiled; with `augment` above 0 also shifted and mirrored, as their data set allows."""
        images = self.source.images.index_select(0, indices)
        if augment and not self.source.in_place:
            images = shifted(images, SHIFT, self.source.photographs, generator)
        return Shown(self._spoiled(images, generator), self.source.labels[indices], None)

    def fixed(self) -> Dataset:
        """All pictures, spoiled once and for all: for measuring, the same on every run and device."""
        source, random = self.source.to("cpu"), torch.Generator().manual_seed(FIXED_SEED)
        order = torch.randperm(len(source), generator=random)  # what spoils a picture must not follow from its place in the set
        images = torch.empty_like(source.images)
        images[order] = torch.cat([self._spoiled(part, random) for part in source.images[order].split(1000)])
        name = source.name if self.corruption == "none" else f"{source.name} with {self.corruption}"
        return replace(source, name=name, images=images, boxes=None).to(self.source.device)

    def sha256(self) -> str:
        """A fingerprint of the pictures and of what is done with them."""
        return hashlib.sha256(f"{self.source.sha256()} {self.corruption} {self.strength}".encode()).hexdigest()

    def _spoiled(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if self.corruption == "none":
            return images
        spoiled = corrupt(images.float() / 255, self.corruption, self.strength, generator)
        return (spoiled * 255).round().to(torch.uint8)
