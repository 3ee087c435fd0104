"""The reader of DRAW (Gregor et al. 2015, section 3.2): glimpses through a grid of Gaussian filters, trained end to end.

Every pixel weighs in every glimpse, if only a little, so a gradient says where to look next; the price is that every look reads the
whole image.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hardattn.baselines.looked import Looked
from hardattn.envs.errors import UsageError, at_least, more_than_zero
from hardattn.envs.tasks import Task


@dataclass(frozen=True)
class DrawReaderConfig:
    """A recurrent reader with Gaussian glimpses."""

    size: int = 0
    """Filters along each side of the grid (the paper's N): a glimpse is size x size; 0 takes the task's size."""
    looks: int = 0
    """Glimpses at each image; 0 takes the task's num_glimpses."""
    hidden: int = 256
    """Units of the glimpse encoding and of the recurrent core."""
    localiser_rate: float = 0.1
    """The learning rate of the layer that places the grid, as a share of the others'."""

    def __post_init__(self) -> None:
        if self.size == 1:
            raise UsageError("size=1: a grid of filters has two or more a side; wanted 2 or more, or 0 for the task's")
        at_least(self, 0, "size", "looks")
        at_least(self, 1, "hidden")
        more_than_zero(self, "localiser_rate")

    def fitted(self, task: Task) -> "DrawReaderConfig":
        """With the task's numbers where nothing was asked."""
        return replace(self, size=self.size or task.size, looks=self.looks or task.num_glimpses)


def filters(centre: Tensor, stride: Tensor, deviation: Tensor, size: int, pixels: int) -> Tensor:
    """A bank of `size` Gaussian filters over `pixels` places: [B] each, in pixels -> [B, size, pixels] (section 3.2, eq. 19 to 26).

    Filter i has its middle at centre + (i - (size - 1) / 2) stride, counted from 0, and sums to 1.
    """
    offsets = torch.arange(size, device=centre.device) - (size - 1) / 2
    middles = centre[:, None] + offsets * stride[:, None]  # [B, size]
    places = torch.arange(pixels, device=centre.device, dtype=centre.dtype)
    distances = (places - middles[:, :, None]) / deviation[:, None, None]
    # As a softmax, a bank that has wandered off the image still sums to 1 and keeps its gradient.
    return (-distances.square() / 2).softmax(dim=2)


def read(images: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Images [B, C, H, W] through filters across [B, N, W] and down [B, N, H]: [B, C, N, N] (eq. 27)."""
    return down[:, None] @ images @ across.transpose(1, 2)[:, None]


class DrawReader(nn.Module):
    """Looks `looks` times through a grid that its recurrent core places; the first grid covers the image.

    The numbers that place it start at 0 with no weights: middle of the image, filters spread evenly over all of it and each half as
    wide as they lie apart, intensity 1. Raises UsageError for a config without size or looks (see `fitted`).
    """

    Config = DrawReaderConfig
    sees = "the whole image at every look"

    def __init__(self, shape: tuple[int, int, int], classes: int, config: DrawReaderConfig) -> None:
        super().__init__()
        if not (config.size and config.looks):
            raise UsageError(f"draw-reader: got {config}, wanted size and looks, or config.fitted(task)")
        channels, height, width = shape
        self.config = config
        self.encode = nn.Sequential(nn.Linear(channels * config.size**2 + 5, config.hidden), nn.ReLU())
        self.core = nn.LSTMCell(config.hidden, config.hidden)
        self.classify = nn.Linear(config.hidden, classes)
        self.place = nn.Linear(config.hidden, 5)
        nn.init.zeros_(self.place.weight)
        nn.init.zeros_(self.place.bias)
        self.slow, self.slow_rate = self.place, config.localiser_rate
        self.processed_pixels, self.unique_pixels = config.looks * height * width, height * width
        self.other_flops = config.looks * 6 * config.size * (height + width)  # of each filter's value at each place

    def forward(self, images: Tensor) -> Looked:
        """[B, C, H, W] -> logits [B, K], those after each look, and each grid's box [B, T, 4]."""
        batch, config = len(images), self.config
        height, width = images.shape[2:]
        hidden, cell = (torch.zeros(batch, config.hidden, device=images.device) for _ in range(2))
        logits, boxes = [], []
        for _ in range(config.looks):
            numbers = self.place(hidden).float()
            x, y, stride, deviation, intensity = grid(numbers, config.size, height, width)
            across, down = filters(x, stride, deviation, config.size, width), filters(y, stride, deviation, config.size, height)
            glimpse = read(images, across, down) * intensity[:, None, None, None]
            hidden, cell = self.core(self.encode(torch.cat([glimpse.flatten(1), numbers], dim=1)), (hidden, cell))
            logits.append(self.classify(hidden).float())
            reach = stride * (config.size / 2)
            boxes.append(torch.stack([x - reach, y - reach, x + reach, y + reach], dim=1) + 0.5)  # pixel k spans k to k + 1
        return Looked(logits[-1], torch.stack(logits, dim=1), torch.stack(boxes, dim=1))


def grid(numbers: Tensor, size: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A core's five numbers [B, 5] as x, y, stride, deviation (in pixels) and intensity, [B] each (section 3.2, eq. 21 to 24).

    Zeros put the grid over the whole image, with a deviation of half a stride of that grid, where the paper has 1 pixel.
    """
    x, y, log_variance, log_stride, log_intensity = numbers.unbind(1)
    whole = (max(height, width) - 1) / (size - 1)
    stride = whole * log_stride.exp()
    return (
        (x + 1) * ((width - 1) / 2),
        (y + 1) * ((height - 1) / 2),
        stride,
        0.5 * whole * (0.5 * log_variance).exp(),
        log_intensity.exp(),
    )
