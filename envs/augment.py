"""Small random distortions of training images, one batched resampling for the whole batch."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# The distortion at strength 1, about as large as a digit bears before it reads as another one.
ROTATION = math.radians(15)
SCALE = 0.15
SHEAR = 0.2
SHIFT = 2 / 14  # in units of half the image: two pixels of 28


def random_affine(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Rotate, scale, shear and shift each image by its own random amounts: images [B, C, H, W] in [0, 1] -> the same shape.

    Each amount is uniform between plus and minus its bound times `strength`. Outside the image lies 0.
    """
    grid = F.affine_grid(_maps(images, strength, generator), list(images.shape), align_corners=False)  # [B, H, W, 2]
    return F.grid_sample(images, grid, align_corners=False)


def random_affine_pieces(
    images: Tensor, top: Tensor, left: Tensor, size: int, strength: float, generator: torch.Generator
) -> Tensor:
    """Pieces [B, C, size, size] of images [B, C, H, W] that are distorted as by `random_affine`, cut where top and left [B] say.

    Only the pieces are resampled.
    """
    height, width = images.shape[2:]
    span = torch.arange(size, device=images.device)
    x, y = ((2 * (corner[:, None] + span) + 1) / length - 1 for corner, length in ((left, width), (top, height)))  # each [B, size]
    row_x, row_y = _maps(images, strength, generator)[:, :, :, None, None].unbind(dim=1)  # each [B, 3, 1, 1]
    x, y = x[:, None, :], y[:, :, None]
    grid = torch.stack([row[:, 0] * x + row[:, 1] * y + row[:, 2] for row in (row_x, row_y)], dim=-1)  # [B, size, size, 2]
    return F.grid_sample(images, grid, align_corners=False)


def _maps(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Where each image's pixels are fetched from, as random affine maps [B, 2, 3] of places in -1 to 1 along each axis."""
    tall = images.shape[2] / images.shape[3]  # those places are not square where the image is not
    draw = (torch.rand(len(images), 6, generator=generator, device=images.device) * 2 - 1) * strength
    angle, shear = draw[:, 0] * ROTATION, draw[:, 1] * SHEAR
    scale_x, scale_y = 1 + draw[:, 2] * SCALE, 1 + draw[:, 3] * SCALE
    row_x = torch.stack([angle.cos() * scale_x, (shear - angle.sin()) * tall, draw[:, 4] * SHIFT], dim=1)
    row_y = torch.stack([angle.sin() / tall, angle.cos() * scale_y, draw[:, 5] * SHIFT], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def turned(images: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Images [B, C, H, W] in [0, 1], each turned around its middle by an angle that is uniform up to `degrees` either way.

    Outside the image lies 0. At 90 this is rotated MNIST (Jaderberg et al. 2015, section 4.1, "R").
    """
    angle = (torch.rand(len(images), generator=generator, device=images.device) * 2 - 1) * math.radians(degrees)
    zero, tall = torch.zeros_like(angle), images.shape[2] / images.shape[3]
    rows = torch.stack([angle.cos(), -angle.sin() * tall, zero, angle.sin() / tall, angle.cos(), zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)  # [B, H, W, 2]
    return F.grid_sample(images, grid, align_corners=False)


def shifted(images: Tensor, shift: int, mirror: bool | Tensor, generator: torch.Generator) -> Tensor:
    """Images [B, C, H, W] moved by up to `shift` pixels each way over their reflected borders, and mirrored half of the time.

    `mirror` [B] bool says which are mirrored, where it is not left to chance.
    """
    batch, channels, height, width = images.shape
    device = images.device
    padded = F.pad(images.float(), (shift,) * 4, mode="reflect") if shift else images.float()
    top, left = (torch.randint(2 * shift + 1, (batch, 1), generator=generator, device=device) for _ in range(2))
    rows, columns = top + torch.arange(height, device=device), left + torch.arange(width, device=device)
    if mirror is not False:
        flip = torch.rand(batch, 1, generator=generator, device=device) < 0.5 if mirror is True else mirror[:, None]
        columns = torch.where(flip, columns.flip(1), columns)
    index = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).view(batch, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).view(images.shape).to(images.dtype)
