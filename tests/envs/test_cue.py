"""Digits with a cue: what is asked is what the corner says, nothing moves it, and no place of the network sees much of both."""

import dataclasses
import itertools

import pytest
import torch

from hardattn.envs import cnn, datasets, task_data
from hardattn.envs.canvases import Canvases
from hardattn.envs.crops import Crops
from hardattn.envs.cue import CUE, channel_asked, cued, mnist_cue, others, with_cue
from hardattn.envs.datasets import Dataset
from hardattn.envs.errors import UsageError
from hardattn.envs.filter_world import FilterWorld
from hardattn.envs.pictures import Pictures
from hardattn.envs.tasks import CanvasConfig, find_task

# Of the images and labels, in order: the same for everybody.
SHA256 = {
    "validation": "f8a4f6d6b83a8434249252e4cfe91d771b359dd819485b6d079a7d1023c6f888",
    "test": "39fd4de3b5b5a19ebebabf97f48c95f8faf12d65dee7cdba912fb956b05b6695",
}


def grey(count: int = 60, classes: int = 5) -> Dataset:
    """Images of 12 x 12, each of one shade that tells which it is."""
    shades = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 12, 12)
    return Dataset("shades", shades.contiguous(), torch.arange(count) % classes, classes)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_channel_that_is_lit_holds_the_image_of_the_label_and_the_others_two_of_other_classes() -> None:
    source = grey()
    made = cued(source, random())
    shades = made.images[:, :, -1, -1].long()  # [N, 3], which image each channel holds
    asked = channel_asked(made.images)
    assert torch.equal(shades.gather(1, asked[:, None])[:, 0], torch.arange(60))
    assert torch.equal(made.labels, source.labels)
    for one, other in itertools.combinations(range(3), 2):
        assert not bool((source.labels[shades[:, one]] == source.labels[shades[:, other]]).any())
    assert set(asked.tolist()) == {0, 1, 2}


def test_a_corner_on_paper() -> None:
    """Channel 2 of the first image and channel 0 of the second are asked: 36 pixels of 255, and nothing below."""
    marked = with_cue(torch.full((2, 3, 8, 8), 9, dtype=torch.uint8), torch.tensor([2, 0]))
    assert marked[:, :, :CUE, :CUE].sum(dim=(2, 3)).tolist() == [[0, 0, 36 * 255], [36 * 255, 0, 0]]
    assert bool((marked[:, :, CUE:] == 9).all()) and bool((marked[:, :, :, CUE:] == 9).all())
    assert channel_asked(marked).tolist() == [2, 0]


def test_three_classes_differ_even_where_one_is_most_of_the_data() -> None:
    labels = torch.tensor([0] * 80 + [1] * 10 + [2] * 10)
    drawn = labels[others(labels, random())]
    assert drawn.sort(dim=1).values.tolist() == [[0, 1, 2]] * 100


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_splits_are_the_same_for_everybody(split: str) -> None:
    made = mnist_cue(split)
    assert made.images.shape == ({"validation": 5000, "test": 10_000}[split], 3, 36, 36)
    assert made.sha256() == SHA256[split]
    assert torch.equal(made.labels, datasets.mnist(split).labels)
    assert torch.bincount(channel_asked(made.images)).min() > 0.3 * len(made)


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(UsageError, match="validation"):
        mnist_cue("validate")


def test_what_lies_in_its_place_stays_there() -> None:
    made = cued(grey(), random())
    indices = torch.arange(60)
    assert made.in_place and not made.photographs and not grey().photographs
    assert torch.equal(made.show(indices, random(), augment=1.0).images, made.images)
    held = Pictures(made.take(indices), "none").to("cpu")
    assert torch.equal(held.show(indices, random(), augment=1.0).images, made.images)
    assert held.fixed().in_place
    with pytest.raises(UsageError, match="crop=20: where things lie"):
        Crops(made, 20)
    with pytest.raises(UsageError, match="canvas: where things lie"):
        Canvases(made, CanvasConfig(60))
    moving = Dataset("noise", torch.randint(256, (60, 3, 12, 12), dtype=torch.uint8, generator=random()), made.labels, 5)
    assert not dataclasses.replace(moving, text=True).photographs  # a mirrored 2 is no digit
    assert moving.photographs and not torch.equal(Pictures(moving).show(indices, random(), augment=1.0).images, moving.images)


def test_a_place_of_the_network_sees_14_pixels_each_way() -> None:
    """The place (2, 2) of 8 x 8 begins at pixel 4 * 2 - 3 = 5, the cue's last, and ends before 5 + 14 = 19; ink begins at 8 + 4.

    A maximum passes on one pixel of its window alone, so means stand in for it: the same windows, all of their pixels.
    """
    layers: list[torch.nn.Module] = []
    for stage in cnn.cue(3, 10).stages:
        assert isinstance(stage, cnn.Stage)
        layers += [stage.conv, torch.nn.AvgPool2d(*stage.pool)]
    pixels = torch.rand(1, 3, 36, 36, generator=random()).requires_grad_()
    places = torch.nn.Sequential(*layers)(pixels)
    assert places.shape == (1, 64, 8, 8)
    places[0, :, 2, 2].sum().backward()
    assert pixels.grad is not None
    reached = pixels.grad.abs().sum(dim=(0, 1)).nonzero()
    assert reached.amin(dim=0).tolist() == [5, 5] and reached.amax(dim=0).tolist() == [18, 18]


def world(rule: str, attention: str = "hard", **changes: object) -> FilterWorld:
    setup = find_task("dasnet-cue")
    assert setup.gating is not None
    setup = dataclasses.replace(setup, gating=dataclasses.replace(setup.gating, rule=rule, **changes))
    data = cued(
        Dataset("noise", torch.randint(256, (60, 1, 28, 28), dtype=torch.uint8, generator=random()), grey().labels, 5), random()
    )
    torch.manual_seed(0)
    network = task_data.new_network(setup, data)
    return task_data.new_world(setup, data, network, batch_size=12, attention=attention, precision="fp32")


def test_a_gate_that_is_closed_is_a_map_that_is_not_there() -> None:
    made = world("threshold")
    made.reset(torch.arange(12))
    before, width = made.logits, int(made.action_space.shape[0])
    assert width == 16 + 32 + 64
    scores = torch.ones(12, width)
    scores[:, -64:] = -1.5
    closed = made.step(scores).logits
    assert torch.allclose(closed, made.network.last.bias.expand(12, -1), atol=1e-6)
    assert torch.equal(made.step(torch.zeros(12, width)).logits, before)  # scores of 0: the network as it is


@pytest.mark.parametrize("rule", ["threshold", "top-k"])
def test_soft_attention_refuses_gains_without_a_derivative(rule: str) -> None:
    with pytest.raises(UsageError, match=f"rule={rule}: such gains have no derivative .* e.g. reinforce"):
        world(rule, "soft")
    world("softmax", "soft")
