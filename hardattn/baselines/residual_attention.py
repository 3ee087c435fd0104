"""Residual attention network (Wang et al. 2017): residual units under a soft mask of places and maps, stacked deep.

Each module splits into a trunk T and a mask M, which goes down (pooling) and up again (interpolation) to see more of the image.
Attention residual learning gives (1 + M) T, so a mask near 0 leaves the trunk as it is; naive masks, M T, fade what passes many.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hardattn.baselines.looked import Looked
from hardattn.envs.errors import at_least


@dataclass(frozen=True)
class ResidualAttentionConfig:
    """A small residual attention network of three stages."""

    learning: Literal["residual", "naive", "none"] = "residual"
    """residual: (1 + M) T (section 3.2, eq. 3); naive: M T; none: T, with the mask's weights unused."""
    modules: int = 1
    """Attention modules a stage (the paper's m)."""
    width: int = 16
    """Feature maps of the first stage; each later stage has twice as many."""

    def __post_init__(self) -> None:
        at_least(self, 1, "modules", "width")


class Residual(nn.Module):
    """Two 3x3 convolutions behind their normalisations, added to what came in (He et al. 2016)."""

    def __init__(self, inputs: int, maps: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, maps, 3, stride, 1, bias=False))
        self.second = nn.Sequential(nn.BatchNorm2d(maps), nn.ReLU(), nn.Conv2d(maps, maps, 3, 1, 1, bias=False))
        self.skip = nn.Identity() if inputs == maps and stride == 1 else nn.Conv2d(inputs, maps, 1, stride, bias=False)

    def forward(self, seen: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, maps, H / stride, W / stride]."""
        total: Tensor = self.skip(seen) + self.second(self.first(seen))
        return total


class Mask(nn.Module):
    """The soft mask of a module: pooled, one unit, interpolated back, two 1x1 convolutions, a sigmoid (figure 3; r = 1)."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.down, self.up = Residual(maps, maps), Residual(maps, maps)
        self.out = nn.Sequential(
            nn.BatchNorm2d(maps), nn.ReLU(), nn.Conv2d(maps, maps, 1, bias=False),
            nn.BatchNorm2d(maps), nn.ReLU(), nn.Conv2d(maps, maps, 1),
        )  # fmt: skip

    def forward(self, seen: Tensor) -> Tensor:
        """[B, C, H, W] -> values in 0 to 1 of the same shape."""
        low = self.up(self.down(F.max_pool2d(seen, 3, 2, 1)))
        mask: Tensor = self.out(F.interpolate(low, size=seen.shape[2:], mode="bilinear", align_corners=False)).sigmoid()
        return mask


class Attention(nn.Module):
    """An attention module (figure 2): a unit before, two trunk units beside the mask, a unit after (p = 1, t = 2)."""

    def __init__(self, maps: int, learning: str) -> None:
        super().__init__()
        self.learning = learning
        self.before, self.after = Residual(maps, maps), Residual(maps, maps)
        self.trunk = nn.Sequential(Residual(maps, maps), Residual(maps, maps))
        self.mask = Mask(maps) if learning != "none" else None

    def forward(self, seen: Tensor) -> tuple[Tensor, Tensor | None]:
        """[B, C, H, W] -> the same shape, and the mask's mean over maps [B, H, W]."""
        seen = self.before(seen)
        trunk = self.trunk(seen)
        if self.mask is None:
            return self.after(trunk), None
        mask = self.mask(seen)
        passed = combine(trunk, mask, self.learning)
        return self.after(passed), mask.mean(dim=1)


def combine(trunk: Tensor, mask: Tensor, learning: str) -> Tensor:
    """(1 + M) T for "residual" (eq. 3), M T for "naive" (eq. 1)."""
    return (1 + mask) * trunk if learning == "residual" else mask * trunk


class ResidualAttention(nn.Module):
    """Stem, three stages of attention modules, the mean over places, a classifier."""

    Config = ResidualAttentionConfig
    sees = "the whole image"

    def __init__(self, shape: tuple[int, int, int], classes: int, config: ResidualAttentionConfig) -> None:
        super().__init__()
        channels, height, width = shape
        strided = min(height, width) >= 40
        self.stem = nn.Conv2d(channels, config.width, 5 if strided else 3, 2 if strided else 1, 2 if strided else 1, bias=False)
        stages: list[nn.Module] = []
        inputs = config.width
        for stage in range(3):
            maps = config.width << stage
            stages.append(Residual(inputs, maps, 2 if stage else 1))
            stages += [Attention(maps, config.learning) for _ in range(config.modules)]
            inputs = maps
        self.stages = nn.ModuleList(stages)
        self.last = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.classify = nn.Linear(inputs, classes)
        self.processed_pixels = self.unique_pixels = height * width
        self.other_flops = 0

    def forward(self, images: Tensor) -> Looked:
        """[B, C, H, W] -> logits [B, K] and the first stage's masks [B, modules, H', W']."""
        masks: list[Tensor] = []
        seen = self.stem(images)
        for stage in self.stages:
            if isinstance(stage, Attention):
                seen, mask = stage(seen)
                masks += [mask] if mask is not None and (not masks or mask.shape == masks[0].shape) else []
            else:
                seen = stage(seen)
        logits = self.classify(self.last(seen).mean(dim=(2, 3)))
        return Looked(logits, maps=torch.stack(masks, dim=1).float() if masks else None)
