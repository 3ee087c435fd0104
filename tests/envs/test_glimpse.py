import itertools

import pytest
import torch
from torch import Tensor

from hardattn.envs.glimpse import (
    corners,
    hard_glimpse,
    lay_out,
    reads,
    soft_glimpse,
    summed_area,
    to_locations,
    to_pixels,
    unique_pixels,
)


def touched(path: Tensor, size: int, scales: int, height: int, width: int) -> Tensor:
    return reads(path, size, scales, height, width) > 0


CORNERS = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])


def naive_glimpse(image: Tensor, x: float, y: float, size: int, scales: int, background: float) -> Tensor:
    """The definition, pixel by pixel: image [C, H, W] -> [S, C, g, g]."""
    channels, height, width = image.shape
    out = torch.zeros(scales, channels, size, size)
    for scale in range(scales):
        patch, step = size * 2**scale, 2**scale
        left = int(torch.floor(torch.tensor((x + 1) / 2 * (width - 1) - (patch - 1) / 2 + 0.5)))
        top = int(torch.floor(torch.tensor((y + 1) / 2 * (height - 1) - (patch - 1) / 2 + 0.5)))
        for c, i, j in itertools.product(range(channels), range(size), range(size)):
            total = 0.0
            for di, dj in itertools.product(range(step), range(step)):
                row, column = top + i * step + di, left + j * step + dj
                inside = 0 <= row < height and 0 <= column < width
                total += float(image[c, row, column]) if inside else background
            out[scale, c, i, j] = total / step**2
    return out


@pytest.mark.parametrize("size", [1, 3, 4, 8])
@pytest.mark.parametrize("scales", [1, 3])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 10, 17)])
def test_hard_glimpse_equals_the_definition_at_the_corners_and_inside(size: int, scales: int, shape: tuple[int, int, int]) -> None:
    random = torch.Generator().manual_seed(0)
    locations = torch.cat([CORNERS, torch.rand(4, 2, generator=random) * 2 - 1, torch.zeros(1, 2)])
    images = torch.rand(len(locations), *shape, generator=random)
    got = hard_glimpse(images, locations, size, scales, background=0.25)
    wanted = torch.stack(
        [naive_glimpse(image, *place.tolist(), size, scales, 0.25) for image, place in zip(images, locations, strict=True)]
    )
    assert got.shape == (len(locations), scales, shape[0], size, size)
    torch.testing.assert_close(got, wanted)
    for tabled in (False, True):
        field = lay_out(images, size, scales, 0.25, tabled)
        torch.testing.assert_close(hard_glimpse(images, locations, size, scales, 0.25, field), wanted)


def test_pixels_of_the_corners_and_back() -> None:
    pixels = to_pixels(CORNERS, height=10, width=17)
    assert pixels.tolist() == [[0, 0], [16, 0], [0, 9], [16, 9]]
    torch.testing.assert_close(to_locations(pixels, 10, 17), CORNERS)


def test_an_odd_patch_is_centred_and_an_even_one_sits_right_and_down_of_a_pixel() -> None:
    middle = torch.zeros(1, 2)  # of 5x5: pixel (2, 2)
    assert corners(middle, 3, 5, 5).tolist() == [[1, 1]]
    assert corners(middle, 2, 5, 5).tolist() == [[2, 2]]
    assert corners(middle, 4, 8, 8).tolist() == [[2, 2]]  # the middle of 8x8 lies between pixels: no tie


def test_summed_area_on_paper() -> None:
    table = summed_area(torch.tensor([[[[1, 2], [3, 250]]]], dtype=torch.uint8))
    assert table.tolist() == [[[[0, 0, 0], [0, 1, 3], [0, 4, 256]]]]
    assert summed_area(torch.full((1, 1, 200, 200), 255, dtype=torch.uint8)).max() == 200 * 200 * 255


def test_a_table_changes_a_glimpse_of_bytes_by_rounding_alone_and_the_narrowest_patch_not_at_all() -> None:
    random = torch.Generator().manual_seed(4)
    images = torch.randint(256, (64, 1, 60, 50), dtype=torch.uint8, generator=random)
    locations = torch.rand(64, 2, generator=random) * 2 - 1
    plain = hard_glimpse(images, locations, 12, 3)
    field = lay_out(images, 12, 3)
    assert field.table is not None
    tabled = hard_glimpse(images, locations, 12, 3, field=field)
    assert tabled.dtype == plain.dtype and torch.equal(tabled[:, 0], plain[:, 0])
    torch.testing.assert_close(tabled, plain, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scales", [1, 3])
def test_a_patch_wholly_outside_is_background_and_a_field_serves_many_looks(scales: int) -> None:
    images = torch.randint(256, (3, 2, 9, 13), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    field = lay_out(images, 4, scales, 0.5)
    for x, y in itertools.product([-100.0, 100.0], repeat=2):
        cut = hard_glimpse(images, torch.tensor([[x, y]] * 3), 4, scales, 0.5, field)
        torch.testing.assert_close(cut, torch.full_like(cut, 0.5))
    for place in CORNERS:
        locations = place.expand(3, 2)
        plain = hard_glimpse(images, locations, 4, scales, 0.5)
        torch.testing.assert_close(hard_glimpse(images, locations, 4, scales, 0.5, field), plain)


def test_uint8_images_come_back_as_shares_of_255() -> None:
    image = torch.full((1, 1, 4, 4), 51, dtype=torch.uint8)
    assert hard_glimpse(image, torch.zeros(1, 2), 2).flatten().tolist() == pytest.approx([0.2] * 4)


@pytest.mark.parametrize(("size", "scales"), [(3, 1), (4, 2)])  # twice an odd patch has its middle between pixels
def test_soft_equals_hard_on_whole_pixels(size: int, scales: int) -> None:
    images = torch.rand(6, 2, 9, 13, generator=torch.Generator().manual_seed(1))
    left_top = torch.tensor([[0, 0], [5, 2], [-2, -1], [11, 7], [3, 8], [7, -2]])
    locations = to_locations(left_top + (size - 1) / 2, 9, 13)
    soft, hard = (cut(images, locations, size, scales, background=0.5) for cut in (soft_glimpse, hard_glimpse))
    torch.testing.assert_close(soft, hard, atol=1e-5, rtol=0)


def test_soft_glimpse_gradient_equals_finite_differences() -> None:
    images = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    locations = torch.tensor([[0.11, -0.23], [0.37, 0.52]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda place: soft_glimpse(images, place, 3, 2), (locations,))


def test_hard_glimpse_gives_the_location_no_gradient() -> None:
    locations = torch.zeros(1, 2, requires_grad=True)
    assert not hard_glimpse(torch.rand(1, 1, 5, 5), locations, 3).requires_grad


def test_reads_counts_the_looks_at_each_pixel() -> None:
    path = torch.tensor([[[-1.0, -1.0], [0.0, 0.0], [0.0, 0.0]]])
    wanted = torch.zeros(5, 5)
    wanted[:2, :2] += 1  # of a 3x3 patch on the corner pixel
    wanted[1:4, 1:4] += 2
    assert torch.equal(reads(path, size=3, scales=1, height=5, width=5)[0], wanted)
    assert unique_pixels(path.expand(2, -1, -1), size=3, scales=1, height=5, width=5) == 2 * (4 + 9 - 1)  # they share one pixel


def test_touched_counts_overlap_once_and_ignores_the_outside() -> None:
    two_corners = torch.tensor([[[-1.0, -1.0], [1.0, 1.0]]])
    mask = touched(two_corners, size=3, scales=1, height=6, width=6)
    assert mask.sum() == 2 * 4  # a 3x3 patch on a corner pixel keeps 2x2 inside
    same_twice = torch.zeros(1, 2, 2)
    assert touched(same_twice, 3, 1, 7, 7).sum() == 9
    assert touched(same_twice, 3, 2, 7, 7).sum() == 36


@pytest.mark.parametrize("width", [1290, 1305, 5000])
def test_a_look_far_away_touches_nothing_however_wide_the_image(width: int) -> None:
    assert not touched(torch.full((1, 1, 2), 100.0), 12, 4, 20, width).any()


def test_touched_is_where_changing_a_pixel_changes_the_glimpse() -> None:
    location = torch.tensor([[0.4, -0.8]])
    mask = touched(location[:, None], 2, 2, 6, 7)[0]
    blank = torch.zeros(1, 1, 6, 7)
    for row, column in itertools.product(range(6), range(7)):
        image = blank.clone()
        image[0, 0, row, column] = 1
        assert bool(hard_glimpse(image, location, 2, 2).any()) == bool(mask[row, column])


@pytest.mark.parametrize(
    ("images", "locations", "message"),
    [
        (torch.zeros(2, 5, 5), torch.zeros(2, 2), r"images: got shape \[2, 5, 5\], wanted \[B, C, H, W\]"),
        (torch.zeros(2, 1, 5, 5), torch.zeros(3, 2), r"locations: got shape \[3, 2\], wanted \[2, 2\]"),
    ],
)
def test_a_wrong_shape_is_named(images: Tensor, locations: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hard_glimpse(images, locations, 3)
