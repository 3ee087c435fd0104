"""A task of one's own, from a module in the current folder: trained, measured, named again; and agents of installed packages."""

import importlib.metadata
import json
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hardattn import cli, experiment, loading, plugins, results
from hardattn.envs.errors import UsageError
from hardattn.envs.tasks import PerceptionConfig, Task, find_task

Run = Callable[..., subprocess.CompletedProcess[str]]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "your-own-task.md"
SETS = ["episodes=400", "batch_size=50", "evaluations=1", "core_width=16", "glimpse_width=16", "encoder_width=16"]
SMALL = [part for text in SETS for part in ("--set", text)]
FOLDER = "results/runs/stripes/reinforce/seed-0"

STRIPES = """
import numpy as np
from hardattn.envs.tasks import Task

def load(split):
    labels = np.arange(60) % 2
    images = np.zeros((60, 12, 12, 3), np.uint8)
    images[labels == 0, ::3] = 255
    images[labels == 1, :, ::3] = 200
    return images, labels

def other(split):
    return load(split)

TASK = Task(name="stripes", summary="lying or standing stripes", dataset="mine:load", size=4, num_glimpses=2)
OTHER = Task(name="others", summary="the same by another name", dataset="mine:other")
ON_MNIST = Task(name="far-digits", summary="digits in two looks", num_glimpses=2)
PATH_NAME = Task(name="../stripes", summary="")
TAKEN_NAME = Task(name="ram-mnist", summary="")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, whose modules are gone from this process when the test is over."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(file.stem, None)


@pytest.fixture
def mine(here: Path) -> Path:
    (here / "mine.py").write_text(STRIPES)
    return here


Say = Callable[..., str]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command in this process; all it printed, as one line."""

    def run(*arguments: str, status: int = 0) -> str:
        ended = 0
        try:
            cli.main([*arguments])
        except SystemExit as error:
            ended = error.code
        written = capsys.readouterr()
        assert ended == status, written.err
        return " ".join((written.out + written.err).split())

    return run


def test_a_person_trains_and_measures_it(hardattn: Run, say: Say, mine: Path) -> None:
    trained = hardattn("train", "--task", "mine:TASK", *SMALL)
    assert trained.returncode == 0, trained.stderr
    assert f"Files in {FOLDER}. Next: hardattn show {FOLDER} --task mine:TASK" in trained.stderr

    assert "with --task module:NAME, or the function itself with --task mine:load" in say("evaluate", FOLDER, status=2)
    final = results.read_json(mine / FOLDER / results.FINAL)
    for named in ("mine:TASK", "mine:load"):
        assert json.loads(say("evaluate", FOLDER, "--task", named, "--json"))["protocols"] == final["protocols"]
    assert f"Next: hardattn show {FOLDER} --task mine:load" in say("report", FOLDER)  # which needs no code for a finished run
    refused = say("evaluate", FOLDER, "--task", "mine:OTHER", status=2)
    assert "--task mine:OTHER: it shows mine:other, this run was trained on mine:load" in refused
    shown = say("show", FOLDER, "--task", "mine:TASK", "--count", "1")
    assert f"Next: hardattn evaluate {FOLDER} --task mine:TASK" in shown


def test_it_is_listed_and_timed_like_ours(say: Say, mine: Path) -> None:
    listed = say("list", "mine:TASK")
    assert "mine:load" in listed and "hardattn train mine:TASK" in listed
    assert '"task": "mine:TASK"' in say("bench", "--batch-sizes", "20", "--seconds", "0.05", "--task=mine:TASK", "--json")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "mine:TSK"], "no name in mine is called 'TSK'; did you mean 'TASK'?"),
        (["train", "mine:load"], "task mine:load: it is a function, wanted a hardattn.envs.tasks.Task"),
        (["train", "mine:PATH_NAME"], "its name is '../stripes'; wanted letters, digits and dashes"),
        (["train", "mine:TAKEN_NAME"], "its name is 'ram-mnist', as one of hardattn's own; wanted another"),
        (["train", "mine:TASK", "--preset", "best"], "no preset is called 'best'; known: default."),
        (["train", "mine:TASK", "--set", "batch_size=61"], "batch_size=61: the data set has 60 images; wanted no more"),
        (["train", "ram-mnist", "--task", "mine:TASK"], "ram-mnist"),
        (["train", "--task"], "task"),
        (["bench", "nowhere:TASK"], "there is no module 'nowhere'"),
        (["evaluate", "mine:TASK"], "no weights ship for mine:TASK; name the folder of a run"),
        (["list", "mine:TSK"], "did you mean 'TASK'?"),
    ],
)
def test_a_mistake_is_one_line(say: Say, mine: Path, arguments: list[str], words: str) -> None:
    assert words in say(*arguments, status=2)


def test_the_task_is_named_before_or_after_its_options() -> None:
    wanted = ["train", "mine:TASK", "--seed", "1"]
    for typed in ("train --task mine:TASK --seed 1", "train --seed 1 --task mine:TASK", "train --seed 1 --task=mine:TASK"):
        assert cli._task_in_its_place(typed.split()) == wanted
    kept = ["evaluate", "run", "--task", "mine:TASK"]  # not a command whose task is a positional
    assert cli._task_in_its_place(kept) == kept


def test_a_file_alone_imports_no_code(here: Path) -> None:
    name = f"trap_{uuid.uuid4().hex}"
    (here / f"{name}.py").write_text("from pathlib import Path\nPath('sprung').touch()\ndef load(split): ...")
    setup = experiment.build("ram-mnist", "reinforce", sets=[f"dataset={name}:load"], device="cpu")
    results.write_json(here / "run" / results.CONFIG, experiment.to_json(setup))
    for task in (None, "ram-mnist"):
        with pytest.raises(UsageError, match="--task"):
            loading.open_run("run", task=task)
    assert not Path("sprung").exists()
    assert experiment.from_json(experiment.to_json(setup), task=f"{name}:load").task == setup.task


def test_a_task_on_our_own_data_need_not_be_named_again(mine: Path) -> None:
    for name in ("mine:ON_MNIST", "ram-mnist"):
        setup = experiment.build(name, "reinforce", device="cpu")
        saved = json.loads(json.dumps(experiment.to_json(setup)))
        for task in (None, "ram-mnist", "mine:ON_MNIST"):
            assert experiment.from_json(saved, task=task).task == setup.task
    assert find_task("mine:ON_MNIST").perception == PerceptionConfig()


# Agents of installed packages


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package is installed that declares the agents `calm` and `broken`."""

    def entry_points(*, group: str) -> list[importlib.metadata.EntryPoint]:
        values = {"calm": "hardattn.agents.fixed:Centre", "broken": "collections:OrderedDict", "module": "collections"}
        return [importlib.metadata.EntryPoint(name, value, group) for name, value in values.items() if group == "hardattn.agents"]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)


def test_an_installed_packages_agent_goes_by_its_name(entries: None, say: Say) -> None:
    from hardattn.agents.fixed import Centre

    assert plugins.agent_class("calm") is Centre
    setup = experiment.build("ram-mnist", "calm", device="cpu")
    saved = json.loads(json.dumps(experiment.to_json(setup)))
    assert experiment.from_json(saved, agent="calm").agent == "calm"
    with pytest.raises(UsageError, match="name it again with --agent calm"):  # a file alone imports no package
        experiment.from_json(saved)
    assert "calm" in say("list") and "calm has no settings" in say("list", "calm")


@pytest.mark.parametrize(
    ("name", "words"), [("clam", "did you mean 'calm'"), ("broken", "lacks begin"), ("module", "no agent is called 'module'")]
)
def test_what_is_wrong_with_it_is_one_line(entries: None, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plugins.agent_class(name)


# The page that tells of all this


def test_the_page_works_as_it_stands(here: Path, say: Say) -> None:
    page = PAGE.read_text()
    codes = dict(zip(re.findall(r"`(\w+\.py)`", page), re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL), strict=False))
    assert list(codes) == ["shapes.py", "paint.py", "painted.py"]
    for file, code in codes.items():
        Path(file).write_text(code)
    exec(compile(codes["paint.py"], "paint.py", "exec"), {})
    for task in ("shapes:TASK", "painted:TASK"):
        assert f"hardattn train {task}" in page and isinstance(find_task(task), Task)
        assert "Next: hardattn show" in say("train", task, *SMALL)
