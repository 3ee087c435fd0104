"""The command line as a person meets it: a process of its own, in an empty folder."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hardattn import results
from hardattn.agents import AGENTS
from hardattn.envs.tasks import TASKS

Run = Callable[..., subprocess.CompletedProcess[str]]
SMALL = [part for text in ("episodes=2000", "core_width=16", "glimpse_width=16", "evaluations=2") for part in ("--set", text)]

LOOKER = """
import torch

class Looker:
    def __init__(self, observation_space, action_space, *, config=None, device="cpu", seed=0):
        self.width = action_space.shape[0]

    def begin(self, batch_size):
        return 0

    def act(self, observation, memory, greedy=False):
        return torch.full((len(observation), self.width), 0.1 * memory), memory + 1

    def update(self, world):
        observation, memory = world.reset(), self.begin(world.batch_size)
        for _ in range(world.horizon):
            action, memory = self.act(observation, memory)
            observation = world.step(action).observation
        return {}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass
"""


def test_help_imports_nothing_slow() -> None:
    slow = {"torch", "jax", "matplotlib", "scipy", "rich.progress"}  # gymnasium, where the tasks are registered, takes 0.1 s
    code = f"import sys, hardattn.cli; sys.exit(sorted({slow} & {{*sys.modules}}) or 0)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("command", ["", "list", "train", "evaluate", "show", "check", "bench", "report"])
def test_every_command_has_help(hardattn: Run, command: str) -> None:
    ended = hardattn(*command.split(), "--help")
    assert ended.returncode == 0 and "usage: hardattn" in ended.stdout


def test_list_tells_people_and_scripts(hardattn: Run) -> None:
    ended = hardattn("list")
    assert ended.returncode == 0 and "ram-mnist" in ended.stdout and "reinforce" in ended.stdout
    listed = json.loads(hardattn("list", "--json").stdout)
    assert [task["name"] for task in listed["tasks"]] == list(TASKS)
    assert [agent["name"] for agent in listed["agents"]] == list(AGENTS)


def test_list_shows_each_setting_with_its_sentence(hardattn: Run) -> None:
    for name, key in (("reinforce", "clip_norm"), ("ram-mnist", "num_glimpses")):
        ended = hardattn("list", name)
        assert ended.returncode == 0 and key in ended.stdout
    from hardattn.agents.reinforce import ReinforceConfig
    from hardattn.envs.tasks import PerceptionConfig, Task
    from hardattn.listing import field_docs
    from hardattn.settings import TrainSettings, settable

    for config in (ReinforceConfig, PerceptionConfig, Task, TrainSettings):
        assert set(settable(config)) <= field_docs(config).keys(), config


def test_train_show_evaluate_from_one_folder(hardattn: Run, tmp_path: Path) -> None:
    trained = hardattn("train", "ram-mnist", *SMALL)
    folder = "results/runs/ram-mnist/reinforce/seed-0"
    assert trained.returncode == 0, trained.stderr
    assert f"Files in {folder}. Next: hardattn show {folder}" in trained.stderr
    assert "mean policy" in trained.stdout and "control: random" in trained.stdout

    evaluated = hardattn("evaluate", folder, "--json")
    report, final = json.loads(evaluated.stdout), results.read_json(tmp_path / folder / results.FINAL)
    assert report["protocols"] == final["protocols"] and report["controls"] == final["controls"]
    assert set(report["protocols"]) == {"mean", "sampled", "paths10"} and set(report["controls"]) == {"random", "centre", "raster"}
    assert report["task"] == "ram-mnist" and report["agent"] == "reinforce"

    shown = hardattn("show", folder, "--count", "2")
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / folder / "paths.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / folder / "paths.gif").read_bytes().startswith(b"GIF8")

    listed = hardattn("list")
    assert folder in listed.stdout.replace("\n", "")
    twin = hardattn("list", "soft-glimpse")
    assert twin.returncode == 0 and "--agent pathwise" in twin.stderr


def test_the_shipped_weights_measure_as_recorded(hardattn: Run) -> None:
    report = json.loads(hardattn("evaluate", "ram-mnist", "--json").stdout)
    assert report["protocols"]["mean"]["error"] <= 0.80
    assert report["controls"]["random"]["error"] > 10


def test_a_class_from_the_current_folder_trains_and_is_named_again(hardattn: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LOOKER)
    assert hardattn("check", "mine:Looker").returncode == 0
    (tmp_path / "broken.py").write_text(LOOKER.replace("torch.full((len(observation), ", "torch.full((3 * len(observation), "))
    broken = hardattn("check", "broken:Looker")
    assert broken.returncode == 1 and "mend the first test that fails. Next: hardattn check broken:Looker" in broken.stderr
    trained = hardattn("train", "ram-mnist", "--agent", "mine:Looker", "--json", *SMALL)
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["agent"] == "mine:Looker"
    folder = "results/runs/ram-mnist/mine.Looker/seed-0"
    refused = hardattn("evaluate", folder)
    assert refused.returncode == 2 and "--agent mine:Looker" in refused.stderr
    assert hardattn("evaluate", folder, "--agent", "mine:Looker").returncode == 0
    other = hardattn("evaluate", folder, "--agent", "ppo")  # or its numbers would be taken for that agent's
    assert other.returncode == 2 and "agent is your own class mine:Looker" in other.stderr
    other = hardattn("evaluate", "ram-mnist", "--agent", "mine:Looker")
    assert other.returncode == 2 and "--agent mine:Looker: the agent of ram-mnist is reinforce; leave --agent out" in other.stderr


def test_the_next_command_can_be_typed_as_it_stands(hardattn: Run) -> None:
    trained = hardattn("train", "ram-mnist", "--agent", "centre", "--out", "my run", *SMALL)
    assert "Next: hardattn show 'my run'" in trained.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["trian"], 2, "no command is called 'trian'; did you mean 'train'?"),
        (["train", "ram-mnist", "--baseline", "soft-glimpse"], 2, "alone it is --agent pathwise"),
        (["train", "ram-mnist", "--set", "size=29"], 2, "size=29: images are 28 x 28 pixels; wanted no wider than that"),
        (["train", "dram-pairs", "--set", "context=101"], 2, "context=101: images are 100 x 100 pixels"),
        (["train", "ram-cluttered60", "--set", "mode=frozen"], 2, "is perception_from=ram-cluttered60"),
        (["train", "ram-mnist", "--set", "start_from=ram-mnist", "--set", "encoder=fc"], 2, "add --set perception.encoder=conv"),
        (["train", "ram-translated60", "--set", "start_from=ram-mnist"], 2, "are of ram-mnist, and do not fit ram-translated60"),
        (["pretrain", "dasnet-cifar10", "--set", "first=1"], 2, "--set first: the network learns without gains"),
        (["train", "ram-mnits"], 2, "no task is called 'ram-mnits'; did you mean 'ram-mnist'?"),
        (["train", "ram-mnist", "--agent", "reinforse"], 2, "did you mean 'reinforce'?"),
        (["train", "ram-mnist", "--agent", "nowhere:Agent"], 2, "there is no module 'nowhere'"),
        (["train", "ram-mnist", "--agent", "collections:OrderedDict"], 2, "lacks begin(batch_size) -> memory"),
        (["train", "ram-mnist", "--agent", "collections:OrderedDct"], 2, "did you mean 'OrderedDict'?"),
        (["train", "ram-mnist", "--agent", "json:dumps"], 2, "wanted a class"),
        (["train", "ram-mnist", "--preset", "bset"], 2, "did you mean 'best'?"),
        (["train", "ram-mnist", "--set", "stdd=1"], 2, "did you mean 'std'?"),
        (["train", "ram-mnist", "--set", "std=big"], 2, "wanted a number"),
        (["train", "ram-mnist", "--set", "std=-1"], 2, "std=-1.0: wanted more than 0"),
        (["train", "ram-mnist", "--device", "cuda:77"], 2, "--device"),
        (["train", "ram-mnist", "--device", "abacus"], 2, "torch knows no such device"),
        (["train", "ram-mnist", "--out", "/proc/here", *SMALL], 1, "choose another folder with --out"),
        (["evaluate", "results/runs/nothing"], 2, "there is no folder results/runs/nothing"),
        (["evaluate", "ram-mnis"], 2, "did you mean 'ram-mnist'?"),
        (["evaluate", "."], 2, "is no run folder"),
        (["evaluate", "ram-mnist", "--split", "tset"], 2, "did you mean 'test'?"),
        (["show", "ram-mnist", "--count", "0"], 2, "wanted 1 to 40"),
        (["show", "ram-mnist", "--first", "10000"], 2, "numbered from 0"),
        (["check", "mine:Looker"], 2, "there is no module 'mine'"),
        (["bench", "ram-mnits"], 2, "did you mean 'ram-mnist'?"),
        (["train", "ram-mnist", "--out", ""], 2, "--out: got nothing, wanted a path"),
        (["compare", "ram-mnist", "--out="], 2, "--out: got nothing, wanted a path"),
        (["report", "ram-mnist", "-o", ""], 2, "--out: got nothing, wanted a path"),
        (["list", "reinforse"], 2, "did you mean 'reinforce'?"),
    ],
)
def test_a_mistake_gets_a_line_and_a_status_but_no_traceback(hardattn: Run, arguments: list[str], status: int, words: str) -> None:
    ended = hardattn(*arguments)
    assert ended.returncode == status, ended.stderr
    said = " ".join((ended.stdout + ended.stderr).split())
    assert words in said and "Traceback" not in said


def test_damaged_runs_are_named(hardattn: Run, tmp_path: Path) -> None:
    assert hardattn("train", "ram-mnist", "--out", "run", *SMALL).returncode == 0
    (tmp_path / "run" / results.CHECKPOINT).write_bytes(b"gone")
    ended = hardattn("evaluate", "run")
    assert ended.returncode == 1 and "checkpoint.safetensors is damaged" in ended.stderr
    (tmp_path / "run" / results.CHECKPOINT).unlink()
    ended = hardattn("evaluate", "run")
    assert ended.returncode == 1 and "has no checkpoint.safetensors yet" in ended.stderr
    (tmp_path / "run" / results.CONFIG).write_text('{"task": {}}')
    ended = hardattn("evaluate", "run")
    assert ended.returncode == 1 and "run/config.json does not fit" in ended.stderr
    (tmp_path / "run" / results.CONFIG).write_text("")
    ended = hardattn("train", "ram-mnist", "--out", "run", *SMALL)
    assert ended.returncode == 2 and "restore it, or choose another folder with --out" in ended.stderr
    (tmp_path / "run" / results.CONFIG).unlink()
    ended = hardattn("train", "ram-mnist", "--out", "run", *SMALL)
    assert ended.returncode == 2 and "holds curve.jsonl of a run and no config.json" in ended.stderr


def test_pretrain_makes_a_perception_that_frozen_training_takes(hardattn: Run, tmp_path: Path) -> None:
    ended = hardattn("pretrain", "ram-mnist", *SMALL)
    assert ended.returncode == 0, ended.stderr
    folder = "results/runs/ram-mnist/pretrain/seed-0"
    assert "control: centre" in ended.stdout
    assert f"Next: hardattn train ram-mnist --set mode=frozen --set perception_from={folder}" in ended.stderr
    ended = hardattn("train", "ram-mnist", "--agent", "ppo", "--set", "mode=frozen", "--set", f"perception_from={folder}", "--json",
                     "--set", "episodes=600", "--set", "batch_size=100")  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    runs = (folder, "results/runs/ram-mnist/ppo/seed-0")
    hashes = [results.read_json(tmp_path / run / results.FINAL)["perception_sha256"] for run in runs]
    assert hashes[0] == hashes[1]


def test_a_refused_command_does_not_occupy_its_folder(hardattn: Run, tmp_path: Path) -> None:
    refused = hardattn("train", "ram-mnist", "--out", "run", *SMALL, "--set", "batch_size=60000")
    assert refused.returncode == 2 and "wanted no more" in refused.stderr
    refused = hardattn("train", "ram-mnist", "--agent", "oracle", "--out", "run", *SMALL)
    assert refused.returncode == 2 and "true boxes are unknown" in refused.stderr
    assert not (tmp_path / "run").exists()
    assert hardattn("train", "ram-mnist", "--out", "run", *SMALL).returncode == 0


def test_nobody_runs_a_file_for_its_name_alone(hardattn: Run, tmp_path: Path) -> None:
    """A folder that holds a module named like a library does not get it imported by commands that name no code in it."""
    (tmp_path / "matplotlib.py").write_text("raise SystemExit(99)")
    ended = subprocess.run(
        [str(Path(sys.executable).with_name("hardattn")), "show", "ram-mnist", "--count", "1"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip  # the console script: python -m would search the folder by itself
    assert ended.returncode == 0, ended.stderr


def test_pretraining_repeats_what_is_shown(hardattn: Run) -> None:
    ended = hardattn("pretrain", "ram-mnist", *SMALL, "--set", "num_glimpses=3", "--out", "pre")
    assert "--set perception_from=pre --set num_glimpses=3" in ended.stderr and "core_width" not in ended.stderr


def test_bench_prints_its_table_and_writes_json(hardattn: Run, tmp_path: Path) -> None:
    ended = hardattn("bench", "ram-mnist", "--batch-sizes", "32", "--seconds", "0.5", "--out", "bench.json")
    assert ended.returncode == 0, ended.stderr
    table = results.read_json(tmp_path / "bench.json")
    ours = [row for row in table["rows"] if row["method"] == "hardattn"]
    assert ours and all(row["rollout"] > row["perception"] > row["training"] > 0 for row in ours)
