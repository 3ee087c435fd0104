"""Where a glimpse lies and what it holds: the geometry of the retina, as pure functions of tensors.

Locations are (x, y) in [-1, 1]: (0, 0) is the centre of the image, (-1, -1) the centre of its top-left pixel and (1, 1) the
centre of its bottom-right pixel. A glimpse holds S square patches around one location, each twice as wide as the one before,
all brought to g x g by averaging (Mnih et al. 2014, section 3.1). Outside the image lies the background value.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def to_pixels(locations: Tensor, height: int, width: int) -> Tensor:
    """Locations [..., 2] in [-1, 1] as (x, y) in pixels: x from 0 to width - 1, y from 0 to height - 1."""
    if height == width:
        return (locations + 1) * ((width - 1) / 2)
    x, y = locations.unbind(-1)
    return torch.stack([(x + 1) * ((width - 1) / 2), (y + 1) * ((height - 1) / 2)], dim=-1)


def to_locations(pixels: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `to_pixels`: pixels [..., 2] as locations in [-1, 1]. An axis of one pixel maps to 0."""
    x, y = pixels.unbind(-1)
    return torch.stack(
        [x * (2 / (width - 1)) - 1 if width > 1 else x * 0, y * (2 / (height - 1)) - 1 if height > 1 else y * 0], dim=-1
    )


def corners(locations: Tensor, patch: int | Tensor, height: int, width: int) -> Tensor:
    """The (left, top) pixel [..., 2] (int64) of the `patch` x `patch` square whose middle is nearest to each location.

    An even patch has its middle between two pixels; a tie goes right and down. Widths in a tensor are spread over the locations.
    """
    return (to_pixels(locations, height, width) - (patch - 1) / 2 + 0.5).floor().long()


class Field(NamedTuple):
    """Images made ready for many looks."""

    padded: Tensor  # [B, C, H + 2 margin, W + 2 margin]: with the background around them
    begins: Tensor  # [B, 1] int64: which of all their pixels is the image's first
    lines: Tensor  # [C, H + 2 margin] int64: how far from there each of its lines begins
    margin: int  # the width of the widest patch that is cut from there
    table: Tensor | None  # their `summed_area`, from which the other patches come


def lay_out(images: Tensor, size: int, scales: int, background: float = 0.0, tabled: bool | None = None) -> Field:
    """Images [B, C, H, W] made ready for looks with this retina.

    A table of sums costs as much as one or two patches of the third scale, and then gives every wide patch for the price of a
    narrow one, the same but for rounding. It is made where that pays for an episode's looks, or as `tabled` says.
    """
    tabled = scales > 2 if tabled is None else tabled and scales > 1
    margin = size if tabled else size << (scales - 1)
    values = images / 255 if background and images.dtype == torch.uint8 else images
    padded = F.pad(values, (margin, margin, margin, margin), value=background)
    _, channels, height, width = padded.shape
    lines = torch.arange(0, channels * height * width, width, device=images.device).view(channels, height)
    begins = torch.arange(0, padded.numel(), max(1, lines.numel() * width), device=images.device)[:, None]
    return Field(padded, begins, lines, margin, summed_area(images) if tabled else None)


def hard_glimpse(
    images: Tensor, locations: Tensor, size: int, scales: int = 1, background: float = 0.0, field: Field | None = None
) -> Tensor:
    """Cut glimpses at whole pixels: images [B, C, H, W] and locations [B, 2] -> glimpses [B, S, C, g, g].

    uint8 images come back as float32 in [0, 1]; other images keep their values. One index a scale, no loop over images. For many
    looks at the same images, `lay_out` them once for this retina and pass that as `field`; where it holds a table, wide patches
    come from there.
    Raises ValueError for images or locations of another shape.
    """
    _, _, height, width = _check(images, locations, size, scales)
    field = field or lay_out(images, size, scales, background, tabled=False)
    glimpses = []
    for scale in range(scales if field.table is None else 1):
        patch = size << scale
        values = _cut(field, _within(corners(locations, patch, height, width), field.margin, height, width), patch)
        values = values.float().div_(255) if values.dtype == torch.uint8 else values
        glimpses.append(F.avg_pool2d(values, 1 << scale) if scale else values)
    finest = torch.stack(glimpses, dim=1) if len(glimpses) > 1 else glimpses[0][:, None]
    if field.table is None:
        return finest
    means = _means(field.table, locations, size, scales, background * (255 if images.dtype == torch.uint8 else 1))
    means = means / 255 if images.dtype == torch.uint8 else means.to(images.dtype)
    return torch.cat([finest, means], dim=1)


def _cut(field: Field, corner: Tensor, patch: int) -> Tensor:
    """The patches [B, C, p, p] at corners (left, top) [B, 2] of the images with the background around them.

    A row of a patch is one piece of memory and copied as such: on a CPU three times as quick as pixel by pixel.
    """
    batch, channels, _, width = field.padded.shape
    pieces = field.padded.view(-1).unfold(0, patch, 1)  # a view: for every pixel, it and those to its right
    left, top = corner.unbind(-1)
    first = field.begins + (top * width + left)[:, None] + field.lines[:, :patch].reshape(-1)  # [B, C * p]
    return pieces.index_select(0, first.view(-1)).view(batch, channels, patch, patch)


def _within(corner: Tensor, margin: int, height: int, width: int) -> Tensor:
    """Corners (left, top) [B, 2] counted from where the background around the images begins; far away is just outside."""
    if height == width:
        return corner.clamp_(-margin, width).add_(margin)
    return torch.stack([corner[:, 0].clamp(-margin, width), corner[:, 1].clamp(-margin, height)], dim=1).add_(margin)


def summed_area(images: Tensor) -> Tensor:
    """For each corner of a pixel the sum of all that lies above and left: images [B, C, H, W] -> [B, C, H+1, W+1].

    The sum over any rectangle is then four of its entries (Crow 1984). Of uint8 images exact, in int32; of others in float64.
    """
    dtype = torch.int32 if images.dtype == torch.uint8 else torch.float64
    padded = F.pad(images, (1, 0, 1, 0)).to(dtype)
    if images.is_cuda:  # whose sums along rows are slow: turned over, they run along columns
        return padded.cumsum(-2, dtype=dtype).mT.contiguous().cumsum(-2, dtype=dtype).mT.contiguous()
    return padded.cumsum(-1, dtype=dtype).cumsum(-2, dtype=dtype)


def _means(table: Tensor, locations: Tensor, size: int, scales: int, background: float) -> Tensor:
    """The second patch to the last, of g x g cells that are 2, 4, ... pixels wide: each cell's mean, [B, S-1, C, g, g].

    All are cut at once: a glimpse is made of many small steps, and what they cost is mostly their number.
    """
    batch, channels, height, width = table.shape[0], table.shape[1], table.shape[2] - 1, table.shape[3] - 1
    cells = 2 ** torch.arange(1, scales, device=table.device)
    corner = corners(locations[:, None], size * cells[:, None], height, width)  # [B, S-1, 2]
    edge = torch.arange(size + 1, device=table.device) * cells[:, None]  # [S-1, g+1]
    columns, rows = (corner[..., :1] + edge).clamp(0, width), (corner[..., 1:] + edge).clamp(0, height)  # each [B, S-1, g+1]
    index = rows[..., :, None] * (width + 1) + columns[..., None, :]
    sums = table.flatten(2).gather(2, index.view(batch, 1, -1).expand(-1, channels, -1))
    sums = sums.view(batch, channels, *index.shape[1:]).transpose(1, 2)
    area = (cells**2)[:, None, None, None]
    means = sums.diff(dim=-2).diff(dim=-1) / area
    if background:
        inside = rows.diff(dim=-1)[:, :, None, :, None] * columns.diff(dim=-1)[:, :, None, None, :] / area
        means = means + background * (1 - inside)
    return means


def coarse(images: Tensor, size: int) -> Tensor:
    """Whole images made small by averaging: [B, C, H, W] -> [B, C, size, size] float32 in [0, 1] (Ba et al. 2015, I_coarse)."""
    shrunk = F.adaptive_avg_pool2d(images.float(), size)
    return shrunk / 255 if images.dtype == torch.uint8 else shrunk


def soft_glimpse(images: Tensor, locations: Tensor, size: int, scales: int = 1, background: float = 0.0) -> Tensor:
    """Cut glimpses with bilinear interpolation, so that a gradient reaches the locations; shapes as in `hard_glimpse`.

    Equals `hard_glimpse` wherever a patch falls on whole pixels. Raises ValueError for images or locations of another shape.
    """
    _, _, height, width = _check(images, locations, size, scales)
    values = images.to(torch.float32) / 255 if images.dtype == torch.uint8 else images
    values = values - background  # grid_sample pads with zeros: shift so that zero is the background
    centre = to_pixels(locations, height, width)
    glimpses = []
    for scale in range(scales):
        patch = size << scale
        offset = torch.arange(patch, device=images.device, dtype=values.dtype) - (patch - 1) / 2
        x = (centre[:, None, None, 0] + offset[None, None, :]).expand(-1, patch, -1)
        y = (centre[:, None, None, 1] + offset[None, :, None]).expand(-1, -1, patch)
        grid = to_locations(torch.stack([x, y], dim=-1), height, width)  # [B, p, p, 2]
        cut = F.grid_sample(values, grid.to(values.dtype), padding_mode="zeros", align_corners=True) + background
        glimpses.append(F.avg_pool2d(cut, 1 << scale) if scale else cut)
    return torch.stack(glimpses, dim=1)


def on_target(locations: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Whether a look's middle lies in a box: locations [..., 2] and boxes [..., D, 4] (left, top, right, bottom) -> [..., D] bool.

    A box covers the pixels left..right-1 and top..bottom-1; half a pixel around their middles belongs to them.
    """
    point = to_pixels(locations, height, width)[..., None, :] + 0.5  # [..., 1, 2]; pixel k spans k to k + 1
    return ((point >= boxes[..., :2]) & (point < boxes[..., 2:])).all(dim=-1)


def reads(locations: Tensor, size: int, scales: int, height: int, width: int) -> Tensor:
    """How many of a path's looks [B, T, 2] have read each pixel, [B, H, W] float32; every scale counts."""
    patch, longer = size << (scales - 1), max(height, width)  # the widest patch holds all the others
    start = corners(locations, patch, height, width).clamp(-patch, longer)  # far away is just outside
    # Row k: which of pixels 0, 1, ... lie in a patch that begins at `longer - k`.
    covers = F.pad(torch.ones(patch, device=locations.device), (longer, longer)).unfold(0, longer, 1).contiguous()
    columns, rows = F.embedding(longer - start.permute(2, 0, 1), covers)  # each [B, T, longer]
    return torch.bmm(rows[..., :height].mT, columns[..., :width])  # their products, summed over looks


def unique_pixels(locations: Tensor, size: int, scales: int, height: int, width: int) -> Tensor:
    """How many pixels paths of looks [B, T, 2] have read, each counted once an image: int64, one number."""
    # Ones summed image by image, which float32 does exactly, and quicker on a CPU than counting what is not zero.
    return reads(locations, size, scales, height, width).clamp_(max=1).sum(dim=(1, 2)).long().sum()


def _check(images: Tensor, locations: Tensor, size: int, scales: int) -> tuple[int, int, int, int]:
    if images.ndim != 4:
        raise ValueError(f"images: got shape {list(images.shape)}, wanted [B, C, H, W]")
    batch, channels, height, width = images.shape
    if locations.shape != (batch, 2):
        raise ValueError(f"locations: got shape {list(locations.shape)}, wanted [{batch}, 2], one (x, y) an image")
    if size < 1 or scales < 1:
        raise ValueError(f"retina: got size {size} and {scales} scales, wanted at least 1 of each")
    return batch, channels, height, width
