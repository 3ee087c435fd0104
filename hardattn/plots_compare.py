"""Pictures of a comparison: errors with intervals beside learning curves, and errors over a swept setting."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from hardattn import results
from hardattn.compare import Wanted
from hardattn.table import Row, ordered

# Okabe & Ito 2008: told apart by all readers; a line's style repeats what its colour says.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
STYLES, MARKS = ("-", "--", "-.", ":"), "osD^vPX"
CONTROL = "#8a8f98"


def looks_of(rows: Sequence[Row]) -> dict[str, tuple[str, str, str]]:
    """A colour, a line style and a mark for each method, in the order given; controls are grey."""
    learned = [row.name for row in rows if row.kind != "control"]
    controls = [row.name for row in rows if row.kind == "control"]
    chosen = {name: (COLOURS[k % 7], STYLES[k // 7 % 4], MARKS[k % 7]) for k, name in enumerate(learned)}
    return chosen | {name: (CONTROL, STYLES[k % 4], MARKS[k % 7]) for k, name in enumerate(controls)}


def draw_errors(rows: Sequence[Row], wanted: Sequence[Wanted], file: Path, title: str) -> Path:
    """Left: each method's test error with its interval; right: validation error over training seconds. Returns the file."""
    shown = ordered(rows)
    looks = looks_of(shown)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 0.45 * len(shown) + 2.4), layout="constrained")
    for place, row in enumerate(reversed(shown)):
        colour, _, mark = looks[row.name]
        mean, (low, high) = row.error, row.interval
        left.plot([low, high], [place, place], color=colour, linewidth=2)
        left.plot(mean, place, mark, color=colour)
        left.annotate(f"{mean:.2f}", (high, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
    left.set_yticks(range(len(shown)), [("control: " if row.kind == "control" else "") + row.name for row in reversed(shown)])
    left.set(xscale="log", xlabel="test error, %")
    _plain(left.xaxis)
    for row in shown:
        colour, style, _ = looks[row.name]
        for number, run in enumerate(one for one in wanted if one.name == row.name):
            curve, _ = results.read_points(run.folder / results.CURVE)
            label = row.name if number == 0 else None
            right.plot(
                [point.seconds for point in curve], [point.validation_error for point in curve], style, color=colour,
                label=label, linewidth=1.4,
            )  # fmt: skip
    right.set(xscale="log", yscale="log", xlabel="training seconds", ylabel="validation error, %")
    _plain(right.xaxis)
    _plain(right.yaxis)
    right.legend(fontsize=7, frameon=False)
    return _save(figure, (left, right), file, title)


def draw_sweep(rows: dict[str, list[Row]], file: Path, title: str) -> Path:
    """Left: test error over the swept setting; right: training seconds. Returns the file."""
    key = next(iter(rows)).partition("=")[0]
    values = [name.partition("=")[2] for name in rows]
    places = np.array([float(value) for value in values]) if all(map(_is_number, values)) else np.arange(len(values))
    first = next(iter(rows.values()))
    looks = looks_of(first)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for row in first:
        line = [next(one for one in part if one.name == row.name) for part in rows.values()]
        errors, (colour, style, mark) = [one.error for one in line], looks[row.name]
        left.fill_between(places, *zip(*(one.interval for one in line), strict=True), color=colour, alpha=0.15, linewidth=0)
        left.plot(places, errors, style, marker=mark, color=colour, label=row.name)
        right.plot(places, [one.seconds for one in line], style, marker=mark, color=colour)
    left.set(yscale="log", ylabel="test error, %")
    right.set(yscale="log", ylabel="training seconds")
    for axes in (left, right):
        _plain(axes.yaxis)
        axes.set(xlabel=key)
        axes.set_xticks(places, values)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    return _save(figure, (left, right), file, title)


def _plain(axis: Axis) -> None:
    """A logarithmic axis with 1, 2, 5, 10, ... written out."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _save(figure: Figure, both: Sequence[Axes], file: Path, title: str) -> Path:
    for axes in both:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)
    plt.close(figure)
    return file


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
