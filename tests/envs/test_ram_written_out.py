"""RAM's written-out gradient against autograd's, and where it takes its place."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hardattn.agents.base import collect
from hardattn.agents.fixed import Centre, Random
from hardattn.envs.cells import State
from hardattn.envs.datasets import Dataset
from hardattn.envs.glimpse_world import GlimpseWorld
from hardattn.envs.perception import RamPerception
from hardattn.envs.precision import MixedPrecision
from hardattn.envs.products import fused
from hardattn.envs.ram_written_out import WrittenOut, fits
from hardattn.envs.tasks import PerceptionConfig
from hardattn.testing import small_world

ROWS, CLASSES, LOOKS = 7, 5, 3
GLIMPSE = (2, 3, 4, 4)
KINDS: list[dict[str, Any]] = [{"core": "rnn"}, {"core": "lstm"}, {"core": "rnn", "dropout": 0.3}, {"core": "lstm", "dropout": 0.3}]
NARROW: dict[str, Any] = {"encoder_width": 6, "glimpse_width": 9, "core_width": 8}


def new_network(dtype: torch.dtype = torch.float64, **config: Any) -> RamPerception:
    torch.manual_seed(0)
    network = RamPerception(PerceptionConfig(**NARROW | config), GLIMPSE, CLASSES).to(dtype)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return network


def episode(network: Any, dtype: torch.dtype = torch.float64, looks: int = LOOKS) -> list[Tensor]:
    """The logits of each look at the same random glimpses, with the same dropout."""
    random = torch.Generator().manual_seed(1)
    state: State | None = None
    logits = []
    torch.manual_seed(2)
    for _ in range(looks):
        glimpse = torch.rand(ROWS, *GLIMPSE, generator=random, dtype=torch.float64).to(dtype)
        location = (torch.rand(ROWS, 2, generator=random, dtype=torch.float64) * 2 - 1).to(dtype)
        state = network.look(state, glimpse, location)
        logits.append(network.read(state))
    return logits


def gradients(network: RamPerception, logits: list[Tensor], last_alone: bool) -> list[Tensor]:
    """Of all weights, of a loss that reads every look or the last alone."""
    network.zero_grad()
    labels = torch.arange(ROWS) % CLASSES
    sum(F.cross_entropy(said, labels) for said in (logits[-1:] if last_alone else logits)).backward()  # type: ignore[union-attr]
    return [weight.grad.clone() for weight in network.parameters() if weight.grad is not None]


@pytest.mark.parametrize("at_once", [1, 2 * ROWS, 1024])
@pytest.mark.parametrize("last_alone", [False, True])
@pytest.mark.parametrize("config", KINDS)
def test_the_written_gradient_is_autograds(
    config: dict[str, Any], last_alone: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hardattn.envs.ram_written_out.ENCODED_AT_ONCE", at_once)
    network = new_network(**config)
    wanted_logits = episode(network)
    wanted = gradients(network, wanted_logits, last_alone)
    written = WrittenOut(network, torch.float64)
    written.refresh(learning=True)
    with torch.no_grad():
        logits = episode(written)
    torch.testing.assert_close(torch.stack(logits), torch.stack(wanted_logits).detach())
    got = gradients(network, written.connect(logits), last_alone)
    assert len(got) == len(wanted) == len(list(network.parameters()))
    for mine, autograds in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, autograds)
        assert autograds.abs().max() > 1e-4


@pytest.mark.parametrize("config", KINDS[:2])
def test_after_a_single_look_nothing_is_said_of_the_weights_on_h(config: dict[str, Any]) -> None:
    network = new_network(**config)
    wanted = gradients(network, episode(network, looks=1), last_alone=True)
    written = WrittenOut(network, torch.float64)
    written.refresh(learning=True)
    got = gradients(network, written.connect([said.detach() for said in episode(written, looks=1)]), last_alone=True)
    recurrent = {"core.weight_hh", "core.recurrent.weight"}
    named = [(name, slope) for (name, _), slope in zip(network.named_parameters(), got, strict=True)]
    assert sum(int(slope.abs().max() == 0) for name, slope in named if name in recurrent) == 1
    torch.testing.assert_close([slope for name, slope in named if name not in recurrent], wanted)


@pytest.mark.parametrize("config", KINDS[:2])
def test_bf16_strays_no_further_than_autocast_does(config: dict[str, Any]) -> None:
    exact = new_network(**config)
    wanted = gradients(exact, episode(exact), last_alone=False)
    errors = []
    for kind in (MixedPrecision, WrittenOut):
        network = new_network(torch.float32, **config)
        network.load_state_dict(exact.state_dict())
        see: Any = MixedPrecision(network, True, "cpu") if kind is MixedPrecision else WrittenOut(network)
        see.refresh(learning=True)
        if kind is MixedPrecision:
            with torch.autocast("cpu", torch.bfloat16):
                logits = episode(see.twin, torch.float32)
        else:
            logits = see.connect([said.float() for said in episode(see, torch.float32)])
        got = gradients(network, [said.float() for said in logits], last_alone=False)
        apart = torch.cat([(a - b).flatten() for a, b in zip(got, wanted, strict=True)])
        errors.append(float(apart.norm() / torch.cat([b.flatten() for b in wanted]).norm()))
    autocast, written = errors
    assert 1e-4 < written < max(1.5 * autocast, 0.02)


@pytest.mark.parametrize("config", KINDS)
def test_without_learning_nothing_is_kept_or_dropped(config: dict[str, Any]) -> None:
    network = new_network(**config)
    written = WrittenOut(network, torch.float64)
    written.refresh(learning=False)
    network.eval()
    torch.testing.assert_close(torch.stack(episode(written)), torch.stack(episode(network)))
    assert written.tape is None


def test_it_takes_the_weights_that_are_there_when_an_episode_begins() -> None:
    network = new_network(core="lstm")
    written = WrittenOut(network, torch.float64)
    written.refresh(learning=False)
    before = torch.stack(episode(written))
    with torch.no_grad():
        network.core.bias_hh.add_(1.0)
    assert torch.equal(torch.stack(episode(written)), before)
    network.classify = nn.Linear(NARROW["core_width"], CLASSES, dtype=torch.float64)
    written.refresh(learning=False)
    torch.testing.assert_close(torch.stack(episode(written)), torch.stack(episode(network)))
    assert not network.training


@pytest.mark.parametrize("targets", [1, 2])
def test_a_worlds_gradients_are_those_of_float32_but_for_rounding(targets: int) -> None:
    small = small_world(task={"num_glimpses": 4, "look_loss": 0.5, "reward": "correct"})
    task, data = dataclasses.replace(small.task, targets=targets), small.dataset
    assert isinstance(data, Dataset)
    if targets == 2:
        data = dataclasses.replace(data, labels=torch.stack([data.labels, data.labels.flip(0)], dim=1))
    slopes = []
    for precision in ("fp32", "bf16"):
        world = GlimpseWorld(task, data, copy.deepcopy(small.network), batch_size=8, learning=True, precision=precision)  # type: ignore[arg-type]
        collect(Centre(world.observation_space, world.action_space), world, indices=torch.arange(8))
        world.loss().backward()
        slopes.append(torch.cat([weight.grad.flatten() for weight in world.network.parameters() if weight.grad is not None]))
    assert not torch.equal(*slopes) and F.cosine_similarity(*slopes, dim=0) > 0.99


def test_backward_after_the_next_episodes_have_begun_is_refused() -> None:
    world = small_world(learning=True, precision="bf16")
    agent = Centre(world.observation_space, world.action_space)
    collect(agent, world)
    loss = world.loss()
    collect(agent, world)
    with pytest.raises(ValueError, match="take the gradient of loss"):
        loss.backward()
    world.loss().backward()
    assert all(weight.grad is not None for weight in world.network.parameters())


class Squints(RamPerception):
    """Looks in its own way."""


def test_it_knows_ram_alone_as_it_is_made() -> None:
    shape = (GLIMPSE, CLASSES)
    assert fits(RamPerception(PerceptionConfig(), *shape)) and fits(RamPerception(PerceptionConfig(core="rnn"), *shape))
    assert not fits(RamPerception(PerceptionConfig(encoder="conv"), *shape))
    assert not fits(Squints(PerceptionConfig(), *shape))
    changed = RamPerception(PerceptionConfig(), *shape)
    changed.encode_location.append(nn.Tanh())
    assert not fits(changed)
    watched, gated, replaced, bare, wild = (RamPerception(PerceptionConfig(), *shape) for _ in range(5))
    watched.core.register_forward_hook(lambda *_: None)
    gated.combine.register_full_backward_hook(lambda *_: None)
    replaced.read = lambda state: state[0]  # type: ignore[method-assign]
    bare.classify = nn.Linear(bare.features, CLASSES, bias=False)
    wild.dropout = nn.AlphaDropout(0.1)  # type: ignore[assignment]
    assert not any(map(fits, (watched, gated, replaced, bare, wild)))


@pytest.mark.parametrize("broken", ["encode_pixels.1.weight", "combine.bias", "core.weight_hh", "classify.weight"])
def test_weights_that_are_not_finite_are_heard(broken: str) -> None:
    """oneDNN's ReLU makes 0 of NaN."""
    world = small_world(learning=True, precision="bf16")
    agent = Centre(world.observation_space, world.action_space)
    collect(agent, world)
    assert world.loss().isfinite() and world.logits.isfinite().all()
    with torch.no_grad():
        world.network.get_parameter(broken).view(-1)[0] = float("nan")
    collect(agent, world)
    assert world.loss().isnan() and world.logits.isnan().all()


@pytest.mark.parametrize(
    ("changes", "written"),
    [
        ({"precision": "bf16"}, True),
        ({"precision": "fp32"}, False),
        ({"precision": "bf16", "stop": True}, False),
        ({"precision": "bf16", "attention": "soft"}, False),
    ],
)
def test_worlds_take_it_where_looks_have_no_gradient_and_all_are_taken(
    changes: dict[str, Any], written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hardattn.envs.glimpse_world.quick_in_float32", lambda: False)
    assert isinstance(small_world(**changes)._see, WrittenOut) is written


@pytest.mark.parametrize("core", ["rnn", "lstm"])
def test_in_float32_it_changes_nothing_but_rounding(core: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fused():
        pytest.skip("this torch has no fused layer, so that float32 is never written out")
    told, slopes = [], []
    for quick in (False, True):
        for module in ("glimpse_world", "products"):
            monkeypatch.setattr(f"hardattn.envs.{module}.quick_in_float32", lambda quick=quick: quick)
        world = small_world(task={"perception": PerceptionConfig(core=core, **NARROW), "look_loss": 0.5}, learning=True)
        assert isinstance(world._see, WrittenOut) is quick
        collect(Random(world.observation_space, world.action_space), world, indices=torch.arange(8))
        told.append(world.logits)
        world.loss().backward()
        slopes.append([weight.grad for weight in world.network.parameters()])
    torch.testing.assert_close(*told)
    torch.testing.assert_close(*slopes)
    assert min(float(slope.abs().max()) for slope in slopes[0] if slope is not None) > 1e-5


def test_a_network_in_float64_is_left_as_it_is() -> None:
    assert not fits(RamPerception(PerceptionConfig(), GLIMPSE, CLASSES).double())
