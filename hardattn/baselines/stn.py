"""Spatial transformer network (Jaderberg et al. 2015): a localiser turns, scales and shifts the image before a network reads it.

The sampler is bilinear, so the location's gradient comes from the four pixels around each sampled point and no further: the
differentiable twin of a hard look, and its weakness where the object is far away.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hardattn.baselines.convnet import Trunk
from hardattn.baselines.looked import Looked, edges
from hardattn.envs.errors import at_least, more_than_zero

IDENTITY = {"affine": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), "attention": (1.0, 0.0, 0.0)}  # rows of a 2x3 matrix; scale, x, y
SMALLEST = 14  # the localiser pools until its maps are no wider than this
VIEW = 40  # width of the localiser's view at most
LARGEST = 32  # width of a crop unless asked: no field needs more for the digits of 28 pixels on it


@dataclass(frozen=True)
class SpatialTransformerConfig:
    """A spatial transformer and the network behind it."""

    transform: Literal["affine", "attention"] = "affine"
    """affine: any linear map and a shift; attention: one scale and a shift, a square crop."""
    localiser: Literal["cnn", "fcn"] = "cnn"
    """What finds the place: two convolutions of 5x5, or two fully connected layers; both see a smaller image."""
    classifier: Literal["deep", "paper", "fcn"] = "deep"
    """What reads the crop: a network of `cnn`, or two fully connected layers (the paper's FCN)."""
    width: float = 1.0
    """Feature maps of the classifier, as a multiple."""
    size: int = 0
    """Width and height of the crop in pixels; 0 takes half the image's width, as the paper does on clutter, but at most 32."""
    localiser_rate: float = 0.1
    """The localiser's learning rate, as a share of the others'."""

    def __post_init__(self) -> None:
        at_least(self, 0, "size")
        more_than_zero(self, "width", "localiser_rate")


def matrices(numbers: Tensor) -> Tensor:
    """A localiser's numbers as affine maps [B, 2, 3]: [B, 6] row by row, or [B, 3] (scale, x, y) (section 3.2, eq. 1 and 2)."""
    if numbers.shape[1] == 6:
        return numbers.view(-1, 2, 3)
    scale, x, y = numbers.unbind(1)
    nought = torch.zeros_like(scale)
    return torch.stack([torch.stack([scale, nought, x], dim=1), torch.stack([nought, scale, y], dim=1)], dim=1)


def sample(images: Tensor, theta: Tensor, size: int, background: float = 0.0) -> Tensor:
    """Images [B, C, H, W] read at the grid that `theta` [B, 2, 3] maps into them: [B, C, size, size] (section 3.3, eq. 5).

    Output corners are pixel middles, as everywhere in this package, so the identity with size = H = W gives the image back.
    Outside the image lies the background.
    """
    grid = F.affine_grid(theta, [len(images), images.shape[1], size, size], align_corners=True)
    cut: Tensor = F.grid_sample(images - background, grid, padding_mode="zeros", align_corners=True) + background
    return cut


def box_of(theta: Tensor, height: int, width: int) -> Tensor:
    """The box around what `theta` [B, 2, 3] reads, [B, 4] (left, top, right, bottom) in pixels; it may leave the image."""
    reach, middle = theta[:, :, :2].abs().sum(dim=2), theta[:, :, 2]
    left, right = edges(middle[:, 0] - reach[:, 0], middle[:, 0] + reach[:, 0], width)
    top, bottom = edges(middle[:, 1] - reach[:, 1], middle[:, 1] + reach[:, 1], height)
    return torch.stack([left, top, right, bottom], dim=1)


class SpatialTransformer(nn.Module):
    """Localiser, sampler, classifier. At initialisation the transform is the identity.

    The crop is sampled twice as fine and averaged (the paper pools behind the transformer on clutter), or shrinking would alias.
    """

    Config = SpatialTransformerConfig
    sees = "the whole image"

    def __init__(self, shape: tuple[int, int, int], classes: int, config: SpatialTransformerConfig) -> None:
        super().__init__()
        channels, height, width = shape
        self.size = config.size or min(min(height, width) // 2, LARGEST)
        self.localise = localiser(shape, config.localiser, IDENTITY[config.transform])
        self.classify: nn.Module
        crop = (channels, self.size, self.size)
        if config.classifier == "fcn":
            hidden = round(128 * config.width)
            layers = [nn.Linear(channels * self.size**2, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
            self.classify = nn.Sequential(nn.Flatten(), *layers, nn.Linear(hidden, classes))
        else:
            trunk = Trunk(crop, config.classifier, config.width)
            self.classify = nn.Sequential(trunk, nn.Linear(trunk.features, classes))
        self.slow, self.slow_rate = self.localise, config.localiser_rate
        self.unique_pixels = height * width
        shrink = shrinking(shape)
        self.processed_pixels = (height // shrink) * (width // shrink) + self.size**2  # the localiser's view, then the crop
        self.other_flops = 2 * 8 * channels * (2 * self.size) ** 2  # 8 multiply-adds a sampled value

    def forward(self, images: Tensor) -> Looked:
        """[B, C, H, W] -> logits [B, K] and the crop's box [B, 1, 4]."""
        theta = matrices(self.localise(images).float())
        crop = F.avg_pool2d(sample(images, theta, 2 * self.size), 2)
        return Looked(self.classify(crop), boxes=box_of(theta, *images.shape[2:])[:, None])


def shrinking(shape: tuple[int, int, int]) -> int:
    """How many times smaller the localiser sees an image (C, H, W): half its width (appendix A.4), or `VIEW`."""
    return max(2, -(-max(shape[1:]) // VIEW))


def localiser(shape: tuple[int, int, int], kind: str, identity: tuple[float, ...]) -> nn.Sequential:
    """Images [B, C, H, W] to transform numbers [B, len(identity)], which begin as `identity` (appendix A.4)."""
    shrink = shrinking(shape)
    channels, height, width = shape[0], shape[1] // shrink, shape[2] // shrink
    layers: list[nn.Module] = [nn.AvgPool2d(shrink)]
    if kind == "cnn":
        for inputs in (channels, 20):
            layers += [nn.Conv2d(inputs, 20, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
            height, width = height // 2, width // 2
        while max(height, width) > SMALLEST:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        layers += [nn.Flatten(), nn.Linear(20 * height * width, 20), nn.ReLU()]
    else:
        layers += [nn.Flatten(), nn.Linear(channels * height * width, 32), nn.ReLU(), nn.Linear(32, 20), nn.ReLU()]
    last = nn.Linear(20, len(identity))
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(torch.tensor(identity))
    return nn.Sequential(*layers, last)
