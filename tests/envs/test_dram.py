"""DRAM's side of the world: the product glimpse network, the context that cannot tell the class, the location unit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hardattn.agents.base import collect
from hardattn.agents.fixed import Centre, Oracle, Random, Raster
from hardattn.envs import glimpse
from hardattn.envs.dram_perception import ROWS, DramPerception
from hardattn.envs.errors import UsageError
from hardattn.envs.task_data import new_network
from hardattn.envs.tasks import PerceptionConfig, Task, get_task
from hardattn.testing import small_world

SMALL = PerceptionConfig(network="dram", glimpse_width=8, core_width=8)


def new_perception() -> DramPerception:
    torch.manual_seed(0)
    return DramPerception(SMALL, (2, 1, 5, 5), 3)


def test_what_and_where_are_multiplied() -> None:
    network = new_perception()
    with torch.no_grad():
        network.encode_location.weight.zero_()
        network.encode_location.bias.zero_()
    nothing = network.look(None, torch.rand(2, 2, 1, 5, 5), torch.zeros(2, 2))
    other = network.look(None, torch.rand(2, 2, 1, 5, 5), torch.ones(2, 2))
    assert torch.equal(nothing[0], other[0])  # a product with zero says nothing of the pixels; a sum would


def test_it_starts_out_passing_the_pixels_on() -> None:
    network = new_perception()
    seen = network.encode_location(torch.zeros(1, 2))
    assert seen.tolist() == [[1.0] * 8]


def test_shapes_and_that_a_later_look_adds_to_the_state() -> None:
    network = new_perception()
    state = network.look(None, torch.rand(4, 2, 1, 5, 5), torch.zeros(4, 2))
    assert network.read(state).shape == (4, 3) and network.observe(state).shape == (4, 8)
    assert not torch.equal(state[0], network.look(state, torch.rand(4, 2, 1, 5, 5), torch.zeros(4, 2))[0])


def test_the_second_and_third_convolution_have_twice_the_filters_of_the_first() -> None:
    network = DramPerception(replace(SMALL, filters=4), (2, 1, 5, 5), 3)
    weights = 2 * 4 * 5 * 5 + 4 + 4 * 8 * 3 * 3 + 8 + 8 * 8 * 3 * 3 + 8 + 8 * 3 * 3 * 8 + 8  # the last layer reads 3x3 places
    assert sum(weight.numel() for weight in network.encode_pixels.parameters()) == weights == 1668


def test_a_glimpse_is_read_alike_among_many_and_among_few() -> None:
    network = new_perception()
    glimpses, locations = torch.rand(ROWS + 20, 2, 1, 5, 5), torch.rand(ROWS + 20, 2)
    many = network.look(None, glimpses, locations)[0]
    few = network.look(None, glimpses[-20:], locations[-20:])[0]
    torch.testing.assert_close(many[-20:], few)


def test_tasks_of_dram_get_its_network() -> None:
    world = small_world(task={"perception": SMALL, "context": 4, "unit": 0.15})
    assert isinstance(new_network(world.task, world.dataset), DramPerception)
    assert get_task("dram-pairs").context and get_task("dram-addition").unit == 0.15


def test_context_is_the_whole_image_made_small() -> None:
    world = small_world(task={"context": 4})
    observation = world.reset(torch.arange(8))
    context = world.observation_space.split(observation)["context"]
    by_hand = world.images.float().view(8, 1, 4, 3, 4, 3).mean(dim=(3, 5)) / 255  # 12x12 pixels in cells of 3x3
    torch.testing.assert_close(context, by_hand)
    images = torch.rand(2, 1, 10, 7)
    assert glimpse.coarse(images, 4).shape == (2, 1, 4, 4)  # also where cells do not divide the image


def test_context_cannot_tell_the_classifier_the_class() -> None:
    """Two worlds with different images but the same glimpses believe the same; the observations differ."""
    task = {"context": 4}
    beliefs, contexts = [], []
    for corner in (0, 255):
        world = small_world(task=task)
        world.dataset.images[:, :, :3, :3] = corner  # a corner that the looks below do not reach
        world.reset(torch.arange(8))
        for _ in range(world.horizon):
            step = world.step(torch.full((8, 2), 0.7))
        beliefs.append(step.logits)
        contexts.append(world.observation_space.split(step.observation)["context"])
    assert torch.equal(*beliefs) and not torch.equal(*contexts)


def test_an_action_of_one_is_a_unit() -> None:
    world = small_world(task={"unit": 0.25})
    assert np.allclose(world.action_space.high, 2) and np.allclose(world.action_space.low, -2)
    world.reset(torch.arange(8))
    world.step(torch.tensor([1.0, -2.0]).expand(8, 2))
    assert world.locations[0][0].tolist() == [0.5, -1.0]
    world.step(torch.full((8, 2), 3.0))
    assert world.locations[1][0].tolist() == [1, 1]
    for _ in range(2, world.horizon):
        world.step(torch.zeros(8, 2))
    assert world.counts.clipped == 8  # the second look alone


@pytest.mark.parametrize("control", [Random, Centre, Raster, Oracle])
def test_controls_look_at_the_same_places_in_any_unit(control: type) -> None:
    paths = []
    for unit in (0.5, 0.125):
        world = small_world(task={"unit": unit})
        agent = control(world.observation_space, world.action_space, seed=3)
        collect(agent, world, indices=torch.arange(8))
        paths.append(torch.stack(world.locations))
    torch.testing.assert_close(*paths)


def test_the_agent_sees_the_last_glimpse_where_the_task_says_so() -> None:
    world = small_world(task={"see_glimpse": True})
    first = world.observation_space.split(world.reset(torch.arange(8)))["glimpse"]
    assert not first.any()
    step = world.step(torch.zeros(8, 2))
    seen = world.observation_space.split(step.observation)["glimpse"]
    assert torch.equal(seen, glimpse.hard_glimpse(world.images, torch.zeros(8, 2), world.task.size, world.task.scales))


def test_settings_that_cannot_be_are_refused() -> None:
    for wrong in ({"unit": 0.0}, {"unit": 0.6}, {"context": -1}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            Task("t", "s", **wrong)  # type: ignore[arg-type]
