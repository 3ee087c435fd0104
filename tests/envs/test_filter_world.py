"""The world of gains: vanilla at zero, folded equals looped, rewards, counts, resuming, and what it refuses."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
import torch

from hardattn.agents.base import collect
from hardattn.agents.fixed import Centre
from hardattn.agents.pathwise import Pathwise, PathwiseConfig
from hardattn.agents.snes import SNES, SnesConfig
from hardattn.envs import cnn, filter_world
from hardattn.envs.datasets import Dataset
from hardattn.envs.errors import UsageError
from hardattn.envs.filter_world import FilterWorld
from hardattn.envs.tasks import GatingConfig, find_task

NOTHING: Mapping[str, Any] = MappingProxyType({})


def world(
    kind: str = "small", task: Mapping[str, Any] = NOTHING, gating: Mapping[str, Any] = NOTHING, **changes: Any
) -> FilterWorld:
    """A world over 40 noise images with a small untrained network whose answers differ."""
    setup = find_task("dasnet-cifar10")
    assert setup.gating is not None
    setup = dataclasses.replace(setup, gating=dataclasses.replace(setup.gating, cnn=kind, **gating), **{"num_glimpses": 3, **task})
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 3, 32, 32), generator=random, dtype=torch.uint8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = cnn.narrow(3, 10, (4, 6, 6)) if kind == "small" else cnn.maxout(3, 10, (32, 32), (4, 6, 6), 8)
        with torch.no_grad():
            net.last.weight.mul_(20)
    cnn.whiten(net, images)
    net.eval().fold()
    net.get_used_to(images)
    dataset = Dataset("noise", images, torch.arange(40) % 10, 10)
    return FilterWorld(setup, dataset, net, **{"batch_size": 8, "precision": "fp32", **changes})


def width(made: FilterWorld) -> int:
    return int(made.action_space.shape[0])


def scores(made: FilterWorld, rows: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width(made), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["small", "maxout"])
@pytest.mark.parametrize("rule", ["softmax", "layer-softmax", "sigmoid", "top-k"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_scores_of_zero_are_the_network_as_it_is_to_the_bit(kind: str, rule: str, precision: str) -> None:
    made = world(kind, gating={"rule": rule, "where": "before"}, precision=precision)
    made.reset()
    before = made.logits
    for _ in range(3):
        step = made.step(torch.zeros(8, width(made)))
    assert torch.equal(step.logits, before) and bool(step.done.all())


CASES = [("small", {}), ("small", {"first": 2}), ("maxout", {}), ("maxout", {"where": "before"})]


class Replay:
    """Does again what was done, [B, T, A]."""

    def __init__(self, actions: torch.Tensor) -> None:
        self.actions = iter(actions.unbind(dim=1))

    def begin(self, batch_size: int) -> None:
        """Nothing to remember."""

    def act(self, observation: torch.Tensor, memory: None, greedy: bool = False) -> tuple[torch.Tensor, None]:
        """The next of them."""
        return next(self.actions), None


@pytest.mark.parametrize(("kind", "gating"), CASES)
def test_a_folded_population_equals_its_members_alone(kind: str, gating: dict[str, Any]) -> None:
    """Each pass for itself: passes feed back what they made, and what rounding that leaves at the end is the processor's affair."""
    folded = world(kind, gating=gating, batch_size=4 * 10, repeats=10)
    members = SNES(folded.observation_space, folded.action_space, config=SnesConfig(std=1.0))
    everyone = torch.randn(10, members.policy.size, generator=torch.Generator().manual_seed(1))
    indices = torch.arange(4)
    together = members.play(everyone, folded, indices)
    assert (folded._split is not None) == (gating != {"where": "before"})  # a maxout before its maximum cannot be taken apart
    looped = world(kind, gating=gating)
    for k in range(10):
        seen, done = together.observations[k::10], together.actions[k::10]
        chosen = torch.stack([members.policy.act(everyone[k : k + 1], one) for one in seen.unbind(dim=1)], dim=1)
        assert (chosen - done).abs().max() < 1e-5 * done.abs().max() + 1e-5
        alone = collect(Replay(done), looped, indices=indices)  # type: ignore[arg-type]
        assert (seen - alone.observations).abs().max() < 1e-5 * seen.abs().max() + 1e-5
        assert (together.logits[k::10] - alone.logits).abs().max() < 1e-5 * alone.logits.abs().max() + 1e-5
        assert torch.allclose(together.rewards[k::10], alone.rewards, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("repeats", "kind"), [(1, "small"), (10, "small"), (10, "maxout")])
def test_rows_that_go_through_in_parts_come_out_the_same(monkeypatch: pytest.MonkeyPatch, repeats: int, kind: str) -> None:
    made = {}
    for cached in (3, 25, 1000):
        monkeypatch.setattr(filter_world, "CACHED", cached)
        made[cached] = world(kind, batch_size=4 * repeats, repeats=repeats)
        made[cached].reset(torch.arange(4))
    listen = scores(made[3], 4 * repeats)
    steps = {cached: one.step(listen) for cached, one in made.items()}
    for cached in (3, 25):
        assert torch.allclose(steps[cached].observation, steps[1000].observation, rtol=1e-5, atol=1e-4)
        assert torch.allclose(steps[cached].logits, steps[1000].logits, rtol=1e-5, atol=1e-4)


def test_observations_name_their_parts() -> None:
    made = world()
    parts = made.observation_space.split(made.reset())
    assert {name: tuple(part.shape) for name, part in parts.items()} == {
        "maps": (8, 32),
        "hidden": (8, 6),
        "log_probabilities": (8, 10),
        "clock": (8, 3),
    }
    assert parts["clock"].tolist() == [[1, 0, 0]] * 8
    assert width(made) == 32 and width(world(gating={"first": 4})) == 12
    assert width(world("maxout", gating={"where": "before"})) == 32 and width(world("maxout")) == 16


def test_rewards_are_paid_at_the_end_or_by_the_rise() -> None:
    made = world(gating={"boost": 0.25})
    rollout = collect(Centre(made.observation_space, made.action_space), made)
    log_p = made.logits.log_softmax(dim=1)[torch.arange(8), made.labels]
    assert rollout.rewards[:, :2].abs().max() == 0
    assert torch.allclose(rollout.rewards[:, 2], torch.where(made.right, 0.25 * log_p, log_p))
    rising = world(task={"reward": "evidence-gain"})
    rising.reset()
    before = rising.logits.log_softmax(dim=1)[torch.arange(8), rising.labels]
    step = rising.step(scores(rising))
    after = step.logits.log_softmax(dim=1)[torch.arange(8), rising.labels]
    assert torch.allclose(step.reward, after - before, atol=1e-6)


def test_the_soft_gradient_is_that_of_finite_differences() -> None:
    made = world(attention="soft", task={"num_glimpses": 2})
    action, direction = scores(made), scores(made, seed=3)

    def loss(by: float, keep: bool = False) -> torch.Tensor:
        made.reset(torch.arange(8))
        moved = (action + by * direction).requires_grad_(keep)
        for _ in range(2):
            made.step(moved)
        if keep:
            return (torch.autograd.grad(made.loss(), moved)[0] * direction).sum()
        return made.loss()

    step = 1e-2
    slope = (loss(step) - loss(-step)) / (2 * step)
    assert float(loss(0, keep=True)) == pytest.approx(float(slope), rel=0.03)


def test_pathwise_learns_gains_and_backwards_it_unlearns() -> None:
    """On twelve images, backpropagation through the passes lowers the loss; the network itself stays as it was."""
    made = world(attention="soft", batch_size=12)
    images = torch.arange(12)
    made._pass.take = lambda: images  # type: ignore[method-assign]
    before = [weight.clone() for weight in made.network.parameters()]

    def losses(sign: float) -> tuple[float, float]:
        config = PathwiseConfig(std=0.0, start=0.0, learning_rate=3e-4)
        agent = Pathwise(made.observation_space, made.action_space, config=config, seed=0)
        real = made.loss
        made.loss = lambda: sign * real()  # type: ignore[method-assign]
        found = []
        for _ in range(30):
            agent.update(made)
            found.append(float(real().detach()))
        made.loss = real  # type: ignore[method-assign]
        return found[0], found[-1]

    first, last = losses(1)
    assert last < 0.8 * first
    first, last = losses(-1)
    assert last > first
    assert all(torch.equal(old, new) for old, new in zip(before, made.network.parameters(), strict=True))


def test_it_counts_passes_and_pixels() -> None:
    made = world()
    collect(Centre(made.observation_space, made.action_space), made)
    counts = made.counts
    assert (counts.episodes, counts.steps, counts.correct) == (8, 24, int(made.right.sum()))
    assert counts.processed_pixels == 8 * 4 * 32 * 32 and counts.unique_pixels == 8 * 32 * 32


def test_a_saved_world_goes_on_with_the_same_images() -> None:
    made, other = world(augment=0.5), world(augment=0.5, seed=9)
    made.reset()
    other.load_state_dict(made.state_dict())
    assert torch.equal(made.reset(), other.reset())
    assert made.render(0).shape[2] == 3


def test_what_it_refuses() -> None:
    made = world()
    with pytest.raises(ValueError, match=r"before reset\(\)"):
        made.step(scores(made))
    made.reset()
    with pytest.raises(ValueError, match=r"wanted floating point \[8, 32\]"):
        made.step(torch.zeros(8, 31))
    with pytest.raises(ValueError, match="NaN or infinity"):
        made.step(torch.full((8, 32), float("nan")))
    with pytest.raises(ValueError, match="after 0 of 3 passes"):
        made.loss()
    for _ in range(3):
        made.step(scores(made))
    with pytest.raises(ValueError, match="after the last of 3 passes"):
        made.step(scores(made))
    bare = cnn.Cnn(torch.nn.Identity(), [], cnn.MaximumHead(1.0), torch.nn.Linear(3, 10), 3)
    with pytest.raises(UsageError, match="the network has 0 convolutions"):
        FilterWorld(made.task, made.dataset, bare, batch_size=4)
    with pytest.raises(UsageError, match="no filters to weigh"):
        FilterWorld(find_task("ram-mnist"), made.dataset, made.network, batch_size=4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cnn": "smal"}, "did you mean 'small'"),
        ({"rule": "softmx"}, "did you mean 'softmax'"),
        ({"first": 6}, "small has 6 convolutions; wanted 0 to 5"),
        ({"cnn": "maxout", "first": 3}, "wanted 0 to 2"),
        ({"keep": 0.0}, "keep=0.0"),
        ({"boost": -1.0}, "boost=-1.0"),
        ({"strength": 6}, "strength=6: wanted 0 to 5"),
        ({"learns_from": "trainings"}, "did you mean 'training'"),
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GatingConfig(**wrong)
