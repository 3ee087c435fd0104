"""What is compared: agents, baselines and controls of one task, of equal budgets and seeds, or refused by name."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hardattn import experiment, plugins, results, train_baseline
from hardattn.baselines import BASELINES
from hardattn.envs.errors import UsageError
from hardattn.envs.tasks import Task, find_task
from hardattn.experiment import Experiment
from hardattn.settings import GOING_ON, NoSuchSetting, TrainSettings

UNEVEN = 1.01  # budgets in whole batches of several sizes are never quite the same


@dataclass(frozen=True)
class Wanted:
    """One run that the comparison needs."""

    name: str
    """An agent's or a baseline's."""
    kind: str
    """agent, baseline or control."""
    setup: Experiment
    """What it is."""
    folder: Path
    """Where it lies, or will."""
    arguments: tuple[str, ...]
    """What `hardattn` is called with to make it."""

    @property
    def finished(self) -> bool:
        """Whether it ran to its end."""
        return (self.folder / results.FINAL).exists()

    @property
    def command(self) -> str:
        """The command that makes it."""
        return shlex.join(["hardattn", *self.arguments])


@dataclass(frozen=True)
class Comparison:
    """What is to be compared."""

    task: str
    """A task's name."""
    agents: Sequence[str]
    """Their names."""
    baselines: Sequence[str]
    """Their names."""
    seeds: int = 1
    """How many runs of each, of the seeds from 0 on."""
    preset: str = "default"
    """Chosen settings of the task."""
    sets: Sequence[str] = ()
    """KEY=VALUE for every method that has the key, or NAME:KEY=VALUE for that method alone."""
    budget: int = 0
    """Training images of each run, repeats included; 0 takes the preset's."""
    root: Path = results.RUNS
    """Where the runs' folders lie."""
    device: str = "auto"
    """cpu, cuda, ...; auto takes the GPU if there is one."""


def plan(asked: Comparison) -> list[Wanted]:
    """The runs of a comparison, controls among them, first seeds first.

    Raises UsageError for wrong names, settings that nothing has, other images for one than for another, and budgets that differ.
    """
    if asked.seeds < 1:
        raise UsageError(f"--seeds {asked.seeds}: wanted 1 or more")
    if asked.preset in GOING_ON or any("start_from" in text.partition("=")[0] for text in asked.sets):
        raise UsageError(
            f"compare: every method trains from its beginning; leave start_from and --preset {' or '.join(GOING_ON)} out"
        )
    controls = controls_of(find_task(asked.task))
    kinds = dict.fromkeys(asked.agents, "agent") | dict.fromkeys(asked.baselines, "baseline")
    kinds = {name: kind for name, kind in kinds.items() if name not in controls} | dict.fromkeys(controls, "control")
    if len(kinds) == len(controls):
        raise UsageError("compare: no agent and no baseline named; wanted e.g. --agents reinforce --baselines cnn")
    sets = _sets_by_name(asked, list(kinds))
    wanted = [_wanted(asked, name, kind, sets[name], seed) for seed in range(asked.seeds) for name, kind in kinds.items()]
    shown = {one.name: _images_of(one.setup.task) for one in wanted}
    if len(set(shown.values())) > 1:
        told = "; ".join(f"{name}: {images}" for name, images in shown.items())
        raise UsageError(f"the methods would be measured on other images ({told}); give all the same")
    asked_for = {one.name: one.setup.train.episodes for one in wanted}
    if len(set(asked_for.values())) > 1:
        raise UsageError(f"budgets differ ({_counted(asked_for)}); give all the same with --budget EPISODES")
    spent = {one.name: _spends(one.setup.train) for one in wanted}
    if max(spent.values()) > UNEVEN * min(spent.values()):
        raise UsageError(
            f"in whole batches budgets differ ({_counted(spent)}); give more with --budget EPISODES, or one batch_size"
        )
    return wanted


def _counted(episodes: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in episodes.items())


def _images_of(task: Task) -> str:
    """What decides which images a task is measured on, in words."""
    parts = [f"dataset={task.dataset}", f"crop={task.crop}" if task.crop else "", str(task.canvas or task.catch or "")]
    parts += [f"corruption={task.gating.corruption} strength={task.gating.strength}"] if task.gating else []
    return " ".join(part for part in parts if part)


def _spends(train: TrainSettings) -> int:
    """The images that a run shows, in whole batches."""
    return max(1, train.episodes // train.batch_size) * train.batch_size


def _wanted(asked: Comparison, name: str, kind: str, sets: list[str], seed: int) -> Wanted:
    """One run: what it is, and the command that makes it."""
    setup = _build(asked, name, sets, seed)
    folder = results.folder_for(setup.task.name, name, seed, asked.root)
    arguments = ["train", asked.task, "--baseline" if name in BASELINES else "--agent", name]
    arguments += ["--preset", asked.preset] if asked.preset != "default" else []
    arguments += [part for text in sets for part in ("--set", text)]
    arguments += ["--seed", str(seed)] if seed else []
    arguments += ["--device", asked.device] if asked.device != "auto" else []
    arguments += [] if asked.root == results.RUNS else ["--out", str(folder)]
    return Wanted(name, kind, setup, folder, tuple(arguments))


def _build(asked: Comparison, name: str, sets: list[str], seed: int = 0) -> Experiment:
    make = train_baseline.build if name in BASELINES else experiment.build
    return make(asked.task, name, preset=asked.preset, sets=sets, seed=seed, device=asked.device)


def _sets_by_name(asked: Comparison, names: Sequence[str]) -> dict[str, list[str]]:
    """The assignments of each method. Raises UsageError for one that is for a method not compared, or that no method has."""
    sets: dict[str, list[str]] = {name: [] for name in names}
    for text in asked.sets:
        key = text.partition("=")[0]
        owner = next((name for name in names if key.startswith(f"{name}:")), None)  # an own agent's name has a colon in it
        if owner:
            sets[owner].append(text.removeprefix(f"{owner}:"))
            continue
        if ":" in key:
            raise UsageError(f"--set {text}: {key.rpartition(':')[0]} is not compared; wanted one of {', '.join(names)}")
        having = [name for name in names if _has(asked, name, text)]
        if not having:
            _build(asked, names[0], [text])  # which says what is wrong with it
        for name in having:
            sets[name].append(text)
    return {name: own + ([f"train.episodes={asked.budget}"] if asked.budget else []) for name, own in sets.items()}


def _has(asked: Comparison, name: str, text: str) -> bool:
    """Whether a method has what is to be set; whether the value will do is found out where all are set together."""
    try:
        _build(asked, name, [text])
    except NoSuchSetting:
        return False
    except UsageError:
        return True
    return True


def controls_of(task: Task) -> list[str]:
    """The controls of a task: looks without choice, looks with the truth, and everything at as many pixels."""
    if task.gating:
        return ["centre", "random"]
    oracle = ["oracle"] if task.canvas else []
    return ["random", "centre", *oracle, *([] if task.catch or task.targets > 1 else ["cnn-small"])]


def check(wanted: Sequence[Wanted]) -> None:
    """Raise UsageError if a folder holds a run with other settings than asked."""
    for one in wanted:
        if not (one.folder / results.CONFIG).exists():
            continue
        told = experiment.changed(results.read_json(one.folder / results.CONFIG), experiment.to_json(one.setup), one.setup)
        if told:
            raise UsageError(
                f"{one.folder} holds a run with other settings ({told}); ask for the same, or name another --runs FOLDER"
            )


def agents_and_baselines(agents: str, baselines: str) -> tuple[list[str], list[str]]:
    """The names of two options, each once; `soft-glimpse` among the baselines is the agent pathwise, the soft twin of hard looks.

    Raises UsageError for an unknown name, with the nearest; an agent may be a class of the user's.
    """
    acting, others = ([name.strip() for name in text.split(",") if name.strip()] for text in (agents, baselines))
    if "soft-glimpse" in others:
        acting.append("pathwise")
        others = [name for name in others if name != "soft-glimpse"]
    for name in acting:
        plugins.agent_class(name)
    for name in others:
        train_baseline.baseline_class(name)
    return list(dict.fromkeys(acting)), list(dict.fromkeys(others))
