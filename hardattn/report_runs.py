"""Which runs a report is about: folders found behind what was typed, and refused where they cannot stand side by side."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardattn import experiment, loading, results, train_baseline
from hardattn.agents import CONTROLS
from hardattn.baselines import BASELINES
from hardattn.envs.errors import HardattnError, UsageError
from hardattn.experiment import difference


@dataclass(frozen=True)
class Given:
    """One run as it lies in its folder."""

    folder: Path
    """Where it lies."""
    where: str
    """What names it on the command line: its folder, or the task whose weights ship."""
    config: dict[str, Any]
    """Its config.json."""
    final: dict[str, Any] | None
    """Its final.json; None for weights that ship, which are measured anew."""

    @property
    def task(self) -> str:
        """The task's name."""
        return str(self.config["task"]["name"])

    @property
    def agent(self) -> str:
        """The agent's name, or the baseline's."""
        return str(self.config["agent"])

    @property
    def kind(self) -> str:
        """agent, baseline or control."""
        return "control" if self.agent in CONTROLS else "baseline" if self.agent in BASELINES else "agent"

    @property
    def label(self) -> str:
        """What the run is called in the report."""
        return f"{self.agent}, seed {self.config['seed']}" + (", as shipped" if self.final is None else "")


def find(names: Sequence[str]) -> list[Given]:
    """The runs behind names: run folders, folders that hold some, or tasks whose weights ship. Each once, in the order given.

    Raises UsageError where there are none, and for one that is not finished, is of another task or is no run of looks.
    """
    if not names:
        raise UsageError("report: no runs named; wanted folders or a task, e.g. hardattn report results/runs/ram-mnist")
    folders = {folder.resolve(): (folder, where) for name in names for folder, where in _folders(name)}
    given = [_read(folder, where) for folder, where in folders.values()]
    others = [one for one in given if one.task != given[0].task]
    if others:
        raise UsageError(
            f"{others[0].where} is a run of {others[0].task}, {given[0].where} of {given[0].task}: a report is of one task; "
            f"leave out the others: {without(given, others)}"
        )
    for one in given:
        if one.final is not None and "protocols" not in one.final:
            raise UsageError(f"{one.where} holds a network's pretraining, which no table of looks has; {_leave_out(given, one)}")
    return given


def check_hashes(given: Sequence[Given], hashes: Sequence[str]) -> None:
    """Raise UsageError if the runs were not measured on the same test images."""
    others = [one for one, sha256 in zip(given, hashes, strict=True) if sha256 != hashes[0]]
    if others:
        told = hashes[list(given).index(others[0])]
        raise UsageError(
            f"{others[0].where} was measured on other test images (SHA-256 {told[:12]}) than {given[0].where} ({hashes[0][:12]}); "
            f"leave out the others: {without(given, others)}"
        )


def without(given: Sequence[Given], others: Sequence[Given]) -> str:
    """The command for a report of the runs but these."""
    return shlex.join(["hardattn", "report", *(one.where for one in given if one not in others)])


def _leave_out(given: Sequence[Given], one: Given) -> str:
    return f"leave it out: {without(given, [one])}" if len(given) > 1 else f"wanted a run of hardattn train {one.task}"


def _folders(name: str) -> list[tuple[Path, str]]:
    """The run folders behind one name, each with what names it alone."""
    path = Path(name)
    if path.is_dir() and not (path / results.CONFIG).exists() and not (loading.SHIPPED / name / results.CONFIG).exists():
        found = sorted(file.parent for file in path.rglob(results.CONFIG))
        if not found:
            raise UsageError(
                f"no runs found in {name}, as no folder there has a {results.CONFIG}; train one: hardattn train ram-mnist"
            )
        return [(folder, str(folder)) for folder in found]
    return [(loading.find(name), name)]


def _read(folder: Path, where: str) -> Given:
    config = results.read_json(folder / results.CONFIG)
    try:
        one = Given(folder, where, config, None)
        told = (one.task, one.label)  # both are in every config
    except (KeyError, TypeError) as error:
        raise HardattnError(f"{folder / results.CONFIG} does not fit this version: {error}; train the run again") from error
    if (folder / results.FINAL).exists():
        final = results.read_json(folder / results.FINAL)
        if not isinstance(final, dict):
            raise HardattnError(f"{folder / results.FINAL} is damaged: it holds no record; train {told[1]} of {told[0]} again")
        return Given(folder, where, config, final)
    if not folder.is_relative_to(loading.SHIPPED):
        raise UsageError(f"{where} has no {results.FINAL}: its training did not end; finish it: {command_to_finish(one)}")
    return one


def command_to_finish(one: Given) -> str:
    """The command that goes on with a run, with its config.json's settings; in words where --set cannot say them all."""
    named = "--baseline" if one.kind == "baseline" else "--agent"
    words = ["hardattn", "train", one.task, named, one.agent, "--seed", str(one.config["seed"])]
    try:
        sets = _sets(one, [])
        if _sets(one, sets):  # what --set does not reach
            raise UsageError(one.where)
    except (HardattnError, KeyError, TypeError, AttributeError):
        return f"add --resume to the command that began it ({shlex.join([*words, '...'])})"
    asked = [word for text in sets for word in ("--set", text)]
    return shlex.join([*words, *asked, "--out", str(one.folder), "--resume"])


def _sets(one: Given, sets: list[str]) -> list[str]:
    """What `--set` must say besides `sets` so that the run's settings are made again."""
    if ":" in one.task or ":" in one.agent:  # reading a file never runs a stranger's code
        raise UsageError(one.where)
    make = train_baseline.build if one.kind == "baseline" else experiment.build
    made = experiment.to_json(make(one.task, one.agent, sets=sets, seed=one.config["seed"], device="cpu"))
    own = "baseline" if one.kind == "baseline" else "agent"
    sections = [("train", one.config["train"], made["train"]), (own, one.config["agent_config"] or {}, made["agent_config"] or {})]
    sections.append(("task", one.config["task"], made["task"]))
    for part in ("perception", "canvas", "catch", "gating"):
        sections.append((part, one.config["task"].get(part) or {}, made["task"].get(part) or {}))
    return [
        f"{section}.{key}={value}"
        for section, saved, default in sections
        for key, value in saved.items()
        if not isinstance(value, dict | list | None.__class__) and difference(value, default.get(key))
    ]
