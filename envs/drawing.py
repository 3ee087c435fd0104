"""A scan path over an image as pixels: what `render()` shows. Plain numpy, so that an environment needs no plotting library."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hardattn.envs.glimpse import corners, to_pixels

FRAME = 280  # at least this many pixels along the longer side, so that a small digit can be seen
PATH, LAST = (60, 160, 255), (255, 80, 60)  # colours of the earlier looks and of the last one


def scan_path(image: Tensor, locations: Tensor, size: int, scales: int = 1) -> NDArray[np.uint8]:
    """An enlarged image with a square a look and a line from look to look.

    Image [C, H, W] in 0..255 and locations [t, 2] -> [H', W', 3]. The square shows the finest patch where it was cut; with several
    scales the widest one is drawn too. The last look is red.
    """
    _, height, width = image.shape
    zoom = max(1, round(FRAME / max(height, width)))
    pixels = image.expand(3, -1, -1) if len(image) == 1 else image[:3]
    picture = pixels.byte().cpu().numpy().transpose(1, 2, 0).repeat(zoom, 0).repeat(zoom, 1).copy()
    centres = ((to_pixels(locations, height, width) + 0.5) * zoom).round().long().tolist()
    for k in range(len(centres)):
        colour = LAST if k == len(centres) - 1 else PATH
        if k:
            _line(picture, centres[k - 1], centres[k], PATH)
        for patch in {size, size << (scales - 1)}:
            left, top = (corners(locations[k], patch, height, width) * zoom).tolist()
            _square(picture, left, top, patch * zoom, colour)
    return picture


def _square(picture: NDArray[np.uint8], left: int, top: int, width: int, colour: tuple[int, int, int]) -> None:
    """The outline of a square, two pixels thick, cut off at the picture's edge."""
    height, full = picture.shape[:2]
    for inset in (0, 1):
        x0, y0, x1, y1 = left + inset, top + inset, left + width - 1 - inset, top + width - 1 - inset
        columns, rows = slice(max(x0, 0), max(x1 + 1, 0)), slice(max(y0, 0), max(y1 + 1, 0))
        for y in (y0, y1):
            if 0 <= y < height:
                picture[y, columns] = colour
        for x in (x0, x1):
            if 0 <= x < full:
                picture[rows, x] = colour


def _line(picture: NDArray[np.uint8], start: list[int], end: list[int], colour: tuple[int, int, int]) -> None:
    """A straight line of single pixels between two points (x, y) inside the picture."""
    count = max(abs(end[0] - start[0]), abs(end[1] - start[1])) + 1
    xs = np.linspace(start[0], end[0], count).round().astype(int).clip(0, picture.shape[1] - 1)
    ys = np.linspace(start[1], end[1], count).round().astype(int).clip(0, picture.shape[0] - 1)
    picture[ys, xs] = colour
