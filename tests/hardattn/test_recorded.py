"""What is recorded and replayed equals what runs from Python, to the bit: on a CPU, and where there is one on a CUDA GPU."""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hardattn import results
from hardattn.agents.rates import set_rate
from hardattn.envs import datasets
from hardattn.envs.errors import HardattnError
from hardattn.experiment import build
from hardattn.recorded import WARM_UP, Recorded, own_stream
from hardattn.train import Trainer, train
from hardattn.written_down import WritingDown

GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"))
DEVICES = pytest.mark.parametrize("device", ["cpu", GPU])

SMALL = ["batch_size=32", "episodes=384", "evaluations=2"]
KINDS = [
    ("ram-mnist", "reinforce", ["repeats=2", "dropout=0.1"]),
    ("ram-mnist", "reinforce", ["precision=fp32"]),
    ("ram-mnist", "reinforce", ["precision=bf16", "perception.core=rnn"]),
    ("ram-mnist", "reinforce", ["perception.encoder=conv", "precision=bf16"]),
    ("ram-mnist", "reinforce", ["agent.policy=lstm", "task.context=8"]),
    ("ram-mnist", "ppo", []),
    ("ram-mnist", "pathwise", []),
    ("ram-mnist", "random", []),
    ("ram-translated60", "reinforce", []),
    ("ram-cluttered60", "reinforce", ["augment=0.2"]),
    ("dram-pairs", "reinforce", []),
    ("dram-pairs", "reinforce", ["spread=0"]),
    ("catch", "ppo", []),
    ("dasnet-cue", "ppo", ["episodes=256"]),
]


@pytest.fixture(autouse=True)
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda name, split: load(name, split).take(torch.arange(400)))


def flat(node: Any) -> list[Tensor]:
    if isinstance(node, Tensor):
        return [node.cpu()]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else []
    return [tensor for child in children for tensor in flat(child)]


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(flat(one), flat(other), strict=True))


@DEVICES
@pytest.mark.parametrize(("task", "agent", "sets"), KINDS)
def test_replayed_equals_run_from_python(tmp_path: Path, device: str, task: str, agent: str, sets: list[str]) -> None:
    ends = []
    for recorded in (True, False):
        setup = build(task, agent, sets=[*SMALL, *sets, f"recorded={recorded}"], device=device)
        trainer = Trainer(setup, tmp_path)
        with own_stream(device):
            told = [trainer._one_update() for _ in range(WARM_UP + 4)]
        if recorded and (device == "cuda" or not getattr(trainer.world, "spread", 0)):  # what changes from call to call is not
            assert trainer.recorded and (trainer.recorded.graph or trainer.recorded.program), trainer.recorded.refused
        ends.append((told, [part.state_dict() for part in (trainer.perception, trainer.agent, trainer.world)]))
    assert ends[0][0] == ends[1][0]
    assert same(ends[0][1], ends[1][1])


@DEVICES
def test_each_phase_is_recorded_anew(tmp_path: Path, device: str) -> None:
    ends = []
    for recorded in ("on", "off"):
        sets = [*SMALL, "episodes=1024", "mode=staged", "frozen_share=0.3", f"recorded={recorded}"]
        train(build("ram-mnist", "reinforce", sets=sets, device=device), tmp_path / recorded)
        ends.append(results.read_state(tmp_path / recorded / results.CHECKPOINT))
        ends[-1]["progress"] = []
    assert same(*ends)


@DEVICES
def test_resumed_equals_uninterrupted(tmp_path: Path, device: str) -> None:
    """Killed among the replays and resumed, which begins with updates from Python."""

    class StopAt(Exception):
        """Stands in for a kill."""

    def killed(progress: Any) -> None:
        if progress.episodes == 32 * 8:
            raise StopAt

    setup = build("ram-cluttered60", "reinforce", sets=[*SMALL, "spread=0", "evaluations=4"], device=device)
    train(setup, tmp_path / "whole")
    with pytest.raises(StopAt):
        train(setup, tmp_path / "parts", watch=killed)
    train(setup, tmp_path / "parts", resume=True)
    whole, parts = (results.read_state(tmp_path / name / results.CHECKPOINT) for name in ("whole", "parts"))
    whole["progress"] = parts["progress"] = []
    assert same(whole, parts)


def replayed(update: Callable[[], dict[str, Any]]) -> Recorded:
    """The update, recorded on a CPU and replayed once."""
    recorded = Recorded(update, [], "cpu")
    for _ in range(WARM_UP + 2):
        recorded()
    return recorded


def test_a_replay_repeats_what_was_done_and_nothing_that_python_decided() -> None:
    total, rounds = torch.zeros(3), []

    def update() -> dict[str, Any]:
        rounds.append(0)
        total[1:].add_(1)
        return {"sum": total.sum(), "rounds": len(rounds), "same": 2.5}

    recorded = replayed(update)
    assert recorded.program
    assert total.tolist() == [0, WARM_UP + 2, WARM_UP + 2]
    assert len(rounds) == WARM_UP + 1
    told = recorded()
    assert (float(told["sum"]), told["rounds"], told["same"]) == (2 * (WARM_UP + 3), WARM_UP + 1, 2.5)


def test_what_an_update_forgets_is_not_kept_alive_while_it_is_recorded() -> None:
    numbers, total = torch.ones(3), torch.zeros(3)
    with WritingDown() as writing:
        forgotten = weakref.ref(numbers * 2)
        assert forgotten() is None  # else a gradient would be copied, as one that others hold
        for step in range(9):  # what comes to lie where this lay is not taken for it
            total = total + (numbers + step)
        told = {"total": total.sum()}
    program = writing.program(told)
    assert program
    numbers.add_(1)
    assert (float(told["total"]), float(program()["total"])) == (3 * (9 + 36), 3 * (18 + 36))


def test_bits_read_as_another_type_are_still_the_same_memory() -> None:
    numbers = torch.tensor([1.0, -1.0], dtype=torch.bfloat16)

    def update() -> dict[str, Any]:
        numbers.neg_()
        whole = (numbers + 0).view(torch.int16)
        return {"sign": whole.lt(0).sum(), "most": whole.max()}

    recorded = replayed(update)
    assert recorded.program
    for _ in range(2):
        numbers.mul_(2)
        before = numbers.clone()
        told = recorded()
        assert torch.equal(numbers, -before)
        assert int(told["sign"]) == 1 and int(told["most"]) == int(numbers.view(torch.int16).max())


def test_a_recorded_step_takes_the_rate_of_its_replay() -> None:
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([weight], fused=True)

    def update() -> dict[str, Any]:
        set_rate(optimizer, rate)  # as an agent's own schedule() does inside update()
        optimizer.zero_grad()
        weight.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return {}

    rate = 0.5
    recorded = replayed(update)
    assert recorded.program
    before = weight.item()
    set_rate(optimizer, 0.125)
    recorded()
    assert before - weight.item() == pytest.approx(0.125, rel=1e-3)


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda x: x.sum().item(), "it reads a number off the device"),
        (lambda x: bool(x.isnan().any()), "it reads a number off the device"),
        (lambda x: torch.equal(x, x), "it reads a number off the device"),
        (lambda x: (x * 1).unsqueeze_(0), "another shape in place"),
        (lambda x: x.view(torch.int16), "another width"),
        (lambda x: x.view(torch.int32).add_(0), "it writes where memory was read as another type"),
        (lambda x: ((x + 1).view(torch.int32), x.add_(0), (y := x + 1).view(torch.int32), y.add_(1)), "memory was read as another"),
        (lambda x: nn.functional.one_hot(x.long()), "it reads a number off the device"),
    ],
)
def test_what_cannot_be_written_down_runs_from_python(ask: Callable[[Tensor], Any], told: str) -> None:
    x = torch.ones(4)

    def update() -> dict[str, Any]:
        x.add_(1)
        ask(x)
        return {"sum": x.sum()}

    recorded = replayed(update)
    assert recorded.program is None and told in recorded.refused
    assert float(recorded()["sum"]) == 4 * (1 + WARM_UP + 3)


def test_what_a_replay_stumbles_over_is_told_by_the_update_itself(tmp_path: Path) -> None:
    """A NaN among perception's weights reaches the agent's action first, and neither learns from it."""
    trainer = Trainer(build("ram-mnist", "reinforce", sets=SMALL, device="cpu"), tmp_path)
    for _ in range(WARM_UP + 2):
        trainer._one_update()
    assert trainer.recorded and trainer.recorded.program
    with torch.no_grad():
        trainer.perception.core.weight_hh[0, 0] = float("nan")
    before = [weight.clone() for weight in trainer.agent.parameters]
    with pytest.raises(HardattnError, match=r"perception's logits became NaN or infinite at update 6; .*train.learning_rate"):
        trainer._one_update()
    assert same(before, trainer.agent.parameters)
