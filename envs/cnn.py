"""Convolutional networks whose filters can be listened to more or less: every feature map has a gain.

A gain multiplies a feature map before or after the nonlinearity. Gains are never below 0, so they may as well be applied after
max-pooling, where there is less to multiply; and a ReLU passes them through, so that there before and after are the same.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Where = Literal["before", "after"]


class Seen(NamedTuple):
    """What a pass through a network leaves behind."""

    logits: Tensor  # [B, K]
    means: Tensor  # [B, A], the mean of each gated feature map over its pixels
    hidden: Tensor  # [B, F], the activations before the last layer


class Split(NamedTuple):
    """A first gated stage's activations taken apart, so that scaling its maps costs little."""

    means: Tensor  # [n, maps], the mean of each map with a gain of 1
    parts: Tensor  # [n, maps, H', W', maps'], what each map adds to the next stage's convolution with a gain of 1


class Stage(nn.Module):
    """A convolution, max-pooling, and a ReLU or the maximum over `pieces` filters (maxout)."""

    def __init__(self, inputs: int, maps: int, kernel: int, padding: int, pool: tuple[int, int] = (1, 1), pieces: int = 1) -> None:
        super().__init__()
        self.maps, self.pieces, self.pool = maps, pieces, pool
        self.conv = nn.Conv2d(inputs, maps * pieces, kernel, padding=padding)
        self.norm: nn.Module = nn.Identity()
        if pieces == 1:
            self.norm = nn.BatchNorm2d(maps)
            self.norm.weight.requires_grad_(False)  # it stays 1: `fold` could not put a negative scale before the pooling

    def linear(self, images: Tensor) -> Tensor:
        """All that comes before the gain: [B, C, H, W] -> [B, maps * pieces, H', W']."""
        return self.settle(self.conv(images))

    def settle(self, convolved: Tensor, bias: Tensor | None = None) -> Tensor:
        """Pooling, and the normalisation that only training has; a bias [maps * pieces] not yet in goes between them."""
        size, stride = self.pool
        # pylearn2, which the maxout network is from, pools a border that does not fill a window too.
        pooled = convolved if size == 1 else F.max_pool2d(convolved, size, stride, ceil_mode=self.pieces > 1)
        normed: Tensor = self.norm(pooled if bias is None else pooled + bias.to(pooled.dtype)[:, None, None])
        return normed

    def activate(self, linear: Tensor) -> Tensor:
        """[B, maps * pieces, H, W] -> [B, maps, H, W]."""
        if self.pieces == 1:
            return F.relu(linear)
        # One by one: amax over so short a dimension takes three times as long on a CPU.
        pieces = linear.unflatten(1, (self.maps, self.pieces)).unbind(dim=2)
        largest: Tensor = reduce(torch.maximum, pieces)
        return largest

    def gated(self, linear: Tensor, gain: Tensor | None, where: Where) -> Tensor:
        """The activations under gains [B, maps * pieces] (before) or [B, maps] (after); None leaves them as they are."""
        if gain is None:
            return self.activate(linear)
        scale = gain.to(linear.dtype)[:, :, None, None]
        return self.activate(linear * scale) if where == "before" else self.activate(linear) * scale

    def gains(self, where: Where) -> int:
        """How many gains this stage takes."""
        return self.maps * self.pieces if where == "before" else self.maps

    def fold(self) -> None:
        """Put the batch normalisation into the convolution; the stage computes the same without it (in eval mode).

        The norm stands behind the pooling; a positive scale and a shift pass through a maximum. A norm's scale below 0 would not,
        so training keeps its scale at 1 and learns the shift alone.
        """
        if isinstance(self.norm, nn.BatchNorm2d):
            assert self.norm.running_mean is not None and self.norm.running_var is not None and self.conv.bias is not None
            scale = (self.norm.running_var + self.norm.eps).rsqrt()
            with torch.no_grad():
                self.conv.weight *= scale[:, None, None, None]
                self.conv.bias.copy_((self.conv.bias - self.norm.running_mean) * scale + self.norm.bias)
            self.norm = nn.Identity()


class Cnn(nn.Module):
    """Images [B, C, H, W] uint8 to class logits, through a stem and stages of which each feature map may have a gain.

    Part of the weights are `mean` and `deviation` [C] of the training pixels (0 to 1), and `usual` and `usual_deviation` [maps + F
    + K], the mean and standard deviation over training images of what `observe` gives. While it trains, stages of the small network
    carry a batch normalisation; `fold()` puts it away for good.
    """

    def __init__(self, stem: nn.Module, stages: list[Stage], head: nn.Module, last: nn.Linear, channels: int) -> None:
        super().__init__()
        self.stem, self.stages, self.head, self.last = stem, nn.ModuleList(stages), head, last
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))
        self.usual: Tensor
        self.usual_deviation: Tensor
        numbers = sum(stage.maps for stage in stages) + last.in_features + last.out_features
        self.register_buffer("usual", torch.zeros(numbers))
        self.register_buffer("usual_deviation", torch.ones(numbers))

    @property
    def hidden(self) -> int:
        """Units before the last layer (F)."""
        return self.last.in_features

    def prepare(self, images: Tensor) -> Tensor:
        """uint8, or floats in [0, 1], as normalised floats in the memory order that convolutions like."""
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images
        normed = (pixels - self.mean[:, None, None]) / self.deviation[:, None, None]
        return normed.contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits [B, K] with every gain at 1."""
        return self.finish(self.begin(images)).logits

    def begin(self, images: Tensor, first: int = 0) -> Tensor:
        """All that no gain touches if stage `first` is the first that has any: its convolution, pooled."""
        seen = self.stem(self.prepare(images))
        for stage in self._stages(0)[:first]:
            seen = stage.activate(stage.linear(seen))
        return self._stages(first)[0].linear(seen)

    def finish(self, linear: Tensor, gains: list[Tensor] | None = None, where: Where = "after", first: int = 0) -> Seen:
        """The rest of the way from `begin(images, first)`, with a tensor of gains [B, maps] for each stage from `first` on."""
        scales: list[Tensor | None] = [None] * len(self.stages) if gains is None else list(gains)
        seen = self._stages(first)[0].gated(linear, scales[0], where)
        return self._from_second(self._stages(first + 1), seen, [_mean(seen)], scales[1:], where)

    def finish_split(self, split: Split, gains: list[Tensor], where: Where = "after", first: int = 0) -> Seen:
        """`finish` of `split(linear)` of n images, with gains [n * p, maps]: p ways of listening to each image.

        A convolution is linear, so scaling an input map scales what it adds: a product of [p, maps] and [maps, maps' H' W'] an
        image stands for p convolutions, k x k times cheaper with kernels of k x k. The first stage's gains must stand after its
        nonlinearity, or pass through it, as through a ReLU.
        """
        stage, images = self._stages(first + 1)[0], len(split.parts)
        scale = gains[0].to(split.parts.dtype).unflatten(0, (images, -1))  # [n, p, maps]
        total = torch.bmm(scale, split.parts.flatten(2)).flatten(0, 1).unflatten(1, split.parts.shape[2:])  # [n p, H', W', maps']
        total = total.movedim(3, 1)  # in the memory order that convolutions like
        linear = stage.settle(total, stage.conv.bias)  # after the pooling, where there is less to add to
        seen = stage.gated(linear, gains[1], where)
        means = [gains[0] * split.means.repeat_interleave(scale.shape[1], dim=0), _mean(seen)]
        return self._from_second(self._stages(first + 2), seen, means, gains[2:], where)

    def split(self, linear: Tensor, first: int = 0) -> Split:
        """Take `begin(images, first)` apart for `finish_split`. There must be a stage after `first`."""
        stage, after = self._stages(first)[0], self._stages(first + 1)[0].conv
        seen = stage.activate(linear)
        kernel = after.weight.transpose(0, 1).reshape(-1, 1, *after.kernel_size)  # [maps * maps', 1, k, k]
        added = F.conv2d(
            seen, kernel, padding=cast("tuple[int, int]", after.padding), groups=seen.shape[1]
        )  # one group an input map
        return Split(_mean(seen), added.unflatten(1, (seen.shape[1], -1)).movedim(2, 4).contiguous())

    def _from_second(
        self, stages: list[Stage], seen: Tensor, means: list[Tensor], scales: Sequence[Tensor | None], where: Where
    ) -> Seen:
        for stage, scale in zip(stages, scales, strict=False):
            seen = stage.gated(stage.linear(seen), scale, where)
            means.append(_mean(seen))
        hidden = self.head(seen)
        return Seen(self.last(hidden).float(), torch.cat(means, dim=1), hidden.float())

    def observe(self, seen: Seen, first: int = 0) -> Tensor:
        """Standardised map means, activations before the last layer and log-probabilities: [B, maps + F + K]."""
        skipped = sum(stage.maps for stage in self._stages(0)[:first])
        numbers = torch.cat([seen.means, seen.hidden, seen.logits.log_softmax(dim=1)], dim=1)
        return (numbers - self.usual[skipped:]) / self.usual_deviation[skipped:]

    @torch.no_grad()
    def get_used_to(self, images: Tensor) -> None:
        """Set `usual` and `usual_deviation` from images [N, C, H, W]."""
        self.usual.zero_()
        self.usual_deviation.fill_(1)
        observed = torch.cat([self.observe(self.finish(self.begin(part))) for part in images.split(1000)])
        self.usual.copy_(observed.mean(dim=0))
        self.usual_deviation.copy_(observed.std(dim=0).clamp(min=1e-3))  # a dead unit has none

    def _stages(self, first: int) -> list[Stage]:
        return cast("list[Stage]", list(self.stages)[first:])

    def gain_counts(self, where: Where, first: int = 0) -> list[int]:
        """How many gains each stage takes from `first` on."""
        return [stage.gains(where) for stage in self._stages(first)]

    def mean_counts(self, first: int = 0) -> list[int]:
        """How many feature maps each stage has from `first` on."""
        return [stage.maps for stage in self._stages(first)]

    def fold(self) -> None:
        """Put every batch normalisation into its convolution."""
        for stage in self._stages(0):
            stage.fold()


def _mean(maps: Tensor) -> Tensor:
    """The mean of each map [B, C, H, W] over its pixels, [B, C] float32."""
    return maps.mean(dim=(2, 3), dtype=torch.float32)


class MaxoutHead(nn.Module):
    """A fully connected maxout layer: [B, C, H, W] -> [B, units], each unit the largest of `pieces` linear functions."""

    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.units, self.pieces = units, pieces
        self.drop = nn.Dropout(0.5)
        self.layer = nn.Linear(inputs, units * pieces)

    def forward(self, seen: Tensor) -> Tensor:
        """The units' activations [B, units]."""
        linear: Tensor = self.layer(self.drop(seen.flatten(1)))
        units: Tensor = linear.unflatten(1, (self.units, self.pieces)).amax(dim=2)
        return units


class MaximumHead(nn.Module):
    """The largest value of each map, times `scale`: [B, C, H, W] -> [B, C]."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, seen: Tensor) -> Tensor:
        """[B, C]."""
        return seen.amax(dim=(2, 3)) * self.scale


class MeanHead(nn.Module):
    """The mean of each map over all places: [B, C, H, W] -> [B, C]."""

    def forward(self, seen: Tensor) -> Tensor:
        """[B, C]."""
        return seen.mean(dim=(2, 3))


def small(channels: int = 3, classes: int = 10, widths: tuple[int, int, int] = (64, 192, 192)) -> Cnn:
    """Six 3x3 convolutions with ReLU behind a whitening stem of 2x2, for images of about 32x32.

    The layout, narrower, of the CIFAR-10 speed runs (Jordan 2024, "94 % on CIFAR-10 in 3.29 seconds"): each block halves the image.
    So is its beginning: each convolution's first maps hand on what it sees, and activations before the last layer are a ninth.
    """
    network = _six_convolutions(channels, classes, widths, scale=1 / 9)
    for stage in network._stages(0):
        with torch.no_grad():
            nn.init.dirac_(stage.conv.weight[: stage.conv.in_channels])
    return network


def narrow(channels: int = 3, classes: int = 10, widths: tuple[int, int, int] = (32, 128, 128)) -> Cnn:
    """The layout of `small` in fewer maps, with its beginning left to chance."""
    return _six_convolutions(channels, classes, widths, scale=1)


def _six_convolutions(channels: int, classes: int, widths: tuple[int, int, int], scale: float) -> Cnn:
    stem = nn.Sequential(nn.Conv2d(channels, 8 * channels, 2), nn.ReLU())  # 4 * channels eigenvectors, each with both signs
    stages, inputs = [], 8 * channels
    for maps in widths:
        stages += [Stage(inputs, maps, 3, 1, pool=(2, 2)), Stage(maps, maps, 3, 1)]
        inputs = maps
    return Cnn(stem, stages, MaximumHead(scale), nn.Linear(inputs, classes), channels)


def maxout(
    channels: int = 3,
    classes: int = 10,
    size: tuple[int, int] = (32, 32),
    widths: tuple[int, int, int] = (32, 64, 64),
    units: int = 128,
) -> Cnn:
    """Three convolutional maxout layers of two pieces, a fully connected one of five, softmax: the network of dasNet.

    `size` is the height and width of its images.

    Kernels, padding and pooling follow pylearn2's CIFAR-10 network (Goodfellow et al. 2013), which dasNet starts from; there the
    widths are 96, 192, 192 and 500 units.
    """
    stages, inputs, sides = [], channels, list(size)
    for maps, kernel, padding, pool in zip(widths, (8, 8, 5), (4, 3, 3), ((4, 2), (4, 2), (2, 2)), strict=True):
        stages.append(Stage(inputs, maps, kernel, padding, pool, pieces=2))
        inputs, sides = maps, [math.ceil((side + 2 * padding - kernel + 1 - pool[0]) / pool[1]) + 1 for side in sides]
    return Cnn(nn.Identity(), stages, MaxoutHead(inputs * math.prod(sides), units, 5), nn.Linear(units, classes), channels)


def cue(channels: int = 3, classes: int = 10, widths: tuple[int, int, int] = (16, 32, 64)) -> Cnn:
    """Three small convolutions, the mean over places and a linear layer: a place sees 14x14 pixels (3, pooled 4; 8, 10; 14).

    So the logits are a sum over places that see little each: what one sees changes nothing in another, unless gains carry it
    there. The trunk is that of the baseline squeeze-and-excitation with layout=local.
    """
    stages, inputs = [], channels
    for maps, kernel, padding, pool in zip(widths, (3, 3, 2), (1, 1, 0), ((2, 2), (2, 2), (1, 1)), strict=True):
        stages.append(Stage(inputs, maps, kernel, padding, pool))
        inputs = maps
    return Cnn(nn.Identity(), stages, MeanHead(), nn.Linear(inputs, classes), channels)


@torch.no_grad()
def whiten(network: Cnn, images: Tensor) -> None:
    """Set a small network's pixel statistics and its stem from training images [N, C, H, W] uint8; the stem then stays.

    The stem's filters are the principal axes of the images' 2x2 patches, scaled to give variance 1, each with both signs (Jordan
    2024).
    """
    pixels = images.float() / 255
    network.mean.copy_(pixels.mean(dim=(0, 2, 3)))
    network.deviation.copy_(pixels.std(dim=(0, 2, 3)))
    if isinstance(network.stem, nn.Identity):
        return
    conv = network.stem[0]  # type: ignore[index]
    patches = F.unfold(network.prepare(images), 2).transpose(1, 2).flatten(0, 1)  # [N * places, 4 C]
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    axes = (vectors / (values + 5e-4).sqrt()).T.reshape(-1, *conv.weight.shape[1:])  # 5e-4 keeps near-constant axes small
    conv.weight.copy_(torch.cat([axes, -axes]))
    conv.bias.zero_()
    conv.requires_grad_(False)
