"""Evolution: one step against its equations in float64, evosax's SNES against ours, ties and NaN, and the agent around them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from hardattn import results
from hardattn.agents.snes import SNES, FlatPolicy, SnesConfig
from hardattn.agents.strategies import EVOSAX, Evosax, Snes, deviation_rate, member_noise, snes_step, utilities
from hardattn.envs.errors import HardattnError, UsageError
from hardattn.envs.observation import Observation
from hardattn.envs.probes import ProbeWorld
from hardattn.testing import POLICY_PROBES, probe_return, small_world, solved_at


def test_utilities_are_those_of_the_paper() -> None:
    """Population 4: log 3 - log k is 1.0986, 0.4055, 0 and less; as shares 0.7304, 0.2696, 0, 0; each less 1/4."""
    found = utilities(torch.tensor([3.0, 1.0, 2.0, 0.0]))
    assert found.tolist() == pytest.approx([-0.25, 0.0196, -0.25, 0.4804], abs=1e-4)
    assert float(found.sum()) == pytest.approx(0, abs=1e-6)


def test_members_that_are_alike_share_their_ranks() -> None:
    found = utilities(torch.tensor([5.0, 1.0, 1.0, 7.0]))
    assert found[1] == found[2] == pytest.approx((0.4804 + 0.0196) / 2, abs=1e-4)
    assert utilities(torch.ones(6)).abs().max() < 1e-6  # nothing to choose, nothing to learn


def test_a_step_is_that_of_the_equations_in_float64() -> None:
    random = np.random.default_rng(0)
    mean, deviation, noise = random.normal(size=7), random.uniform(0.5, 2, 7), random.normal(size=(10, 7))
    utility, rate = random.normal(size=10), 0.3739
    wanted_mean, wanted_log = mean.copy(), np.log(deviation)
    for k in range(10):
        wanted_mean += 0.9 * deviation * utility[k] * noise[k]
        wanted_log += rate / 2 * utility[k] * (noise[k] ** 2 - 1)
    parts = [torch.tensor(part, dtype=torch.float32) for part in (mean, deviation, noise, utility)]
    found = snes_step(*parts, 0.9, rate)
    assert found[0].numpy() == pytest.approx(wanted_mean, rel=1e-5, abs=1e-6)
    assert found[1].numpy() == pytest.approx(np.exp(wanted_log), rel=1e-5)
    assert deviation_rate(7) == pytest.approx((3 + math.log(7)) / (5 * math.sqrt(7)))


def test_ours_equals_that_of_evosax_given_the_same_members() -> None:
    ours = Snes(12, 0.3)
    theirs = Evosax("SNES", 12, 0.3, 10, mean_rate=1.0, seed=0, device="cpu")
    for _ in range(3):
        members = theirs.ask(10)
        ours.noise = (members - ours.mean) / ours.deviation
        fitness = (members - 1).square().sum(dim=1)
        ours.tell(fitness)
        theirs.tell(fitness)
        assert (ours.mean - theirs.mean).abs().max() < 1e-6 and (ours.deviation - theirs.deviation).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["snes", *EVOSAX])
def test_every_strategy_minimises_and_puts_nan_last(name: str) -> None:
    strategy: Any = Snes(20, 0.1) if name == "snes" else Evosax(name, 20, 0.1, 16, mean_rate=1.0, seed=0, device="cpu")
    for generation in range(100):
        members = strategy.ask(16)
        fitness = (members - 1).square().sum(dim=1)
        if generation % 10 == 0:
            fitness[3] = float("nan")
        strategy.tell(fitness)
    assert float((strategy.mean - 1).square().sum()) < 5  # from 20
    strategy.ask(16)
    before = strategy.mean.clone()
    with pytest.raises(HardattnError, match="every member is NaN"):
        strategy.tell(torch.full((16,), float("nan")))
    assert torch.equal(before, strategy.mean)


@pytest.mark.parametrize("name", EVOSAX)
def test_evosax_goes_on_to_the_bit(name: str, tmp_path: Path) -> None:
    one, other = (Evosax(name, 8, 0.1, 6, mean_rate=0.5, seed=seed, device="cpu") for seed in (0, 5))
    for _ in range(3):
        one.tell(one.ask(6).square().sum(dim=1))
    results.write_state(tmp_path / "state", one.state_dict())
    other.load_state_dict(results.read_state(tmp_path / "state"))
    for strategy in (one, other):
        for _ in range(3):
            strategy.tell(strategy.ask(6).square().sum(dim=1))
    assert torch.equal(one.mean, other.mean) and torch.equal(one.deviation, other.deviation)
    assert torch.equal(one.ask(6), other.ask(6))


@pytest.mark.parametrize("name", EVOSAX)
def test_the_deviation_is_that_of_the_members(name: str) -> None:
    strategy = Evosax(name, 4, 0.1, 2000, mean_rate=0.1, seed=0, device="cpu")
    for _ in range(2):
        strategy.tell((strategy.ask(2000) * torch.tensor([1.0, 3.0, 9.0, 1.0])).square().sum(dim=1))
    found, wanted = strategy.ask(2000).std(dim=0), strategy.deviation.expand(4)
    assert found.tolist() == pytest.approx(wanted.tolist(), rel=0.1)


def test_what_evosax_drew_cannot_be_written_into() -> None:
    strategy = Evosax("SNES", 8, 0.1, 6, mean_rate=1.0, seed=0, device="cpu")
    members = strategy.ask(6)
    before = np.asarray(strategy.members).copy()
    members.zero_()
    assert np.array_equal(before, np.asarray(strategy.members))


def test_noise_is_a_members_own() -> None:
    """It depends on seed, generation and member alone, so any number of processes can share a population."""
    whole = Snes(50, 1.0, seed=3).ask(6)
    half = torch.stack([member_noise(50, 3, 0, k, torch.device("cpu")) for k in (3, 4, 5)])
    assert torch.equal(whole[3:], half)
    assert not torch.equal(member_noise(50, 3, 0, 0, torch.device("cpu")), member_noise(50, 3, 1, 0, torch.device("cpu")))
    mirrored = Snes(50, 1.0, mirrored=True).ask(6)
    assert torch.equal(mirrored[:3], -mirrored[3:])
    with pytest.raises(UsageError, match="come in pairs"):
        Snes(50, 1.0, mirrored=True).ask(5)


def test_the_deviation_stays_above_its_floor() -> None:
    strategy = Snes(4, 1.0, floor=0.9, deviation_rate_factor=10)
    for _ in range(20):
        strategy.tell(strategy.ask(8).square().sum(dim=1))
    assert float(strategy.deviation.min()) == pytest.approx(0.9)


def test_each_row_is_answered_by_its_own_member() -> None:
    space = spaces.Box(-2.0, 2.0, (3,), np.float32)
    policy = FlatPolicy(SnesConfig(), spaces.Box(-1.0, 1.0, (5,), np.float32), space, torch.device("cpu"), 0)
    members, observation = torch.randn(4, policy.size), torch.randn(6 * 4, 5)
    found = policy.act(members, observation)
    for row in range(24):
        weights = members[row % 4]
        scores = weights[:3] + weights[3:].view(3, 5) @ observation[row] / math.sqrt(5)
        assert found[row].tolist() == pytest.approx((2 * torch.tanh(scores / 2)).tolist(), abs=1e-5)
    assert torch.equal(policy.act(torch.zeros(1, policy.size), observation), torch.zeros(24, 3))


def test_policies_read_what_they_are_told_to() -> None:
    space = Observation({"maps": (4,), "log_probabilities": (3,)})
    action = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def sizes(**settings: Any) -> int:
        return FlatPolicy(SnesConfig(**settings), space, action, torch.device("cpu"), 0).size

    assert sizes() == 2 * 8 and sizes(sees="log_probabilities") == 2 * 4 and sizes(policy="static") == 2
    assert sizes(policy="projected", rank=5) == 2 * 6
    with pytest.raises(UsageError, match="did you mean 'maps'"):
        sizes(sees="map")
    choice = FlatPolicy(SnesConfig(), space, spaces.Discrete(6), torch.device("cpu"), 0)
    assert choice.act(torch.randn(2, choice.size), torch.randn(8, 7)).dtype == torch.int64


def evolver(world: Any, **settings: Any) -> SNES:
    return SNES(world.observation_space, world.action_space, config=SnesConfig(std=0.5, penalty=0.0, **settings), seed=0)


class Backwards(SNES):
    """Prefers what returns least."""

    def update(self, world: Any) -> dict[str, float]:
        strategy = self.strategy = self.strategy or self._new_strategy(world.repeats)
        tell = strategy.tell
        strategy.tell = lambda fitness: tell(-fitness)  # type: ignore[method-assign]
        try:
            return super().update(world)
        finally:
            strategy.tell = tell  # type: ignore[method-assign]


def reached(kind: type[SNES], probe: str) -> float:
    world = ProbeWorld(probe, batch_size=16 * 32, repeats=16, seed=0)
    agent = kind(world.observation_space, world.action_space, config=SnesConfig(std=0.5, penalty=0.0), seed=0)
    for _ in range(60):
        agent.update(world)
    return probe_return(lambda _: agent, probe, updates=0)


def test_it_solves_the_probes_and_backwards_it_does_not() -> None:
    for probe in POLICY_PROBES:
        assert reached(SNES, probe) >= solved_at(probe), probe
        assert reached(Backwards, probe) < solved_at(probe), probe


def test_steps_of_the_mean_fall_to_nothing() -> None:
    moved = {}
    for anneal in (False, True):
        world = ProbeWorld("cue", 64, repeats=8)
        agent = SNES(world.observation_space, world.action_space, config=SnesConfig(learning_rate=0.5, anneal=anneal))
        for progress in (0.5, 1.0):
            world.progress, before = progress, agent.mean
            agent.update(world)
            moved[anneal, progress] = agent.mean - before
    assert torch.allclose(moved[True, 0.5], moved[False, 0.5] / 2)  # the same first generation; half way half of the step is left
    assert moved[False, 1.0].norm() > 0 and moved[True, 1.0].norm() == 0
    with pytest.raises(UsageError, match=r"anneal=true: evosax:PGPE keeps its own steps"):
        SnesConfig(strategy="evosax:PGPE", anneal=True)


def test_a_population_of_one_is_refused() -> None:
    world = small_world()
    with pytest.raises(UsageError, match="population of 1"):
        evolver(world).update(world)


def test_an_untrained_state_brings_the_beginning_back() -> None:
    world, agent = small_world(batch_size=8, repeats=4), None
    agent = evolver(world)
    untrained = agent.state_dict()
    first = agent.update(world), agent.mean.clone()
    agent.update(world)
    agent.load_state_dict(untrained)
    assert agent.strategy is None
    again = small_world(batch_size=8, repeats=4)
    assert (agent.update(again), agent.mean.tolist()) == (first[0], first[1].tolist())


def test_the_mean_is_deployed_and_a_sample_is_a_member() -> None:
    world = small_world(batch_size=8, repeats=4)
    agent = evolver(world)
    agent.update(world)
    observation = world.reset()
    greedy: Tensor = agent.act(observation, agent.begin(8), greedy=True)[0]
    assert torch.equal(greedy, agent.policy.act(agent.mean[None], observation))
    memory = agent.begin(8)
    assert memory.shape == (1, agent.policy.size) and not torch.equal(memory[0], agent.mean)
