"""One HTML file about runs of one task: their table, curves and calibration, and a player of their looks.

This module gathers plain data; report.html, into which they are written as JSON, draws them. Nothing in it asks the network.
"""

import html
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import hardattn
from hardattn import evaluate, experiment, loading, plugins, report_runs, results, statistics
from hardattn.envs.datasets import Dataset
from hardattn.envs.errors import HardattnError, UsageError
from hardattn.envs.task_data import fixed_data
from hardattn.loading import Run
from hardattn.report_runs import Given

LARGEST = 3_000_000  # bytes of a report; the player holds fewer images rather than more bytes
BINS = 15


@dataclass(frozen=True)
class Measures:
    """What the test images said of a run."""

    final: dict[str, Any]
    """The numbers of its final.json."""
    wrong: NDArray[np.bool_] | None
    """[N] which test images it has wrong; None if that was not kept."""
    probabilities: NDArray[np.floating[Any]] | None
    """[N, K], or [N, L, K] of several labels; None if they were not kept."""
    run: Run | None = None
    """The run itself, where it had to be opened."""


def gather(
    names: Sequence[str],
    *,
    count: int = 40,
    agent: str | None = None,
    task: str | None = None,
    tick: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Everything the page shows, as plain data. `tick` is told what is being done.

    Raises UsageError for runs that cannot stand side by side, HardattnError for damaged ones.
    """
    if count < 1:
        raise UsageError(f"--count {count}: wanted 1 or more images in the player")
    given = report_runs.find(names)
    measured = []
    for one in given:
        tick(one.label)
        measured.append(_measures(one, agent, task))
    report_runs.check_hashes(given, [measures.final["test_sha256"] for measures in measured])
    labels = _labels(given)
    rows = [_row(one, measures, label) for one, measures, label in zip(given, measured, labels, strict=True)]
    setup = given[0].config["task"]
    tick("looks")
    return {
        "version": hardattn.__version__,
        "task": given[0].task,
        "summary": str(setup.get("summary", "")),
        "test_images": next((len(one.wrong) for one in measured if one.wrong is not None), measured[0].final.get("images")),
        "test_sha256": measured[0].final["test_sha256"],
        "error_of": "games missed" if setup.get("catch") else "test error",
        "runs": rows,
        **_player(given, measured, rows, count=count, agent=agent, task=task),
    }


def notes(data: dict[str, Any]) -> list[str]:
    """What was left out of a report and why, a sentence each; the page says the same."""
    runs = data["runs"]
    told = [
        f"{run['label']}: {run['spoiled']} line(s) of its curve could not be read and were skipped."
        for run in runs
        if run["spoiled"]
    ]
    told += [f"{run['label']}: not in the player: {run['unplayed']}." for run in runs if run["unplayed"]]
    return [*told, *([f"No player. {data['unplayed']}"] if data["unplayed"] else [])]


def page(data: dict[str, Any]) -> str:
    """The HTML file. Its player loses images from the end until the file is no larger than LARGEST."""
    template = resources.files("hardattn").joinpath("report.html").read_text(encoding="utf-8")
    while True:
        # "<" is written as an escape, so that no text of a run can end the script element
        told = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
        title = html.escape(f"{data['task']}: report of hardattn")
        whole = template.replace("__DATA__", told, 1).replace("__TITLE__", title, 1)  # the title stands first in the file
        shown = data["player"]
        if len(whole.encode()) <= LARGEST or not shown or len(shown["index"]) < 2:
            return whole
        data = _fewer(data, max(1, len(shown["index"]) * 3 // 4))


def _fewer(data: dict[str, Any], count: int) -> dict[str, Any]:
    """The same with the first `count` images in the player."""
    kept = data["player"] | {key: data["player"][key][:count] for key in ("index", "images", "truth")}
    runs = []
    for run in data["runs"]:
        looks = run["looks"]
        cut = looks and looks | {key: looks[key] and looks[key][:count] for key in ("boxes", "path", "beliefs", "glimpses")}
        runs.append(run | {"looks": cut})
    return data | {"player": kept | {"left_out": True}, "runs": runs}


def _measures(one: Given, agent: str | None, task: str | None) -> Measures:
    """What a run's folder holds; weights that ship are measured here and now, mean policy alone."""
    if one.final is not None:
        file = one.folder / results.PREDICTIONS
        kept = results.read_state(file) if file.exists() else {}
        try:
            wrong, probabilities = (kept[key].numpy() if kept else None for key in ("wrong", "probabilities"))
        except (KeyError, AttributeError) as error:
            raise HardattnError(f"{file} is damaged: it lacks {error}; train the run again") from error
        if wrong is not None and len(wrong) != one.final.get("images", len(wrong)):
            raise HardattnError(f"{file} tells of {len(wrong)} images, final.json of {one.final['images']}; train the run again")
        if "test_sha256" not in one.final:
            raise HardattnError(f"{one.where}: its final.json names no test images; train the run again")
        return Measures(one.final, wrong, probabilities)
    run = loading.open_run(one.where, agent=agent if one.agent == agent else None, task=task)
    make = evaluate.test_world(run.world, run.dataset)
    world = make()
    mean = evaluate.measure(run.agent, world)
    counts, looked = world.counts, list(mean.on_target_by_look)
    final = {
        "protocols": {
            "mean": {
                "error": mean.error,
                "interval": list(mean.interval),
                "error_by_look": list(mean.error_by_look),
                **({"on_target_by_look": looked} if looked else {}),
            }
        },
        "processed_pixels": counts.processed_pixels / counts.episodes,
        "unique_pixels": counts.unique_pixels / counts.episodes,
        "flops_per_image": evaluate.flops_per_image(run.agent, make),
        "parameters": sum(weight.numel() for weight in run.perception.parameters()),
        "test_sha256": run.dataset.sha256(),
    }
    return Measures(final, mean.wrong.numpy(), mean.probabilities.numpy(), run)


def _labels(given: Sequence[Given]) -> list[str]:
    """What each run is called; where two would be called the same, the folder besides."""
    labels = [one.label for one in given]
    return [label if labels.count(label) == 1 else f"{label} ({one.where})" for label, one in zip(labels, given, strict=True)]


def _row(one: Given, measures: Measures, label: str) -> dict[str, Any]:
    """What the page says of one run besides its looks. Raises HardattnError for a final.json of another version."""
    final = measures.final
    try:
        mean = final["protocols"]["mean"]
        on_target = mean.get("on_target_by_look")
        calibration, uncalibrated = _calibration(one, measures)
        return {
            "label": label,
            "kind": one.kind,
            "where": one.where,
            "command": str(final.get("command", "")),
            "error": _number(mean["error"]),
            "interval": [_number(bound) for bound in mean["interval"]],
            "error_by_look": [_number(error) for error in mean.get("error_by_look", [])],
            "on_target": _number(np.mean(on_target)) if on_target else None,
            **{key: _number(final.get(key)) for key in ("validation_error", "processed_pixels", "unique_pixels")},
            **{key: _number(final.get(key)) for key in ("flops_per_image", "parameters", "seconds", "episodes")},
            **_curve(one),
            "calibration": calibration,
            "uncalibrated": uncalibrated,
            "looks": None,
            "unplayed": "",
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HardattnError(f"{one.where}: its final.json does not fit this version: {error}; train the run again") from error


def _curve(one: Given) -> dict[str, Any]:
    """The points (episodes, seconds, validation error) of a learning curve, and how many lines of it could not be read."""
    file = one.folder / results.CURVE
    if not file.exists():
        return {"curve": [], "spoiled": 0}
    points, spoiled = results.read_points(file)
    return {"curve": [[_number(value) for value in point] for point in points], "spoiled": spoiled}


def _calibration(one: Given, measures: Measures) -> tuple[dict[str, Any] | None, str]:
    """The bins of confidence and the expected calibration error, or why there are none. Needs no labels: who is wrong is known."""
    if measures.probabilities is None or measures.wrong is None:
        return None, f"its folder has no {results.PREDICTIONS}"
    if one.config["task"].get("catch"):
        return None, "what a game came to is no guess"
    if measures.probabilities.ndim != 2:
        return None, "its images have several labels, each with a confidence of its own"
    said = measures.probabilities.argmax(axis=1)
    as_told = np.where(measures.wrong, -1, said)  # -1 is no class, so a wrong answer stays wrong
    rows = statistics.bins(measures.probabilities, as_told, BINS)
    return {
        "error": _number(statistics.calibration_error(measures.probabilities, as_told, BINS)),
        "bins": [[int(held), round(float(sure), 4), round(float(right), 4)] for held, sure, right in rows],
    }, ""


def _player(
    given: Sequence[Given],
    measured: Sequence[Measures],
    rows: list[dict[str, Any]],
    *,
    count: int,
    agent: str | None,
    task: str | None,
) -> dict[str, Any]:
    """The images that the player shows, and in each of `rows` the looks at them; or why there are none."""
    setup = given[0].config["task"]
    if setup.get("gating"):
        return {"player": None, "unplayed": "This task weighs filters and looks at no places; hardattn show draws the gains."}
    if setup.get("catch"):
        return {"player": None, "unplayed": "A game's screen changes with every look; hardattn show draws games."}
    try:
        shown = experiment.task_from_json(setup, task)
        data = fixed_data(shown, "test")
    except HardattnError as error:  # images that are not here, or come from a user's own code: the rest can be shown
        return {"player": None, "unplayed": f"The test images cannot be shown: {error}"}
    except (KeyError, TypeError) as error:
        raise HardattnError(f"{given[0].where}: its config.json does not fit this version: {error}; train the run again") from error
    assert isinstance(data, Dataset)
    if data.sha256() != measured[0].final["test_sha256"]:
        raise HardattnError(f"{given[0].where} was measured on other test images than are here; train it again")
    from hardattn import plots, report_player  # matplotlib takes a second to import

    chosen = torch.tensor(report_player.choose([one.wrong for one in measured if one.wrong is not None], count, len(data)))
    for one, measures, row in zip(given, measured, rows, strict=True):
        if one.kind == "baseline":
            row["looks"] = report_player.looks_of_baseline(one, data, chosen)
            row["unplayed"] = "" if row["looks"] else f"{one.agent} takes in the whole image at once"
        elif not plugins.is_ours(one.agent) and one.agent not in ("pretrain", agent):
            row["unplayed"] = f"its agent is your own class {one.agent}; name it again with --agent {one.agent}"
        else:
            named = one.agent if one.agent == agent else None
            run = measures.run or loading.open_run(str(one.folder), agent=named, task=task)
            row["looks"] = report_player.looks_of_agent(run, chosen)
    if not any(row["looks"] for row in rows):
        return {"player": None, "unplayed": "No run here looks at places."}
    images = report_player.images_of(data, chosen)
    names = plots.class_names(shown, data.classes)
    return {"player": images | {"names": names, "first": min(count, len(data)), "left_out": False}, "unplayed": ""}


def _number(value: Any) -> float | None:
    """A finite number, rounded to six digits; None for anything else, which JSON in a page could not hold."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    if isinstance(value, int):
        return value
    return float(f"{float(value):.6g}") if math.isfinite(float(value)) else None
