"""Four ways to spoil photographs, at five strengths, in batched tensor code; after CIFAR-10-C (Hendrycks & Dietterich 2019).

The strengths are those of its small images. JPEG here keeps the full resolution of colours, where most files halve it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = ("noise", "blur", "contrast", "jpeg")
NOISE = (0.04, 0.06, 0.08, 0.09, 0.10)  # standard deviation
BLUR = (0.4, 0.6, 0.7, 0.8, 1.0)  # standard deviation in pixels
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)  # share that is left
QUALITY = (80, 65, 58, 50, 40)  # of JPEG
RADIUS = 4  # pixels to each side that a blur reaches: four of its widest standard deviations

# Quantisation of brightness and of colour at quality 50: the JPEG standard (ITU-T T.81), annex K, tables K.1 and K.2.
BRIGHTNESS = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
COLOUR = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""


def corrupt(images: Tensor, kind: str, strength: int, generator: torch.Generator) -> Tensor:
    """Spoil images [B, C, H, W] in [0, 1]; strength 1 to 5, or 0 for any, drawn anew for each image.

    "all" spoils the first quarter of the batch with noise, the next with blur, and so on: hand it images in random order.
    """
    if kind == "none":
        return images
    if kind == "all":
        first = 0
        if len(images) < len(KINDS):  # too few for each: begin with any
            first = int(torch.randint(len(KINDS), (), generator=generator, device=images.device))
        kinds = KINDS[first:] + KINDS[:first]
        parts = zip(images.tensor_split(len(KINDS)), kinds, strict=True)
        return torch.cat([corrupt(part, one, strength, generator) for part, one in parts if len(part)])
    if strength:
        grade = torch.full((len(images),), strength - 1, device=images.device)
    else:
        grade = torch.randint(5, (len(images),), generator=generator, device=images.device)
    if kind == "noise":
        return add_noise(images, _table(NOISE, grade), generator)
    spoil = {"blur": (blur, BLUR), "contrast": (lower_contrast, CONTRAST), "jpeg": (compress, QUALITY)}[kind]
    return spoil[0](images, _table(spoil[1], grade))


def _table(values: tuple[float, ...], grade: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=grade.device)[grade]


def add_noise(images: Tensor, deviation: Tensor, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of `deviation` [B] and clip."""
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return (images + deviation[:, None, None, None] * noise).clamp(0, 1)


def blur(images: Tensor, deviation: Tensor) -> Tensor:
    """Convolve with a Gaussian of `deviation` [B] pixels; the border is repeated."""
    batch, channels = images.shape[:2]
    offset = torch.arange(-RADIUS, RADIUS + 1, device=images.device)
    kernel = (-0.5 * (offset / deviation[:, None]).square()).exp()
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)[:, None, None]  # [B C, 1, 1, 9]
    padded = F.pad(images, (RADIUS,) * 4, mode="replicate").flatten(0, 1)[None]
    rows = F.conv2d(padded, kernel, groups=batch * channels)
    return F.conv2d(rows, kernel.transpose(2, 3), groups=batch * channels)[0].view(images.shape)


def lower_contrast(images: Tensor, share: Tensor) -> Tensor:
    """Bring each pixel nearer to its image's mean colour; `share` [B] of the distance is left."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return (images - mean) * share[:, None, None, None] + mean


def compress(images: Tensor, quality: Tensor) -> Tensor:
    """JPEG at `quality` [B], 1 to 100: colours in YCbCr, 8x8 cosine transform, quantised, and back. Sides must be multiples of 8.

    Grey images have the one channel that is quantised as brightness.
    """
    colour = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], device=images.device)
    levels = images * 255
    if images.shape[1] == 3:
        levels = torch.einsum("ij,bjhw->bihw", colour, levels)
    centre = torch.tensor([128.0, 0, 0], device=images.device)[: images.shape[1], None, None]
    blocks = (levels - centre).unfold(2, 8, 8).unfold(3, 8, 8)  # [B, C, H/8, W/8, 8, 8]
    wave = _cosines(images.device)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None]
    tables = torch.stack([_numbers(text, images.device) for text in (BRIGHTNESS, COLOUR, COLOUR)[: images.shape[1]]])  # [C, 8, 8]
    step = ((tables[None] * scale[:, None] + 50) / 100).floor().clamp(1, 255)[:, :, None, None]
    spectrum = ((wave @ blocks @ wave.T) / step).round() * step
    back = (wave.T @ spectrum @ wave).transpose(3, 4).reshape(images.shape) + centre
    if images.shape[1] == 3:
        back = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(colour), back)
    return (back / 255).clamp(0, 1)


def _cosines(device: torch.device) -> Tensor:
    """The orthonormal cosine transform of 8 numbers, [8, 8]."""
    k, n = torch.arange(8.0, device=device)[:, None], torch.arange(8.0, device=device)
    wave = torch.cos(math.pi * (2 * n + 1) * k / 16) / 2
    wave[0] /= math.sqrt(2)
    return wave


def _numbers(text: str, device: torch.device) -> Tensor:
    return torch.tensor([float(word) for word in text.split()], device=device).view(8, 8)
