"""From finished run folders to the rows of a comparison's table: on one set of test images, or refused by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardattn import compare, results, statistics
from hardattn.compare import Wanted
from hardattn.envs import task_data
from hardattn.envs.datasets import Dataset
from hardattn.envs.errors import HardattnError, UsageError
from hardattn.envs.tasks import Task
from hardattn.table import GOALS, Row

KEYS = ("test_sha256", "protocols", "processed_pixels", "unique_pixels", "flops_per_image", "parameters", "seconds", "episodes")


@dataclass(frozen=True)
class Measured:
    """A finished run, read."""

    wanted: Wanted
    """Which one."""
    final: dict[str, Any]
    """Its final.json."""
    wrong: NDArray[np.bool_]
    """[N] which test images it has wrong."""
    probabilities: NDArray[np.float32]
    """[N, K], or [N, L, K] where an image has several labels."""

    @property
    def mean(self) -> dict[str, Any]:
        """What its mean policy came to."""
        return dict(self.final["protocols"]["mean"])


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
    compare.check(wanted)
    finals = [_final(one) for one in wanted]
    for one, final in zip(wanted, finals, strict=True):
        if final["test_sha256"] != finals[0]["test_sha256"]:
            raise HardattnError(
                f"{one.folder} was measured on other test images than {wanted[0].folder}; train it again: {one.command}"
            )
    labels = _labels(wanted[0].setup.task, finals[0]["test_sha256"])
    measured = [Measured(one, final, **_predictions(one)) for one, final in zip(wanted, finals, strict=True)]
    by_name = {name: [run for run in measured if run.wanted.name == name] for name in names}
    missed = {name: np.stack([run.wrong for run in runs]) for name, runs in by_name.items()}
    p_values = {name: _largest_p(missed[name], missed[reference]) for name in names if name != reference}
    corrected = dict(zip(p_values, statistics.holm(list(p_values.values())), strict=True))
    chance = _on_target(by_name["random"]) if "random" in by_name else None
    others = {name: None if name == reference else missed[reference] for name in names}
    return [_row(by_name[name], labels, missed[name], others[name], corrected.get(name), chance) for name in names]


def _final(one: Wanted) -> dict[str, Any]:
    """A run's final.json. Raises HardattnError if it is damaged, or of a version that wrote another."""
    final = results.read_json(one.folder / results.FINAL)
    lacking = [key for key in KEYS if key not in final] if isinstance(final, dict) else list(KEYS)
    if not lacking and "error" not in final["protocols"].get("mean", {}):
        lacking = ["protocols.mean.error"]
    if lacking:
        told = f"{one.folder / results.FINAL} does not fit this version: it lacks {', '.join(lacking)}"
        raise HardattnError(f"{told}; remove {one.folder}, then: {one.command}")
    return dict(final)


def _row(
    runs: list[Measured],
    labels: NDArray[np.int64] | None,
    wrong: NDArray[np.bool_],
    others: NDArray[np.bool_] | None,
    p: float | None,
    chance: float | None,
) -> Row:
    """A method's row; `others` are the reference's mistakes, None for the reference itself."""
    first, final = runs[0].wanted, runs[0].final
    curves = [results.read_points(run.wanted.folder / results.CURVE) for run in runs]
    low, high = statistics.seeds_and_examples(wrong)
    compared: list[float] = []
    if others is not None:
        gap = 100 * float(wrong.mean() - others.mean())
        compared = [gap, *(100 * bound for bound in statistics.seeds_and_examples(wrong, others))]
    told = [run.probabilities for run in runs]
    on_target = _on_target(runs)
    covered = [run.mean["covered"] for run in runs if "covered" in run.mean]
    return Row(
        name=first.name,
        kind=first.kind,
        errors=[run.mean["error"] for run in runs],
        interval=[100 * low, 100 * high],
        log_loss=_over_seeds(statistics.log_loss, told, labels),
        calibration_error=_over_seeds(statistics.calibration_error, told, labels),
        processed_pixels=float(np.mean([run.final["processed_pixels"] for run in runs])),
        unique_pixels=float(np.mean([run.final["unique_pixels"] for run in runs])),
        sees=final.get("sees") or _sees(first.setup.task),
        flops=final["flops_per_image"],
        parameters=final["parameters"],
        seconds=float(np.median([run.final["seconds"] for run in runs])),
        episodes=final["episodes"],
        command=first.command,
        seconds_to={str(goal): _seconds_to([points for points, _ in curves], goal) for goal in GOALS},
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
    data = task_data.fixed_data(task, "test")
    if data.sha256() != sha256:
        raise HardattnError(f"the runs of {task.name} were measured on other test images than are here; train them again")
    if not isinstance(data, Dataset) or data.labels.ndim > 1:
        return None
    labels: NDArray[np.int64] = data.labels.numpy()
    return labels


def _predictions(one: Wanted) -> dict[str, Any]:
    """What the run said of each test image."""
    return {key: tensor.numpy() for key, tensor in results.read_state(one.folder / results.PREDICTIONS).items()}


def _on_target(runs: list[Measured]) -> float | None:
    """The mean share over looks and seeds; None where it is unknown."""
    shares = [run.mean["on_target_by_look"] for run in runs if "on_target_by_look" in run.mean]
    return float(np.mean(shares)) if len(shares) == len(runs) else None


def _largest_p(wrong: NDArray[np.bool_], others: NDArray[np.bool_]) -> float:
    """McNemar's p of the pair of seeds that differ least surely; 1 where seeds differ in opposite directions."""
    tests = [statistics.mcnemar(one, other) for one, other in zip(wrong, others, strict=True)]
    if len({alone > besides for alone, besides, _ in tests if alone != besides}) > 1:
        return 1.0
    return max(p for _, _, p in tests)


def _seconds_to(curves: list[list[results.Point]], goal: float) -> float | None:
    """Median seconds until the validation error is first at most `goal`; None if a seed never gets there."""
    times = [next((point.seconds for point in points if point.validation_error <= goal), None) for points in curves]
    return None if None in times else float(np.median(times))  # type: ignore[arg-type]
