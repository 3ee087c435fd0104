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
    batch = len(images)
    draw = (torch.rand(batch, 6, generator=generator, device=images.device) * 2 - 1) * strength
    angle, shear = draw[:, 0] * ROTATION, draw[:, 1] * SHEAR
    scale_x, scale_y = 1 + draw[:, 2] * SCALE, 1 + draw[:, 3] * SCALE
    row_x = torch.stack([angle.cos() * scale_x, shear - angle.sin(), draw[:, 4] * SHIFT], dim=1)
    row_y = torch.stack([angle.sin(), angle.cos() * scale_y, draw[:, 5] * SHIFT], dim=1)
    grid = F.affine_grid(torch.stack([row_x, row_y], dim=1), list(images.shape), align_corners=False)  # [B, H, W, 2]
    return F.grid_sample(images, grid, align_corners=False)
