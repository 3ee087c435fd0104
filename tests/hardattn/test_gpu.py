"""On a CUDA GPU alone: nothing waits for the device, and what comes out is what a processor gives. Replays: `test_recorded.py`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hardattn.agents.reinforce import Reinforce
from hardattn.cli import main
from hardattn.envs import datasets, glimpse
from hardattn.envs.canvases import Canvases
from hardattn.envs.errors import HardattnError
from hardattn.envs.tasks import CanvasConfig
from hardattn.experiment import build
from hardattn.making import make_vector_env
from hardattn.recorded import own_stream
from hardattn.train import Trainer, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

SMALL = ["batch_size=32", "episodes=384", "evaluations=2"]
KINDS = [
    ("ram-mnist", "reinforce", ["repeats=2", "dropout=0.1"]),
    ("ram-mnist", "reinforce", ["precision=fp32"]),
    ("ram-mnist", "ppo", []),
    ("ram-mnist", "pathwise", []),
    ("ram-translated60", "reinforce", []),
    ("ram-cluttered60", "reinforce", []),
    ("dram-pairs", "reinforce", []),
    ("catch", "ppo", []),
    ("dasnet-cue", "ppo", ["episodes=256"]),
]


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda name, split: load(name, split).take(torch.arange(400)))


@pytest.mark.usefixtures("few_digits")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # torch warns that the check is a prototype
@pytest.mark.parametrize(("task", "agent", "sets"), KINDS)
def test_an_update_waits_for_the_device_once_at_its_end(tmp_path: Path, task: str, agent: str, sets: list[str]) -> None:
    trainer = Trainer(build(task, agent, sets=[*SMALL, *sets, "recorded=off"], device="cuda"), tmp_path)
    with own_stream("cuda"):
        trainer._one_update()
        torch.cuda.set_sync_debug_mode("error")
        try:
            trainer._learn()
        finally:
            torch.cuda.set_sync_debug_mode("default")


class Asks(Reinforce):
    """Waits for the device in the midst of its update, which a recording cannot."""

    recordable = True

    def update(self, world: Any) -> dict[str, Tensor]:
        told = super().update(world)
        return {name: value * float(value) for name, value in told.items()}


@pytest.mark.usefixtures("few_digits")
def test_an_update_that_cannot_be_recorded_is_told_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardattn.plugins.agent_class", lambda name: Asks)
    with pytest.raises(HardattnError, match="--set recorded=off"):
        train(build("ram-mnist", "reinforce", sets=SMALL, device="cuda"), tmp_path / "on")
    train(build("ram-mnist", "reinforce", sets=[*SMALL, "recorded=off"], device="cuda"), tmp_path / "off")


def test_the_shipped_run_measures_as_on_a_processor(capsys: pytest.CaptureFixture[str]) -> None:
    errors = []
    for device in ("cpu", "cuda"):
        assert main(["evaluate", "ram-mnist", "--device", device, "--json"]) in (0, None)
        errors.append(json.loads(capsys.readouterr().out)["protocols"]["mean"]["error"])
    assert abs(errors[0] - errors[1]) <= 0.15


def test_glimpses_and_canvases_are_those_of_a_processor() -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (20, 1, 28, 28), generator=random, dtype=torch.uint8)
    where = torch.rand(20, 2, generator=random) * 2.4 - 1.2
    for cut in (glimpse.hard_glimpse, glimpse.soft_glimpse):
        assert torch.allclose(cut(images, where, 8, 3), cut(images.cuda(), where.cuda(), 8, 3).cpu(), atol=1e-5)
    digits = Canvases(datasets.mnist("test").to("cuda"), CanvasConfig(60, clutter=4))
    one, other = (digits.show(torch.arange(64, device="cuda"), torch.Generator("cuda").manual_seed(1)) for _ in range(2))
    assert torch.equal(one.images, other.images) and torch.equal(one.boxes, other.boxes)


@pytest.mark.parametrize(
    "words",
    [
        ["train", "ram-mnist", "--agent", "snes", "--set", "batch_size=400", "--set", "episodes=1600", "--set", "repeats=4"],
        ["train", "ram-mnist", "--agent", "snes", "--set", "strategy=evosax:PGPE", "--set", "episodes=6400"],
        ["train", "dasnet-cue", "--agent", "snes", "--set", "batch_size=400", "--set", "episodes=1600", "--set", "repeats=8"],
        ["train", "dasnet-cue", "--agent", "pathwise", "--set", "episodes=1280"],
        ["train", "ram-mnist", "--baseline", "stn", "--set", "episodes=1000"],
        ["train", "ram-cluttered60", "--baseline", "draw-reader", "--set", "episodes=1000"],
        ["pretrain", "ram-mnist", "--set", "episodes=1000"],
        ["evaluate", "dram-addition"],
    ],
)
def test_commands_end_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--device", "cuda"]) in (0, None)


def test_a_vector_environment_steps_on_it() -> None:
    env = make_vector_env(16, "ram-mnist", device="cuda", seed=0)
    env.reset(seed=0)
    for _ in range(7):
        step = env.step(env.action_space.sample())
    assert len(step[1]) == 16
