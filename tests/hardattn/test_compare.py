"""The comparison: worked numbers in its table, what it refuses by name, and a whole one from nothing to files."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hardattn import compare, experiment, pool, results, rows, study, table
from hardattn.compare import Comparison, Wanted
from hardattn.envs import datasets, task_data
from hardattn.envs.errors import HardattnError, UsageError
from hardattn.envs.tasks import TASKS
from hardattn.rows import read as rows_of

FEW = """
from hardattn.envs import datasets
from hardattn.envs.tasks import Task

def load(split):
    digits = datasets.load("mnist", split)
    return digits.images[:300].numpy(), digits.labels[:300].numpy()

TASK = Task(name="few-digits", summary="a few digits", dataset="mine:load")
"""
SMALL = ["batch_size=50", "evaluations=2", "reinforce:core_width=8", "reinforce:glimpse_width=8", "reinforce:encoder_width=8"]


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process the data set is its first 400 digits of each split."""
    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda name, split: load(name, split).take(torch.arange(400)))


def asked(root: Path, **changes: Any) -> Comparison:
    """reinforce and cnn on ram-mnist, with 1,000 images each."""
    return replace(Comparison("ram-mnist", ["reinforce"], ["cnn"], root=root, budget=1000, device="cpu"), **changes)


def planned(root: Path, *, seeds: int = 1, **changes: Any) -> list[Wanted]:
    """reinforce and cnn with their controls, in `root`."""
    return compare.plan(asked(root, seeds=seeds, **changes))


def finish(one: Wanted, missed: int, **changes: Any) -> None:
    """A run folder as training leaves it: `missed` of 400 test images wrong, the first ones, each told with 60 %."""
    test = task_data.fixed_data(one.setup.task, "test")
    wrong = torch.arange(len(test)) < missed
    said = torch.where(wrong, (test.labels + 1) % 10, test.labels)
    probabilities = torch.full((len(test), 10), 0.4 / 9).scatter(1, said[:, None], 0.6)
    results.write_json(one.folder / results.CONFIG, experiment.to_json(one.setup))
    results.write_state(one.folder / results.PREDICTIONS, {"probabilities": probabilities, "wrong": wrong})
    for seconds, error in ((10.0, 60.0), (20.0, 15.0), (30.0, 5.0)):
        results.append_line(
            one.folder / results.CURVE, {"update": 1, "episodes": 500, "seconds": seconds, "validation_error": error}
        )
    final = {
        "test_sha256": test.sha256(), "protocols": {"mean": {"error": 100 * missed / len(test)}}, "processed_pixels": 384,
        "unique_pixels": 300, "flops_per_image": 2e6, "parameters": 1000, "seconds": 30.0, "episodes": 1000,
    }  # fmt: skip
    results.write_json(one.folder / results.FINAL, final | changes)


def finish_all(wanted: list[Wanted]) -> None:
    """reinforce misses 20 of 400 images, all others 40."""
    for one in wanted:
        finish(one, 20 if one.name == "reinforce" else 40)


def test_the_controls_are_always_there(tmp_path: Path) -> None:
    assert [(one.name, one.kind) for one in planned(tmp_path)] == [
        ("reinforce", "agent"), ("cnn", "baseline"), ("random", "control"), ("centre", "control"), ("cnn-small", "control"),
    ]  # fmt: skip
    assert compare.controls_of(TASKS["ram-cluttered60"]) == ["random", "centre", "oracle", "cnn-small"]
    assert compare.controls_of(TASKS["dasnet-cifar10"]) == ["centre", "random"]
    assert compare.controls_of(TASKS["dram-pairs"])[-1] == "cnn-small"
    assert compare.controls_of(TASKS["catch"]) == ["random", "centre"]  # nothing tells an oracle where to look


def test_names_are_checked_and_soft_glimpse_is_the_differentiable_agent() -> None:
    assert compare.agents_and_baselines("reinforce, ppo", "cnn,soft-glimpse") == (["reinforce", "ppo", "pathwise"], ["cnn"])
    with pytest.raises(UsageError, match="did you mean 'reinforce'"):
        compare.agents_and_baselines("reinforc", "")
    with pytest.raises(UsageError, match="did you mean 'stn'"):
        compare.agents_and_baselines("", "stm")


def test_a_setting_may_be_for_one_method_alone(tmp_path: Path) -> None:
    wanted = {one.name: one for one in planned(tmp_path, sets=["reinforce:std=0.05", "augment=0.3", "num_glimpses=3"])}
    assert wanted["reinforce"].setup.agent_config.std == 0.05
    assert {one.setup.task.num_glimpses for one in wanted.values()} == {3}
    assert all(one.command.endswith("--device cpu") or "--device cpu --out" in one.command for one in wanted.values())
    assert "std=0.05" in wanted["reinforce"].command and "std=0.05" not in wanted["cnn"].command
    with pytest.raises(UsageError, match="ppo is not compared"):
        planned(tmp_path, sets=["ppo:std=0.1"])


def test_a_setting_reaches_every_method_that_has_it_and_is_refused_if_none_has(tmp_path: Path) -> None:
    """A policy has a std, a CNN none; a baseline shows no image twice, so `repeats` is the policies' alone."""
    wanted = {one.name: one for one in planned(tmp_path, sets=["std=0.05", "width=2", "repeats=2"])}
    assert wanted["reinforce"].setup.agent_config.std == 0.05 and wanted["reinforce"].setup.train.repeats == 2
    assert wanted["cnn"].setup.agent_config.width == wanted["cnn-small"].setup.agent_config.width == 2
    assert "std" not in wanted["cnn"].command and "width" not in wanted["reinforce"].command
    with pytest.raises(UsageError, match="--set lenght: no setting"):
        planned(tmp_path, sets=["lenght=2"])
    with pytest.raises(UsageError, match="wanted a number"):
        planned(tmp_path, sets=["std=much"])


def test_what_would_be_refused_after_training_is_refused_before(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave start_from and --preset further or finish out"):
        planned(tmp_path, task="ram-cluttered60", preset="finish")
    with pytest.raises(UsageError, match="leave start_from"):
        planned(tmp_path, sets=["reinforce:start_from=ram-mnist"])
    with pytest.raises(
        UsageError, match=r"other images \(reinforce: dataset=mnist-cue corruption=noise .*; se: dataset=mnist-cue corruption=none"
    ):
        planned(tmp_path, task="dasnet-cue", baselines=["se"], sets=["corruption=noise"])


def test_an_agent_with_a_colon_in_its_name_has_settings_of_its_own(tmp_path: Path) -> None:
    pair = {one.name: one for one in planned(tmp_path, agents=["sb3:PPO", "sb3:A2C"], sets=["sb3:PPO:agent.learning_rate=0.5"])}
    assert "agent.learning_rate=0.5" in pair["sb3:PPO"].command and "agent.learning_rate" not in pair["sb3:A2C"].command


def test_uneven_budgets_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"budgets differ .*cnn 2,000.*--budget"):
        compare.plan(asked(tmp_path, sets=["cnn:episodes=2000"], budget=0))
    with pytest.raises(UsageError, match=r"in whole batches budgets differ \(reinforce 2,560, snes 3,200"):
        compare.plan(asked(tmp_path, agents=["reinforce", "snes"], budget=3000))
    compare.plan(asked(tmp_path, agents=["reinforce", "snes"], budget=960_000))
    for nothing in ([], ["random"]):
        with pytest.raises(UsageError, match="no agent and no baseline"):
            compare.plan(asked(tmp_path, agents=nothing, baselines=[]))
    with pytest.raises(UsageError, match="wanted 1 or more"):
        planned(tmp_path, seeds=0)


@pytest.mark.usefixtures("few_digits")
def test_the_rows_against_worked_numbers(tmp_path: Path) -> None:
    """20 of 400 is 5 %, 40 is 10 %: 20 more, all on one side, so McNemar's p is 2 / 2^20, times 4 after Holm's correction."""
    wanted = planned(tmp_path)
    finish_all(wanted)
    with open(wanted[1].folder / results.CURVE, "a") as curve:
        curve.write('{"update": 3, "epi\n{"update": 4}\n')  # torn, and no point of a curve
    rows = {row.name: row for row in rows_of(wanted)}
    assert rows["reinforce"].errors == [5.0] and rows["reinforce"].difference == [] and rows["reinforce"].p is None
    assert rows["cnn"].errors == [10.0] and rows["cnn"].difference[0] == pytest.approx(5)
    assert rows["cnn"].difference[1] > 2 and rows["cnn"].difference[2] < 8
    assert rows["cnn"].p == pytest.approx(4 * 2 / 2**20)
    assert rows["cnn"].log_loss == pytest.approx(-(0.9 * np.log(0.6) + 0.1 * np.log(0.4 / 9)), rel=1e-4)
    assert rows["cnn"].calibration_error == pytest.approx(0.3, abs=1e-5)
    assert rows["cnn"].seconds_to == {"50": 20.0, "20": 20.0, "10": 30.0, "5": 30.0, "2": None, "1": None}
    assert (rows["cnn"].spoiled, rows["reinforce"].spoiled) == (2, 0)
    text = table.markdown(list(rows.values()))
    assert "2 line(s) of learning curves could not be read" in text
    assert text.index("| reinforce |") < text.index("| cnn |") < text.index("| control: ")


@pytest.mark.usefixtures("few_digits")
def test_what_is_missing_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    wanted = planned(tmp_path, seeds=2)
    with pytest.raises(
        HardattnError, match=r"no finished run of reinforce .*\(and 9 more\).*hardattn train ram-mnist --agent reinforce"
    ):
        rows_of(wanted)
    finish_all(wanted)
    (wanted[-1].folder / results.FINAL).unlink()
    with pytest.raises(HardattnError, match=r"no finished run of cnn-small .*seed-1; .*--baseline cnn-small .*--seed 1"):
        rows_of(wanted)
    with pytest.raises(UsageError, match="--reference stn: it is not compared"):
        rows_of(wanted, "stn")


@pytest.mark.usefixtures("few_digits")
def test_other_settings_and_other_test_images_are_refused(tmp_path: Path) -> None:
    wanted = planned(tmp_path)
    finish_all(wanted)
    with pytest.raises(UsageError, match=r"holds a run with other settings \(agent_config: std was .*, is 0.3\)"):
        rows_of(planned(tmp_path, sets=["reinforce:std=0.3"]))
    finish(wanted[1], 40, test_sha256="0" * 64)
    with pytest.raises(HardattnError, match=r"cnn.* was measured on other test images than .*reinforce"):
        rows_of(wanted)
    for one in wanted:
        finish(one, 40, test_sha256="0" * 64)
    with pytest.raises(HardattnError, match="other test images than are here"):
        rows_of(wanted)
    finish(wanted[1], 40, protocols={})
    with pytest.raises(HardattnError, match=r"cnn.*does not fit .*: it lacks protocols\.mean\.error; .* hardattn train"):
        rows_of(wanted)


@pytest.mark.usefixtures("few_digits")
def test_a_sweep_is_written_whole_and_its_page_comes_again_from_the_rows(tmp_path: Path) -> None:
    parts = study.plan(asked(tmp_path / "runs"), "num_glimpses=3,4")
    assert [part.name for part in parts] == ["num_glimpses=3", "num_glimpses=4"]
    for part in parts:
        finish_all(part.wanted)
    rows, out = study.read(parts), tmp_path / "out"
    study.write(rows, "Two horizons", "hardattn compare", {part.name: part.wanted for part in parts}, out)
    each = {f"table-num_glimpses={k}.csv" for k in (3, 4)} | {f"errors-num_glimpses={k}.png" for k in (3, 4)}
    assert {file.name for file in out.iterdir()} == {"rows.jsonl", "table.md", "sweep.png"} | each
    page = (out / "table.md").read_text()
    assert study.page_again(out, "Two horizons", "hardattn compare") == page
    assert "| reinforce | 5.00 (30) | 5.00 (30) |" in page
    for wrong in ("num_glimpses=3", "num_glimpses=3,3", "num_glimpses"):
        with pytest.raises(UsageError):
            study.swept(wrong)


def test_what_is_not_known_is_left_empty() -> None:
    row = table.Row("a", "agent", [1.0], [0.5, 1.5], None, None, 10, 10, "all", 1e6, 10, 1.0, 100, "hardattn train a")
    assert table.from_lines(table.to_lines({"x": [row]})) == {"x": [row]}
    assert "None" not in table.markdown([row]) + table.as_csv([row])


def test_seeds_that_point_in_opposite_directions_show_no_difference() -> None:
    one, other = np.arange(1000) < 300, np.arange(1000) >= 600
    assert rows._largest_p([one], [other]) < 0.001
    assert rows._largest_p([one, one], [other, other]) == rows._largest_p([one], [other])
    assert rows._largest_p([one, other], [other, one]) == 1


@pytest.mark.parametrize(("p", "written"), [(0.0421, "0.042"), (0.00042, "4e-04"), (0.0, "<1e-99")])
def test_how_a_p_value_is_written(p: float, written: str) -> None:
    row = table.Row("a", "agent", [1.0], [0.5, 1.5], None, None, 10, 10, "all", 1e6, 10, 1.0, 100, "hardattn train a", p=p)
    assert f"| {written} |" in table.markdown([row])


def test_how_far_a_run_is(tmp_path: Path) -> None:
    one = planned(tmp_path)[0]
    assert pool.state_of(one, "waiting").share == 0
    one.folder.mkdir(parents=True)
    results.append_line(
        one.folder / results.CURVE, {"episodes": one.setup.train.episodes // 4, "seconds": 1.0, "validation_error": 30.0}
    )
    state = pool.state_of(one, "training")
    assert state.share == pytest.approx(0.25) and state.validation_error == 30


def test_a_run_that_fails_is_named_and_the_others_are_trained(tmp_path: Path) -> None:
    good, bad = (
        Wanted(name, "agent", planned(tmp_path)[0].setup, tmp_path / name, ("version", *words))
        for name, words in (("good", ()), ("bad", ("--nonsense",)))
    )
    with pytest.raises(HardattnError, match=r"(good|bad) failed \(and 1 more\)"):  # `version` makes no final.json either
        pool.train_missing([good, bad], jobs=2, pause=0.05)
    assert (tmp_path / "good" / pool.LOG).exists() and (tmp_path / "bad" / pool.LOG).exists()


@pytest.mark.parametrize(("asked", "threads"), [("1", 1), ("3", 3), ("", 0), ("many", 0)])
def test_threads_are_those_asked_for(asked: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert pool._asked_threads() == (threads or pool.cores())


def test_no_training_is_left_behind_by_what_goes_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(run: Wanted, threads: int) -> "subprocess.Popen[bytes]":
        started.append(subprocess.Popen(["sleep", "60"]))
        return started[-1]

    def full(states: list[pool.State]) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(pool, "_start", start)
    with pytest.raises(OSError, match="no space left"):
        pool.train_missing(planned(tmp_path)[:2], jobs=2, watch=full)
    assert [process.returncode for process in started] == [-signal.SIGINT] * 2


def test_a_whole_comparison_interrupted_and_gone_on_with(
    hardattn: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(FEW)
    words = ["compare", "mine:TASK", "--agents", "reinforce", "--baselines", "cnn", "--budget", "2000"]
    words += [part for text in SMALL for part in ("--set", text)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "hardattn", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment
    )
    logs = tmp_path / "results" / "runs" / "few-digits"
    deadline = time.monotonic() + 120
    while not list(logs.glob("*/seed-0/config.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0 and "same command again" in said and "Traceback" not in said
    refused = hardattn(*words, "--no-train")
    assert refused.returncode != 0 and "no finished run of" in refused.stderr and "Traceback" not in refused.stderr
    done = hardattn(*words, "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)[""]}
    assert list(rows) == ["reinforce", "cnn", "random", "centre", "cnn-small"]
    assert rows["cnn"]["processed_pixels"] == 784 and rows["reinforce"]["processed_pixels"] == 6 * 64
    assert 0 < rows["reinforce"]["errors"][0] < 100 and rows["random"]["p"] is not None
    out = tmp_path / "results" / "compare" / "few-digits"
    assert (out / "table.md").read_text() == study.page_again(out, *_title_and_command(out / "table.md"))
    assert (out / "errors.png").stat().st_size > 10_000
    again = hardattn(*words, "--no-train")
    assert again.returncode == 0 and "Next: hardattn report results/runs/few-digits" in again.stderr + again.stdout


def _title_and_command(page: Path) -> tuple[str, str]:
    lines = page.read_text().splitlines()
    return lines[0].removeprefix("# "), lines[2].split("`")[1]
