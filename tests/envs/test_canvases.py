import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hardattn.envs.augment import random_affine, random_affine_pieces, turned
from hardattn.envs.canvases import (
    Canvas,
    CanvasConfig,
    Canvases,
    Label,
    canvas_label,
    draw,
    fixed_set,
    label_count,
    pair_digits,
    pair_label,
)
from hardattn.envs.datasets import Dataset
from hardattn.envs.errors import UsageError


def digits(count: int = 7, channels: int = 1, height: int = 4, width: int = 4) -> Dataset:
    """Images whose pixels all differ from their neighbours, by arithmetic alone; image n is of class n."""
    pixels = torch.arange(count * channels * height * width).view(count, channels, height, width) * 37 % 251
    return Dataset("squares", pixels.to(torch.uint8), torch.arange(count), count)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def naive_draw(dataset: Dataset, indices: Tensor, config: CanvasConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The recipe, pixel by pixel: images [B, C, S, S] and boxes [B, D, 4]. It asks the generator for the same numbers."""

    def random(below: int, columns: int) -> list[list[int]]:
        numbers: list[list[int]] = torch.randint(below, (len(indices), columns), generator=generator).tolist()
        return numbers

    count, channels, height, width = dataset.images.shape
    piece, free = config.clutter_size, config.size - config.clutter_size + 1
    if config.clutter:
        bounds = [count, height - piece + 1, width - piece + 1, free, free]
        clutter = [random(below, config.clutter) for below in bounds]
    partners = random(count, config.digits - 1)
    tops = random(config.size - height + 1, config.digits)
    lefts = random(config.size - width + 1, config.digits)
    images, boxes = torch.zeros(len(indices), channels, config.size, config.size), torch.zeros(len(indices), config.digits, 4)
    for b, k in itertools.product(range(len(indices)), range(config.clutter)):
        source, row, column, top, left = (numbers[b][k] for numbers in clutter)
        for c, i, j in itertools.product(range(channels), range(piece), range(piece)):
            images[b, c, top + i, left + j] += dataset.images[source, c, row + i, column + j]
    images.clamp_(max=255)
    for b, first in enumerate(indices.tolist()):
        for d, example in enumerate([first, *partners[b]]):
            top, left = tops[b][d], lefts[b][d]
            for c, i, j in itertools.product(range(channels), range(height), range(width)):
                value = images[b, c, top + i, left + j] + dataset.images[example, c, i, j]
                images[b, c, top + i, left + j] = min(float(value), 255)
            boxes[b, d] = torch.tensor([left, top, left + width, top + height])
    return images.to(torch.uint8), boxes


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 3, 5)])
@pytest.mark.parametrize(
    "config",
    [
        CanvasConfig(5),
        CanvasConfig(9, clutter=4, clutter_size=2),
        CanvasConfig(6, clutter=5, clutter_size=3, label="pair"),
        CanvasConfig(8, label="sum"),
    ],
    ids=["translated", "cluttered", "pair", "sum"],
)
def test_canvases_equal_the_recipe_done_pixel_by_pixel(config: CanvasConfig, shape: tuple[int, int, int]) -> None:
    dataset = digits(7, *shape)
    indices = torch.tensor([3, 0, 6, 3, 1, 5])
    got = draw(dataset, indices, config, seeded())
    images, boxes = naive_draw(dataset, indices, config, seeded())
    assert got.images.dtype == torch.uint8 and got.boxes.dtype == torch.float32
    assert torch.equal(got.images, images)
    assert torch.equal(got.boxes, boxes)
    assert torch.equal(got.digit_labels[:, 0], indices)  # image n is of class n
    assert torch.equal(got.labels, canvas_label(got.digit_labels, config.label, 7))


def test_a_digit_lies_where_its_box_says() -> None:
    dataset = digits(7, height=3, width=5)
    canvas = draw(dataset, torch.arange(7), CanvasConfig(9), seeded())
    for n, (left, top, right, bottom) in enumerate(canvas.boxes[:, 0].int().tolist()):
        assert torch.equal(canvas.images[n, :, top:bottom, left:right], dataset.images[n])
        canvas.images[n, :, top:bottom, left:right] = 0
    assert not canvas.images.any()


def test_digits_reach_every_place_equally_often_and_none_outside() -> None:
    canvas = draw(digits(), torch.zeros(7200, dtype=torch.int64), CanvasConfig(6, label="pair"), seeded())
    for d in range(2):
        places, counts = canvas.boxes[:, d].unique(dim=0, return_counts=True)
        assert places.tolist() == [[x, y, x + 4, y + 4] for x, y in itertools.product(range(3), range(3))]
        assert (counts - 800).abs().max() < 5 * 800**0.5  # five standard deviations


def test_a_reach_below_1_keeps_digits_around_the_middle() -> None:
    config = CanvasConfig(14, label="pair")  # room for digits of 4 pixels to begin at 0 to 10; reach 0.4 leaves 3 to 7
    boxes = draw(digits(), torch.zeros(500, dtype=torch.int64), config, seeded(), reach=0.4).boxes
    assert set(boxes[..., :2].flatten().tolist()) == {3, 4, 5, 6, 7}
    boxes = draw(digits(), torch.zeros(500, dtype=torch.int64), config, seeded(), reach=0.0).boxes
    assert set(boxes[..., :2].flatten().tolist()) == {5}


def test_clutter_reaches_every_place_and_keeps_its_shape() -> None:
    images = torch.full((9, 1, 4, 4), 255, dtype=torch.uint8)
    images[0] = 0  # the digit shown is black: what is white is clutter
    dataset = Dataset("white", images, torch.arange(9), 9)
    canvas = draw(dataset, torch.zeros(2000, dtype=torch.int64), CanvasConfig(6, clutter=1, clutter_size=2), seeded())
    seen = canvas.images[canvas.images.flatten(1).amax(dim=1) > 0].unique(dim=0)
    wanted = torch.zeros(5, 5, 1, 6, 6, dtype=torch.uint8)
    for row, column in itertools.product(range(5), range(5)):
        wanted[row, column, :, row : row + 2, column : column + 2] = 255
    assert torch.equal(seen, wanted.flatten(0, 1).unique(dim=0))


def test_clutter_is_any_cut_of_any_image() -> None:
    black = torch.zeros(1, 1, 3, 3, dtype=torch.uint8)
    grey = torch.arange(1, 19, dtype=torch.uint8).view(2, 1, 3, 3)  # every pixel of the set has its own value
    dataset = Dataset("grey", torch.cat([black, grey]), torch.arange(3), 3)
    canvas = draw(dataset, torch.zeros(1000, dtype=torch.int64), CanvasConfig(5, clutter=1, clutter_size=2), seeded())
    cuts = {tuple(image[image > 0].tolist()) for image in canvas.images}
    firsts = [n + i for n, i in itertools.product((1, 10), (0, 1, 3, 4))]
    assert cuts == {(), *((i, i + 1, i + 3, i + 4) for i in firsts)}


def test_a_digit_is_never_darkened_by_clutter() -> None:
    dataset = digits()
    indices = torch.arange(7).repeat(40)
    canvas = draw(dataset, indices, CanvasConfig(7, clutter=6, clutter_size=3), seeded())
    brighter = 0
    for n, image, box in zip(indices.tolist(), canvas.images, canvas.boxes[:, 0].int().tolist(), strict=True):
        shown = image[:, box[1] : box[3], box[0] : box[2]]
        assert (shown >= dataset.images[n]).all()
        brighter += int((shown > dataset.images[n]).any())
    assert brighter > 200  # most digits do lie on clutter


def test_values_are_added_and_clipped_at_white() -> None:
    images = torch.tensor([[100, 200], [0, 255]], dtype=torch.uint8).expand(2, 1, 2, 2)
    canvas = draw(Dataset("same", images, torch.arange(2), 2), torch.tensor([0]), CanvasConfig(2, label="sum"), seeded())
    assert canvas.images.tolist() == [[[[200, 255], [0, 255]]]]  # the canvas is as small as the digits: one on the other


def test_the_most_clutter_that_is_allowed_does_not_overflow() -> None:
    dataset = Dataset("white", torch.full((2, 1, 3, 3), 255, dtype=torch.uint8), torch.arange(2), 2)
    canvas = draw(dataset, torch.arange(2), CanvasConfig(3, clutter=126, clutter_size=3, label="pair"), seeded())
    assert (canvas.images == 255).all()


def test_the_generator_decides_everything() -> None:
    config, indices = CanvasConfig(9, clutter=3, clutter_size=2, label="pair"), torch.arange(7)
    random = seeded(1)
    first, second = draw(digits(), indices, config, random), draw(digits(), indices, config, random)
    again = draw(digits(), indices, config, seeded(1))
    assert all(torch.equal(*fields) for fields in zip(first, again, strict=True))
    assert first.sha256() == again.sha256() != second.sha256()


def test_half_a_turn_and_no_turn() -> None:
    """An image turned by 180 degrees is the image read backwards; one by 0 is itself; one by 90 has its columns for rows."""
    image = torch.rand(1, 1, 5, 5, generator=seeded())
    for share, wanted in ((0.0, image), (0.5, image.rot90(1, (2, 3))), (1.0, image.flip(2, 3))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "rand", lambda *_, share=share, **__: torch.tensor([(share + 1) / 2]))
            assert torch.allclose(turned(image, 180, seeded()), wanted, atol=1e-5)


@pytest.mark.parametrize(("distort", "strength"), [(turned, 180.0), (random_affine, 6.0)])
def test_a_quarter_turn_of_an_image_that_is_not_square(
    distort: Callable[..., Tensor], strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar that lies stands: as long and as thick as before."""
    bar = torch.zeros(1, 1, 21, 41)
    bar[:, :, 9:12, 13:28] = 1
    stands = torch.zeros(1, 1, 21, 41)
    stands[:, :, 3:18, 19:22] = 1
    share = torch.full((1, 6), 0.5)  # nothing but the angle: 180 x 0.5 and 15 x 6 x 1 degrees
    share[:, 0] = 1
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.tensor([0.75]) if len(size) == 1 else share)
    assert (distort(bar, strength, seeded()) - stands).abs().max() < 0.01


def test_digits_are_turned_as_far_as_asked_and_clutter_is_not() -> None:
    """A dot right of the middle stays on its circle, at angles that fill -90 to 90 degrees."""
    dot = torch.zeros(2, 1, 21, 21, dtype=torch.uint8)
    dot[:, :, 9:12, 17:20] = 255
    dataset = Dataset("dots", dot, torch.arange(2), 2)
    shown = draw(dataset, torch.arange(2).repeat(500), CanvasConfig(21, turn=90), seeded()).images[:, 0].float()
    places = torch.arange(21.0) - 10
    x, y = (shown.sum(axis) @ places / shown.sum((1, 2)) for axis in (1, 2))
    angles = torch.atan2(y, x).rad2deg()
    assert torch.allclose(x.hypot(y), torch.tensor(8.0), atol=0.2)
    assert -91 < angles.min() < -85 and 85 < angles.max() < 91 and abs(angles.mean()) < 6


def test_every_pair_and_every_sum_comes_up() -> None:
    dataset = digits(10)
    for label in ("pair", "sum"):
        canvas = draw(dataset, torch.arange(10).repeat(100), CanvasConfig(8, label=label), seeded())
        assert canvas.labels.unique().tolist() == list(range(label_count(label)))
        assert canvas.digit_labels.shape == (1000, 2)


CLUTTERED = CanvasConfig(9, clutter=2, clutter_size=3, label="pair")
PINNED = "ab02e40147e395f5f5fdeb07a96075d3feec94d6b54a9ae9a34832532b0bebd3"


def test_a_fixed_set_never_changes() -> None:
    state = torch.get_rng_state()
    first, again = (fixed_set(digits(), CLUTTERED, seed=3, count=20) for _ in range(2))
    assert first.sha256() == again.sha256() == PINNED
    assert fixed_set(digits(), CLUTTERED, seed=4, count=20).sha256() != PINNED
    assert torch.equal(torch.get_rng_state(), state)


def test_a_smaller_fixed_set_is_the_beginning_of_a_larger_one() -> None:
    small, large = (fixed_set(digits(), CLUTTERED, seed=3, count=count) for count in (30, 2100))
    assert len(large.images) == len(large.labels) == 2100
    assert small.sha256() == Canvas(*(field[:30] for field in large)).sha256()


def test_a_fixed_set_shows_every_digit_before_any_comes_again() -> None:
    shown = fixed_set(digits(), CLUTTERED, seed=0, count=2100).digit_labels[:, 0].view(300, 7)
    assert (shown.sort(dim=1).values == torch.arange(7)).all()
    assert len(shown.unique(dim=0)) > 200  # in a new order each time


def test_pairs_are_numbered_row_by_row() -> None:
    table = [[0, 1, 2], [1, 3, 4], [2, 4, 5]]
    one, other = torch.meshgrid(torch.arange(3), torch.arange(3), indexing="ij")
    assert pair_label(one, other, 3).tolist() == table
    ones, others = torch.tensor([0, 9, 1, 1, 2, 8, 9]), torch.tensor([0, 0, 1, 2, 1, 9, 9])
    assert pair_label(ones, others).tolist() == [0, 9, 10, 11, 11, 53, 54]


def test_a_pair_label_names_its_digits() -> None:
    assert pair_digits(torch.tensor([0, 9, 10, 11, 54])).tolist() == [[0, 0], [0, 9], [1, 1], [1, 2], [9, 9]]
    labels = torch.arange(55)
    pairs = pair_digits(labels)
    assert torch.equal(pair_label(pairs[:, 1], pairs[:, 0]), labels)  # in either order


@pytest.mark.parametrize(("label", "wanted", "count"), [("class", [7, 3], 10), ("sum", [9, 6], 19), ("pair", [24, 27], 55)])
def test_what_is_to_be_told(label: Label, wanted: list[int], count: int) -> None:
    shown = torch.tensor([[7], [3]]) if label == "class" else torch.tensor([[7, 2], [3, 3]])
    assert canvas_label(shown, label).tolist() == wanted
    assert label_count(label) == count


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "size=0: wanted 1 or more"),
        ({"clutter": -1}, "clutter=-1: wanted 0 or more"),
        ({"clutter_size": 0}, "clutter_size=0: wanted 1 or more"),
        ({"clutter": 128}, "clutter=128: wanted at most 127 pieces"),
        ({"turn": 200}, "turn=200: wanted 0 to 180 degrees"),
        ({"label": "pairs"}, "no canvas label is called 'pairs'; did you mean 'pair'?"),
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as error:
        CanvasConfig(**wrong)  # type: ignore[arg-type]
    assert str(error.value) == message


def test_what_does_not_fit_is_named() -> None:
    dataset, indices = digits(height=3), torch.arange(2)
    with pytest.raises(UsageError, match="size=3: images of squares are 3 x 4; wanted a canvas of at least 4 pixels"):
        draw(dataset, indices, CanvasConfig(3), seeded())
    with pytest.raises(UsageError, match="clutter_size=4: images of squares are 3 x 4; wanted pieces of at most 3 pixels"):
        draw(dataset, indices, CanvasConfig(9, clutter=1, clutter_size=4), seeded())
    draw(dataset, indices, CanvasConfig(9, clutter=0, clutter_size=4), seeded())  # no piece, no matter
    with pytest.raises(UsageError, match="count=0: wanted at least 1 canvas"):
        fixed_set(dataset, CanvasConfig(9), seed=0, count=0)
    with pytest.raises(ValueError, match=r"indices: got torch.int64 \[2, 1\], wanted int64 \[B\]"):
        draw(dataset, indices[:, None], CanvasConfig(9), seeded())


def test_pieces_are_cut_from_distorted_images() -> None:
    """Resampling a piece alone gives what resampling the whole image and then cutting gives."""
    images = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    top, left = torch.tensor([0, 3, 20, 7, 12, 20]), torch.tensor([5, 20, 0, 7, 1, 20])
    whole = random_affine(images, 0.8, torch.Generator().manual_seed(1))
    pieces = random_affine_pieces(images, top, left, 8, 0.8, torch.Generator().manual_seed(1))
    for piece, image, y, x in zip(pieces, whole, top.tolist(), left.tolist(), strict=True):
        torch.testing.assert_close(piece, image[:, y : y + 8, x : x + 8], atol=1e-5, rtol=1e-4)


def test_clutter_is_no_crisper_than_the_digits() -> None:
    """A checkerboard of single pixels survives no resampling: where any of it is left, something was not distorted."""
    board = (torch.arange(28)[:, None] + torch.arange(28)) % 2 * 255
    source = Dataset("boards", board.to(torch.uint8).expand(10, 1, 28, 28).contiguous(), torch.arange(10), 10)

    def steepest(**changes: bool) -> float:
        shown = Canvases(source, CanvasConfig(100, clutter=6), **changes).show(
            torch.arange(10), torch.Generator().manual_seed(0), 1.0
        )
        return float(shown.images.float().diff(dim=-1).abs().mean())

    assert steepest() < 0.8 * steepest(crisp_clutter=True)
    plain = Canvases(source, CanvasConfig(100, clutter=6)).show(torch.arange(10), torch.Generator().manual_seed(0)).images
    crisp = Canvases(source, CanvasConfig(100, clutter=6), crisp_clutter=True)
    assert torch.equal(plain, crisp.show(torch.arange(10), torch.Generator().manual_seed(0)).images)  # nothing is distorted
