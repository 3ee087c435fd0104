"""A convolutional network of the whole image, and the same of an image made as small as a hard-attention model's pixels."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hardattn.baselines.looked import Looked
from hardattn.envs.errors import UsageError, more_than_zero
from hardattn.envs.tasks import Task

SMALLEST = 8  # blocks are added until the maps are no wider than this
WIDTHS = (16, 32, 64, 64, 64, 64)
WIDE, VERY_WIDE = 40, 100  # from these widths on, a convolution takes every second or fourth pixel instead of pooling


@dataclass(frozen=True)
class ConvNetConfig:
    """A convolutional network."""

    layout: Literal["deep", "paper"] = "deep"
    """deep: 3x3 convolutions with batch normalisation, and the maximum over all places; paper: the comparison network of Jaderberg
    et al. 2015 (9x9 and 7x7 convolutions, each pooled, then one fully connected layer)."""
    width: float = 1.0
    """Feature maps of every layer, as a multiple."""

    def __post_init__(self) -> None:
        more_than_zero(self, "width")


@dataclass(frozen=True)
class SmallConvNetConfig(ConvNetConfig):
    """A convolutional network of an image made small."""

    side: int = 0
    """Width and height in pixels to which the image is shrunk; 0 takes as many pixels as all of the task's glimpses hold."""

    def fitted(self, task: Task) -> "SmallConvNetConfig":
        """With the task's pixels where nothing was asked; repeats and coarse scales count."""
        return replace(self, side=self.side or int((task.num_glimpses * task.scales) ** 0.5 * task.size))


class Trunk(nn.Module):
    """Images [B, C, H, W] to features [B, `features`].

    Raises UsageError for images that are too small for the paper's layout.
    """

    def __init__(self, shape: tuple[int, int, int], layout: str = "deep", width: float = 1.0) -> None:
        super().__init__()
        channels, height, breadth = shape
        self.body: nn.Module
        if layout == "paper":
            rows, columns = (((side - 8) // 2 - 6) // 2 for side in (height, breadth))
            if min(rows, columns) < 1:
                raise UsageError(f"the paper's layout reads {height} x {breadth} pixels, wanted 22 x 22 or more; or take deep")
            maps = round(32 * width)
            self.body = nn.Sequential(
                nn.Conv2d(channels, maps, 9), nn.MaxPool2d(2), nn.ReLU(),
                nn.Conv2d(maps, maps, 7), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
            )  # fmt: skip
            self.features = maps * rows * columns
            return
        blocks, side, inputs = [], min(height, breadth), channels
        for number, wanted in enumerate(WIDTHS):
            maps, stride = max(1, round(wanted * width)), 4 if side >= VERY_WIDE else 2 if side >= WIDE else 1
            blocks.append(block(inputs, maps, 2 * stride + 1 if number == 0 else 3, stride))
            side, inputs = -(-side // stride) if stride > 1 else side // 2, maps
            if side <= SMALLEST:
                break
        self.features = max(1, round(128 * width))
        self.body = nn.Sequential(
            *blocks, nn.Conv2d(inputs, self.features, 3, padding=1, bias=False), nn.BatchNorm2d(self.features)
        )

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, features]."""
        seen: Tensor = self.body(images)
        return seen if seen.ndim == 2 else F.relu(seen.amax(dim=(2, 3)))


def block(inputs: int, maps: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, normalisation, ReLU; it shrinks the image by its stride, or with a stride of 1 to half by pooling."""
    conv = nn.Conv2d(inputs, maps, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(maps), nn.ReLU(), nn.Identity() if stride > 1 else nn.MaxPool2d(2))


class ConvNet(nn.Module):
    """Reads the whole image at once."""

    Config: type[ConvNetConfig] = ConvNetConfig
    sees = "the whole image"

    def __init__(self, shape: tuple[int, int, int], classes: int, config: ConvNetConfig) -> None:
        super().__init__()
        self.trunk = Trunk(shape, config.layout, config.width)
        self.classify = nn.Linear(self.trunk.features, classes)
        self.processed_pixels = self.unique_pixels = shape[1] * shape[2]
        self.other_flops = 0

    def forward(self, images: Tensor) -> Looked:
        """[B, C, H, W] -> logits [B, K]."""
        return Looked(self.classify(self.trunk(images)))


class SmallConvNet(nn.Module):
    """The control of equal pixels: a model that chooses where to look must beat a look at everything with as many pixels.

    Raises UsageError for a side too small to convolve, or none.
    """

    Config = SmallConvNetConfig
    sees = "the whole image, made small"

    def __init__(self, shape: tuple[int, int, int], classes: int, config: SmallConvNetConfig) -> None:
        super().__init__()
        channels, height, width = shape
        self.side = min(config.side, height, width)
        if self.side < SMALLEST // 2:
            raise UsageError(f"cnn-small: {self.side} x {self.side} pixels are too few to convolve; wanted side=4 or more")
        self.net = ConvNet((channels, self.side, self.side), classes, config)
        self.processed_pixels, self.unique_pixels = self.side**2, height * width
        self.other_flops = channels * height * width  # each pixel is added once

    def forward(self, images: Tensor) -> Looked:
        """[B, C, H, W] -> logits [B, K]."""
        shrunk = F.adaptive_avg_pool2d(images, self.side) if images.shape[2:] != (self.side, self.side) else images
        looked: Looked = self.net(shrunk.contiguous(memory_format=torch.channels_last))
        return looked
