"""What every baseline gives back, and how boxes and values outside the image are meant."""

from typing import NamedTuple

import torch
from torch import Tensor


class Looked(NamedTuple):
    """The answer to a batch of images, and where it came from."""

    logits: Tensor
    """[B, K]."""
    by_look: Tensor | None = None
    """[B, T, K], the logits after each look of a model that looks T times; the last are `logits`."""
    boxes: Tensor | None = None
    """[B, T, 4] where it looked, as (left, top, right, bottom) in pixels; it may leave the image."""
    maps: Tensor | None = None
    """[B, N, ...] how much it listened to each map or place of N attention modules, where they have one shape."""


def edges(low: Tensor, high: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """A span between locations in [-1, 1] as edges in pixels: -1 is the middle of the first pixel, whose left edge is 0."""
    scale = (pixels - 1) / 2
    return (low + 1) * scale, (high + 1) * scale + 1


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of boxes [..., 4] (left, top, right, bottom), 0 to 1; of two empty ones 0."""
    left_top, right_bottom = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    shared = (right_bottom - left_top).clamp(min=0).prod(dim=-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(dim=-1) for box in (boxes, others)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-9)
