import torch

from hardattn.agents.base import collect
from hardattn.agents.fixed import Centre, Random, Raster
from hardattn.envs.glimpse import reads
from hardattn.testing import small_world


def test_random_looks_fill_the_space_evenly() -> None:
    world = small_world()
    agent = Random(world.observation_space, world.action_space)
    looks, _ = agent.act(torch.zeros(10_000, 21), None)
    assert looks.min() >= -1 and looks.max() <= 1
    torch.testing.assert_close(looks.mean(dim=0), torch.zeros(2), atol=0.03, rtol=0)
    torch.testing.assert_close(looks.std(dim=0), torch.full((2,), 3**-0.5), atol=0.02, rtol=0)


def test_centre_looks_at_the_middle() -> None:
    world = small_world()
    assert not collect(Centre(world.observation_space, world.action_space), world).actions.any()


def test_raster_covers_most_of_a_centred_digit() -> None:
    world = small_world()
    path = Raster(world.observation_space, world.action_space).path
    assert path.shape == (6, 2) and len(path.unique(dim=0)) == 6
    digit = reads(path[None], 8, 1, 28, 28)[0, 4:24, 4:24] > 0
    assert digit.float().mean() >= 0.8


def test_raster_starts_over_when_the_horizon_is_longer() -> None:
    world = small_world()
    agent = Raster(world.observation_space, world.action_space)
    memory, looks = agent.begin(2), []
    for _ in range(8):
        look, memory = agent.act(torch.zeros(2, 21), memory)
        looks.append(look)
    assert torch.equal(looks[0], looks[6]) and torch.equal(looks[1], looks[7])
    assert agent.begin(2) == 0


def test_with_a_stop_number_the_controls_keep_looking() -> None:
    world = small_world(stop=True)
    for control in (Centre, Raster):
        collect(control(world.observation_space, world.action_space), world)
    assert world.counts.steps == 2 * 24
