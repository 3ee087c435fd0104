"""Squeeze-and-excitation (Hu et al. 2017): gates for feature maps, from the mean of every map over the whole image.

`no-squeeze` is the paper's control (table 16): the same weights as 1x1 convolutions, so each place gates itself from what
it sees, and nothing global comes in.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hardattn.baselines.convnet import Trunk
from hardattn.baselines.looked import Looked
from hardattn.envs.errors import at_least, more_than_zero


@dataclass(frozen=True)
class SqueezeExciteConfig:
    """A convolutional network whose blocks are gated."""

    layout: Literal["deep", "local"] = "deep"
    """deep: the network of `cnn`; local: three small convolutions, of which no place sees more than 14x14 pixels, and the mean over
    all places."""
    width: float = 1.0
    """Feature maps of every layer, as a multiple."""
    reduction: int = 4
    """How many times fewer units than maps the gates' hidden layer has (the paper's r; 16 would leave one unit of 16 maps)."""
    gates: bool = True
    """Whether there are gates; without them this is the network alone."""

    def __post_init__(self) -> None:
        more_than_zero(self, "width")
        at_least(self, 1, "reduction")


class Gate(nn.Module):
    """sigmoid(W2 ReLU(W1 z)) for maps [B, C, H, W] (eq. 2 and 3): z is each map's mean, or without squeeze each place's own values.

    The second layer's bias begins at 2, so that gates begin near open (0.88); the paper's layers have no bias.
    """

    def __init__(self, maps: int, reduction: int, squeeze: bool) -> None:
        super().__init__()
        self.squeeze = squeeze
        hidden = max(1, maps // reduction)
        self.first, self.second = nn.Conv2d(maps, hidden, 1, bias=False), nn.Conv2d(hidden, maps, 1)
        nn.init.constant_(self.second.bias, 2.0)  # type: ignore[arg-type]

    def forward(self, seen: Tensor) -> Tensor:
        """[B, C, H, W] -> gates in 0 to 1, [B, C, 1, 1] or, without squeeze, [B, C, H, W]."""
        summary = seen.mean(dim=(2, 3), keepdim=True) if self.squeeze else seen
        gate: Tensor = self.second(F.relu(self.first(summary))).sigmoid()
        return gate


class SqueezeExcite(nn.Module):
    """The network with a gate behind each block."""

    Config = SqueezeExciteConfig
    sees = "the whole image"
    squeeze = True

    def __init__(self, shape: tuple[int, int, int], classes: int, config: SqueezeExciteConfig) -> None:
        super().__init__()
        self.blocks, self.average = blocks(shape, config)
        maps = [count for count in map(out_maps, self.blocks) if count]
        self.gates = nn.ModuleList([Gate(count, config.reduction, self.squeeze) for count in maps] if config.gates else [])
        self.classify = nn.Linear(maps[-1], classes)
        self.processed_pixels = self.unique_pixels = shape[1] * shape[2]
        self.other_flops = 0

    def forward(self, images: Tensor) -> Looked:
        """[B, C, H, W] -> logits [B, K] and, concatenated over blocks, the mean gate of each map [B, maps]."""
        seen, told = images, []
        for number, one in enumerate(self.blocks):
            seen = one(seen)
            if len(self.gates):
                gate = self.gates[number](seen)
                told.append(gate.mean(dim=(2, 3)))
                seen = seen * gate
        pooled = seen.mean(dim=(2, 3)) if self.average else seen.amax(dim=(2, 3))
        return Looked(self.classify(pooled), maps=torch.cat(told, dim=1).float() if told else None)


class NoSqueeze(SqueezeExcite):
    """The control: as many weights, nothing global."""

    squeeze = False


def blocks(shape: tuple[int, int, int], config: SqueezeExciteConfig) -> tuple[nn.ModuleList, bool]:
    """The blocks of a layout, and whether their last maps are averaged over places (else the maximum is taken)."""
    if config.layout == "deep":
        body = list(Trunk(shape, "deep", config.width).body.children())
        return nn.ModuleList([*body[:-2], nn.Sequential(*body[-2:], nn.ReLU())]), False
    inputs, made = shape[0], []
    for maps, kernel, padding, pool in ((16, 3, 1, 2), (32, 3, 1, 2), (64, 2, 0, 1)):  # the trunk of `envs.cnn.cue`
        count = max(1, round(maps * config.width))
        convolution = nn.Conv2d(inputs, count, kernel, padding=padding, bias=False)
        made.append(nn.Sequential(convolution, nn.BatchNorm2d(count), nn.ReLU(), nn.MaxPool2d(pool)))
        inputs = count
    return nn.ModuleList(made), True


def out_maps(block: nn.Module) -> int:
    """The feature maps that a block gives, from its normalisation."""
    return next((layer.num_features for layer in block.modules() if isinstance(layer, nn.BatchNorm2d)), 0)
