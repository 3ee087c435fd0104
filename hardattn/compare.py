"""One honest table of one task: agents, baselines and controls side by side, read from their run folders alone.

Every row has the same budget, the same seeds and the same test images, or the comparison is refused by name.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardattn import experiment, plugins, results, statistics, train_baseline
from hardattn.agents import AGENTS
from hardattn.baselines import BASELINES
from hardattn.envs.datasets import Dataset
from hardattn.envs.errors import HardattnError, UsageError
from hardattn.envs.tasks import Task, find_task
from hardattn.experiment import Experiment
from hardattn.table import GOALS, Row
from hardattn.train import difference

SAME = ("task", "train", "agent", "agent_config", "seed")  # what of a saved config must be as asked


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


def plan(
    task: str,
    agents: Sequence[str],
    baselines: Sequence[str],
    seeds: int,
    *,
    preset: str = "default",
    sets: Sequence[str] = (),
    budget: int = 0,
    root: Path = results.RUNS,
    device: str = "auto",
) -> list[Wanted]:
    """The runs of a comparison, controls among them, first seeds first.

    A setting is for every method that has it, or with NAME: before it for that method alone. Raises UsageError for wrong names,
    settings that nothing has, and budgets that differ.
    """
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: wanted 1 or more")
    base = find_task(task)
    controls = controls_of(base)
    chosen = {name: "agent" for name in agents} | {name: "baseline" for name in baselines}
    chosen = {name: kind for name, kind in chosen.items() if name not in controls} | dict.fromkeys(controls, "control")
    if not set(chosen) - set(controls):
        raise UsageError("compare: no agent and no baseline named; wanted e.g. --agents reinforce --baselines cnn")
    wanted = []
    for seed in range(seeds):
        for name, kind in chosen.items():
            own = _sets_of(name, chosen, sets) + ([f"train.episodes={budget}"] if budget else [])
            baseline = name in BASELINES and name not in agents
            make = train_baseline.build if baseline else experiment.build
            kept = [text for text in own if ":" not in text.partition("=")[0]]
            setup = make(task, name, preset=preset, sets=kept, seed=seed, device=device)
            folder = results.folder_for(base.name, name, seed, root)
            arguments = ["train", task, "--baseline" if baseline else "--agent", name]
            arguments += ["--preset", preset] if preset != "default" else []
            arguments += [part for text in kept for part in ("--set", text)]
            arguments += ["--seed", str(seed)] if seed else []
            arguments += [] if root == results.RUNS else ["--out", str(folder)]
            wanted.append(Wanted(name, kind, setup, folder, tuple(arguments)))
    budgets = {one.name: one.setup.train.episodes for one in wanted}
    if len(set(budgets.values())) > 1:
        told = ", ".join(f"{name} {episodes:,}" for name, episodes in budgets.items())
        raise UsageError(f"budgets differ ({told}); give all the same with --budget EPISODES")
    return wanted


def controls_of(task: Task) -> list[str]:
    """The controls of a task: looks without choice, looks with the truth, and everything at as many pixels."""
    if task.gating:
        return ["centre", "random"]
    oracle = ["oracle"] if task.canvas or task.catch else []
    return ["random", "centre", *oracle, *([] if task.catch or task.targets > 1 else ["cnn-small"])]


def _sets_of(name: str, chosen: dict[str, str], sets: Sequence[str]) -> list[str]:
    """The assignments for one method, `NAME:` taken off. Raises UsageError where that names none."""
    own = []
    for text in sets:
        owner, colon, rest = text.partition(":")
        if not colon or "=" in owner:
            own.append(text)
        elif owner not in chosen:
            raise UsageError(f"--set {text}: {owner} is not compared; wanted one of {', '.join(chosen)}")
        elif owner == name:
            own.append(rest)
    return own


def check(wanted: Sequence[Wanted]) -> None:
    """Raise UsageError if a folder holds a run with other settings than asked."""
    for one in wanted:
        if not (one.folder / results.CONFIG).exists():
            continue
        saved, asked = results.read_json(one.folder / results.CONFIG), experiment.to_json(one.setup)
        for key in SAME:
            told = difference(saved.get(key), asked[key])
            if told:
                raise UsageError(
                    f"{one.folder} holds a run with other settings ({key}: {told}); ask for the same, or name another --runs FOLDER"
                )


def read(wanted: Sequence[Wanted], reference: str = "") -> list[Row]:
    """The table's rows from finished runs, each method against the reference (the first method if none is named).

    Raises HardattnError where a run is missing or not finished, or its test images are not the others'.
    """
    names = list(dict.fromkeys(one.name for one in wanted))
    reference = reference or names[0]
    if reference not in names:
        raise UsageError(f"--reference {reference}: it is not compared; wanted one of {', '.join(names)}")
    missing = [one for one in wanted if not one.finished]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise HardattnError(f"no finished run of {missing[0].name} in {missing[0].folder}{more}; make it: {missing[0].command}")
    check(wanted)
    finals = [results.read_json(one.folder / results.FINAL) for one in wanted]
    for one, final in zip(wanted, finals, strict=True):
        if final["test_sha256"] != finals[0]["test_sha256"]:
            raise HardattnError(
                f"{one.folder} was measured on other test images than {wanted[0].folder}; train it again: {one.command}"
            )
    labels = _labels(wanted[0].setup.task, finals[0]["test_sha256"])
    by_name = {name: [(one, final) for one, final in zip(wanted, finals, strict=True) if one.name == name] for name in names}
    missed = {name: np.stack([_predictions(one.folder)["wrong"] for one, _ in runs]) for name, runs in by_name.items()}
    p_values = {name: _largest_p(missed[name], missed[reference]) for name in names if name != reference}
    corrected = dict(zip(p_values, statistics.holm(list(p_values.values())), strict=True))
    chance = _on_target(by_name["random"]) if "random" in by_name else None
    return [_row(runs, labels, missed, reference, corrected.get(name), chance) for name, runs in by_name.items()]


def _row(
    runs: list[tuple[Wanted, dict[str, Any]]],
    labels: NDArray[np.int64] | None,
    missed: dict[str, NDArray[np.bool_]],
    reference: str,
    p: float | None,
    chance: float | None,
) -> Row:
    first, final = runs[0]
    wrong, others = missed[first.name], missed[reference]
    curves = [results.read_rows(one.folder / results.CURVE) for one, _ in runs]
    low, high = statistics.seeds_and_examples(wrong)
    compared: list[float] = []
    if first.name != reference:
        gap = 100 * float(wrong.mean() - others.mean())
        compared = [gap, *(100 * bound for bound in statistics.seeds_and_examples(wrong, others))]
    told = [_predictions(one.folder)["probabilities"] for one, _ in runs]
    on_target = _on_target(runs)
    covered = [run["protocols"]["mean"]["covered"] for _, run in runs if "covered" in run["protocols"]["mean"]]
    return Row(
        name=first.name,
        kind=first.kind,
        errors=[run["protocols"]["mean"]["error"] for _, run in runs],
        interval=[100 * low, 100 * high],
        log_loss=_over_seeds(statistics.log_loss, told, labels),
        calibration_error=_over_seeds(statistics.calibration_error, told, labels),
        processed_pixels=float(np.mean([run["processed_pixels"] for _, run in runs])),
        unique_pixels=float(np.mean([run["unique_pixels"] for _, run in runs])),
        sees=final.get("sees") or _sees(first.setup.task),
        flops=final["flops_per_image"],
        parameters=final["parameters"],
        seconds=float(np.median([run["seconds"] for _, run in runs])),
        episodes=final["episodes"],
        command=first.command,
        seconds_to={str(goal): _seconds_to([rows for rows, _ in curves], goal) for goal in GOALS},
        on_target=on_target,
        lift=None if on_target is None or not chance else on_target / chance,
        covered=float(np.mean(covered)) if covered else None,
        difference=compared,
        p=p,
        spoiled=sum(count for _, count in curves),
    )


def _over_seeds(measure: Callable[..., float], told: list[NDArray[np.float32]], labels: NDArray[np.int64] | None) -> float | None:
    """The mean of a measure of probabilities and labels; None where an image has no one label."""
    return None if labels is None else float(np.mean([measure(one, labels) for one in told]))


def _sees(task: Task) -> str:
    """What of an image an agent of this task has seen before it chooses."""
    if task.gating:
        return "the whole image"
    return f"its glimpses and {task.context} x {task.context} pixels of the whole" if task.context else "its glimpses alone"


def _labels(task: Task, sha256: str) -> NDArray[np.int64] | None:
    """The test labels [N]; None in games and where an image has several. Raises HardattnError if the runs saw other test images."""
    from hardattn.envs import task_data

    data = task_data.fixed_data(task, "test")
    if data.sha256() != sha256:
        raise HardattnError(f"the runs of {task.name} were measured on other test images than are here; train them again")
    if not isinstance(data, Dataset) or data.labels.ndim > 1:
        return None
    labels: NDArray[np.int64] = data.labels.numpy()
    return labels


def _predictions(folder: Path) -> dict[str, Any]:
    return {key: tensor.numpy() for key, tensor in results.read_state(folder / results.PREDICTIONS).items()}


def _on_target(runs: list[tuple[Wanted, dict[str, Any]]]) -> float | None:
    """The mean share over looks and seeds; None where it is unknown."""
    shares = [run["protocols"]["mean"].get("on_target_by_look") for _, run in runs]
    return None if any(share is None for share in shares) else float(np.mean(shares))


def _largest_p(wrong: NDArray[np.bool_], others: NDArray[np.bool_]) -> float:
    """McNemar's p of the pair of seeds that differ least surely."""
    return max(statistics.mcnemar(one, other)[2] for one, other in zip(wrong, others, strict=True))


def _seconds_to(curves: list[list[dict[str, Any]]], goal: float) -> float | None:
    """Median seconds until the validation error is first at most `goal`; None if a seed never gets there."""
    times = [next((row["seconds"] for row in rows if row["validation_error"] <= goal), None) for rows in curves]
    return None if None in times else float(np.median(times))  # type: ignore[arg-type]


def split_names(text: str, known: Sequence[str], what: str) -> list[str]:
    """Names between commas. Raises UsageError for one that is unknown, with the nearest; an agent may be a class of the user's."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if what == "agent":
            plugins.agent_class(name)
        elif name not in known:
            train_baseline.baseline_class(name)
    return names


def agents_and_baselines(agents: str, baselines: str) -> tuple[list[str], list[str]]:
    """The names of two options; `soft-glimpse` among the baselines is the agent pathwise, the differentiable twin of hard looks."""
    soft = [name.strip() for name in baselines.split(",")]
    chosen = split_names(agents, list(AGENTS), "agent") + (["pathwise"] if "soft-glimpse" in soft else [])
    others = ",".join(name for name in soft if name != "soft-glimpse")
    return list(dict.fromkeys(chosen)), split_names(others, list(BASELINES), "baseline")
