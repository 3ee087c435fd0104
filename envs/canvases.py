"""Canvases: digits on a larger black field, among clutter, drawn afresh for each batch.

The recipe is DeepMind's own generator (google-deepmind/mnist-cluttered, mnist_cluttered.lua): first the clutter, small squares cut
from random images of the same data set, then the digits, each at any place where it lies wholly inside with equal chance; values
are added and clipped at white, and digits may overlap. It makes the translated and cluttered MNIST of RAM (Mnih et al. 2014) and
the pairs and sums of DRAM (Ba et al. 2015).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from hardattn.envs.augment import random_affine, random_affine_pieces, turned
from hardattn.envs.datasets import Dataset, Shown
from hardattn.envs.errors import UsageError
from hardattn.envs.tasks import CanvasConfig, Label

CHUNK = 1000  # canvases of a fixed set that are drawn at once; part of what a seed means, so never to be changed


class Canvas(NamedTuple):
    """A batch of canvases with D digits each."""

    images: Tensor
    """[B, C, S, S] uint8."""
    labels: Tensor
    """[B] int64, what is to be told."""
    boxes: Tensor
    """[B, D, 4] float32: where each digit's image was put, as (left, top, right, bottom) in pixels; it covers the columns
    left..right-1 and the rows top..bottom-1."""
    digit_labels: Tensor
    """[B, D] int64, the class of each digit in the order of `boxes`."""

    def sha256(self) -> str:
        """A fingerprint of every image, label and box, in order."""
        digest = hashlib.sha256()
        for field in self:
            digest.update(field.cpu().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Canvases:
    """Canvases over the images of a data set, drawn afresh whenever they are shown; the training side of a canvas task."""

    source: Dataset
    """The images that are strewn."""
    config: CanvasConfig
    """What a canvas holds."""
    reach: float = 1.0
    """How far from the middle digits may lie, as a share of what there is room for, 0 to 1; clutter lies anywhere."""
    crisp_clutter: bool = False
    """Where digits are distorted, leave clutter as it is."""

    def __post_init__(self) -> None:
        if self.source.labels.ndim > 1:
            raise UsageError(f"canvas: images of {self.source.name} have several labels each, wanted one")
        if self.source.in_place:
            raise UsageError(f"canvas: where things lie in images of {self.source.name} says something; wanted another data set")

    def __len__(self) -> int:
        return len(self.source)

    @property
    def classes(self) -> int:
        """How many labels there are (K)."""
        return label_count(self.config.label, self.source.classes)

    @property
    def channels(self) -> int:
        """Colours of an image (C)."""
        return self.source.channels

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what is shown, in pixels."""
        return self.config.size, self.config.size

    @property
    def device(self) -> torch.device:
        """Where the images live."""
        return self.source.device

    def to(self, device: torch.device | str) -> "Canvases":
        """The same on another device."""
        return replace(self, source=self.source.to(device))

    def show(self, indices: Tensor, generator: torch.Generator, augment: float = 0.0) -> Shown:
        """A new canvas for each image at `indices` [B]; its digits and its clutter are distorted with strength `augment`."""
        canvas = draw(self.source, indices, self.config, generator, augment, self.reach, self.crisp_clutter)
        return Shown(canvas.images, canvas.labels, canvas.boxes)

    @property
    def boxes(self) -> None:
        """Known only once a canvas is drawn."""
        return None

    def sha256(self) -> str:
        """A fingerprint of the images and of what is done with them."""
        return hashlib.sha256(f"{self.source.sha256()} {self.config}".encode()).hexdigest()

    def fixed(self, seed: int, count: int) -> Dataset:
        """The first `count` canvases of the set that `seed` fixes, as a data set: for measuring."""
        canvas = fixed_set(self.source, self.config, seed, count)
        return Dataset(f"{self.source.name} on canvases", canvas.images, canvas.labels, self.classes, canvas.boxes)


def draw(
    dataset: Dataset,
    indices: Tensor,
    config: CanvasConfig,
    generator: torch.Generator,
    augment: float = 0.0,
    reach: float = 1.0,
    crisp_clutter: bool = False,
) -> Canvas:
    """One canvas for each of `indices` [B] (int64), on the data set's device, as the generator has it.

    The digit at `indices` comes first; a second digit and the clutter are any images of the data set. With `augment` the digits are
    distorted at random before they are put down, and the clutter before it is cut. `crisp_clutter` leaves that out: resampling
    blurs, and a network then tells crisp clutter from blurred digits, until it is measured where both are crisp. `reach` below 1
    keeps digits around the middle.

    Raises UsageError where the data set's images [N, C, H, W] do not fit on the canvas or a piece does not fit in them, ValueError
    for indices of another shape or dtype.
    """
    _check(dataset, indices, config)
    batch, count = len(indices), len(dataset)
    channels, height, width = dataset.images.shape[1:]

    def random(below: int, columns: int) -> Tensor:
        """Whole numbers 0..below-1, [B, columns]."""
        return torch.randint(below, (batch, columns), generator=generator, device=indices.device)

    canvas = torch.zeros(batch, channels, config.size**2, dtype=torch.int16, device=indices.device)
    if config.clutter:
        piece, pieces = config.clutter_size, config.clutter
        cuts = dataset.images.unfold(2, piece, 1).unfold(3, piece, 1)  # [N, C, H-p+1, W-p+1, p, p]: every piece there is; a view
        source, row, column = random(count, pieces), random(cuts.shape[2], pieces), random(cuts.shape[3], pieces)
        free = config.size - piece + 1
        top, left = random(free, pieces), random(free, pieces)
        if augment and not crisp_clutter:
            cut_from = dataset.images[source.flatten()].float() / 255  # [B*P, C, H, W]
            cut = random_affine_pieces(cut_from, row.flatten(), column.flatten(), piece, augment, generator)
            strewn = (cut * 255).round().to(torch.uint8).view(batch, pieces, channels, piece, piece)
        else:
            strewn = cuts[source, :, row, column]
        _add(canvas, strewn, top, left, config.size)
    digits = torch.cat([indices[:, None], random(count, config.digits - 1)], dim=1)  # [B, D]
    top, left = (_places(config.size - length, reach, random, config.digits) for length in (height, width))
    shapes = dataset.images[digits]  # [B, D, C, h, w]
    if config.turn or augment:
        changed = shapes.flatten(0, 1).float() / 255
        changed = turned(changed, config.turn, generator) if config.turn else changed
        changed = random_affine(changed, augment, generator) if augment else changed
        shapes = (changed * 255).round().to(torch.uint8).view(shapes.shape)
    _add(canvas, shapes, top, left, config.size)
    digit_labels = dataset.labels[digits]
    return Canvas(
        # Nothing is below 0, so one clip after all sums is the same as one after each.
        images=canvas.clamp_(max=255).to(torch.uint8).view(batch, channels, config.size, config.size),
        labels=canvas_label(digit_labels, config.label, dataset.classes),
        boxes=torch.stack([left, top, left + width, top + height], dim=-1).float(),
        digit_labels=digit_labels,
    )


def fixed_set(dataset: Dataset, config: CanvasConfig, seed: int, count: int) -> Canvas:
    """`count` canvases that are the same on every run and device; a smaller count gives the first ones of a larger.

    The first digits walk over the data set in random order, each image once before any comes again. Drawn on the CPU in chunks,
    returned on the data set's device. Raises UsageError for a count below 1, and what `draw` raises.
    """
    if count < 1:
        raise UsageError(f"count={count}: wanted at least 1 canvas")
    source, random = dataset.to("cpu"), torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    chunks = []
    for _ in range(0, count, CHUNK):
        while len(order) < CHUNK:
            order = torch.cat([order, torch.randperm(len(source), generator=random)])
        chunks.append(draw(source, order[:CHUNK], config, random))
        order = order[CHUNK:]
    return Canvas(*(torch.cat(parts)[:count].to(dataset.images.device) for parts in zip(*chunks, strict=True)))


def canvas_label(digit_labels: Tensor, label: Label, classes: int = 10) -> Tensor:
    """What is to be told of canvases with digits of these classes: [B, D] int64 -> [B] int64."""
    if label == "pair":
        return pair_label(digit_labels[:, 0], digit_labels[:, 1], classes)
    return digit_labels.sum(dim=1)  # of one digit, the sum is its class


def label_count(label: Label, classes: int = 10) -> int:
    """How many labels there are: of ten digits 10 for "class", 55 for "pair", 19 for "sum"."""
    return {"class": classes, "pair": classes * (classes + 1) // 2, "sum": 2 * classes - 1}[label]


def pair_label(one: Tensor, other: Tensor, classes: int = 10) -> Tensor:
    """The number of an unordered pair of classes, any shape: (0, 0), (0, 1), .. (0, 9), (1, 1), .. (9, 9) are 0 to 54."""
    low, high = torch.minimum(one, other), torch.maximum(one, other)
    return low * (2 * classes - 1 - low) // 2 + high


def pair_digits(label: Tensor, classes: int = 10) -> Tensor:
    """The inverse of `pair_label`: [...] int64 -> the smaller and the larger class [..., 2]."""
    return torch.triu_indices(classes, classes, device=label.device).T[label]


def _places(room: int, reach: float, random: Callable[[int, int], Tensor], digits: int) -> Tensor:
    """Where digits begin along one axis, [B, digits]: anywhere in 0..room, or in the middle `reach` of it."""
    free = round(room * reach)
    return random(free + 1, digits) + (room - free) // 2


def _add(canvas: Tensor, pieces: Tensor, top: Tensor, left: Tensor, size: int) -> None:
    """Add pieces [B, P, C, h, w] to canvases [B, C, size * size] where top and left [B, P] say."""
    rows, columns = (torch.arange(length, device=canvas.device) for length in pieces.shape[3:])
    index = (top * size + left)[:, :, None, None] + (rows[:, None] * size + columns)  # [B, P, h, w]
    values = pieces.transpose(1, 2).flatten(2).to(canvas.dtype)  # [B, C, P*h*w]
    canvas.scatter_add_(2, index.flatten(1)[:, None].expand_as(values), values)


def _check(dataset: Dataset, indices: Tensor, config: CanvasConfig) -> None:
    height, width = dataset.images.shape[2:]
    shown = f"images of {dataset.name} are {height} x {width}"
    if config.size < max(height, width):
        raise UsageError(f"size={config.size}: {shown}; wanted a canvas of at least {max(height, width)} pixels")
    if config.clutter and config.clutter_size > min(height, width):
        raise UsageError(f"clutter_size={config.clutter_size}: {shown}; wanted pieces of at most {min(height, width)} pixels")
    if indices.ndim != 1 or indices.dtype != torch.int64:
        raise ValueError(f"indices: got {indices.dtype} {list(indices.shape)}, wanted int64 [B], one a canvas")
