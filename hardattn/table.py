"""The table of a comparison: one row a method, as Markdown, as comma-separated values, and as the raw rows of both."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

GOALS = (50, 20, 10, 5, 2, 1)  # errors in percent, to each of which the seconds of training are told


@dataclass(frozen=True)
class Row:
    """One line of the table: a method over its seeds."""

    name: str
    """The method."""
    kind: str
    """agent, baseline or control."""
    errors: list[float]
    """Test error of each seed, in percent."""
    interval: list[float]
    """95 % of the mean error over seeds and examples drawn anew, in percent."""
    log_loss: float | None
    """Mean negative log-likelihood in nats; None where there are several labels an image."""
    calibration_error: float | None
    """Expected calibration error over 15 bins, 0 to 1; None there too."""
    processed_pixels: float
    """Pixels read an image, repeats included."""
    unique_pixels: float
    """Different pixels read an image."""
    sees: str
    """What of the image the part that chooses where to look has seen."""
    flops: float
    """Floating-point operations an image, of the mean policy."""
    parameters: int
    """Weights of perception, or of the whole baseline."""
    seconds: float
    """Training seconds, median of the seeds."""
    episodes: int
    """Training images, repeats included."""
    command: str
    """What makes the first seed's run."""
    seconds_to: dict[str, float | None] = field(default_factory=dict)
    """Median seconds until the validation error was first at or below so many percent; None if any seed never was."""
    on_target: float | None = None
    """Share of looks whose middle lay on a digit, in percent; None where that is unknown."""
    lift: float | None = None
    """That share as a multiple of random looks'."""
    covered: float | None = None
    """Share of last crops that overlap a digit's box by half or more of what either covers, in percent; models with crops alone."""
    difference: list[float] = field(default_factory=list)
    """Mean error less the reference's, in points, and its 95 % interval over seeds and examples; empty for the reference."""
    p: float | None = None
    """Exact McNemar test against the reference: the largest of the seeds' p values, after Holm's correction over all rows."""
    spoiled: int = 0
    """Lines of learning curves that could not be read."""

    @property
    def error(self) -> float:
        """Test error in percent, mean of the seeds."""
        return fmean(self.errors)


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Agents and baselines by error, then the controls."""
    return sorted(rows, key=lambda row: (row.kind == "control", row.error))


def markdown(rows: Sequence[Row]) -> str:
    """The table, its commands and what its columns mean."""
    known = [goal for goal in GOALS if any(row.seconds_to.get(str(goal)) is not None for row in rows)]
    heads = ["method", "test error %", "95 %", "against reference", "p", "NLL", "ECE %", "on target %", "lift"]
    heads += ["pixels read", "different", "sees", "MFLOP", "weights", "seconds", *(f"s to {goal} %" for goal in known)]
    reference = next((row.name for row in rows if not row.difference), "")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in ordered(rows):
        each = f" ({', '.join(f'{error:.2f}' for error in row.errors)})" if len(row.errors) > 1 else ""
        gap = "reference" if not row.difference else "{:+.2f} ({:+.2f} to {:+.2f})".format(*row.difference)
        lines.append(
            "| "
            + " | ".join(
                [
                    f"control: {row.name}" if row.kind == "control" else row.name,
                    f"**{row.error:.2f}**{each}",
                    "{:.2f} to {:.2f}".format(*row.interval),
                    gap,
                    "" if row.p is None else _p(row.p),
                    _number(row.log_loss, 3),
                    _number(None if row.calibration_error is None else 100 * row.calibration_error, 2),
                    _number(row.on_target, 0),
                    _number(row.lift, 2),
                    f"{row.processed_pixels:,.0f}",
                    f"{row.unique_pixels:,.0f}",
                    row.sees,
                    f"{row.flops / 1e6:,.2f}",
                    f"{row.parameters:,}",
                    f"{row.seconds:,.0f}",
                    *(_number(row.seconds_to[str(goal)], 0) for goal in known),
                ]
            )
            + " |"
        )
    spoiled = sum(row.spoiled for row in rows)
    lines += [
        "",
        f"{rows[0].episodes:,} training images each, {len(rows[0].errors)} seed(s). Errors of the mean policy, one path an image, "
        "on the same test images, read once; the interval is over seeds and examples drawn anew (one seed: over examples alone).",
        f"Against {reference}: the mean error's difference in points with its interval; p is exact McNemar's, of the seed that is "
        "least sure, after Holm's correction. On target: looks whose middle lies on a digit; lift: as a multiple of random looks'.",
        "MFLOP: an image, of the mean policy. Weights: of a baseline all, of an agent those of its perception, without its "
        "policy's (whose FLOPs are counted). Seconds: training alone, median of seeds; s to x %: until the validation error was "
        "first at or below x.",
        *([f"{spoiled} line(s) of learning curves could not be read and were passed over."] if spoiled else []),
        "",
        *(f"- {row.name}: `{row.command}`" for row in ordered(rows)),
    ]
    return "\n".join(lines) + "\n"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}" if p >= 1e-99 else "<1e-99"


def as_csv(rows: Sequence[Row]) -> str:
    """The rows as comma-separated values, lists and goals spread over columns."""
    flat: list[dict[str, Any]] = []
    for row in ordered(rows):
        values = {key: value for key, value in asdict(row).items() if not isinstance(value, list | dict)}
        values |= {"error": row.error, "low": row.interval[0], "high": row.interval[1]}
        gap: Sequence[float | None] = row.difference or [None, None, None]
        values |= dict(zip(("difference", "difference_low", "difference_high"), gap, strict=True))
        values |= {f"error_seed_{k}": error for k, error in enumerate(row.errors)}
        flat.append(values | {f"seconds_to_{goal}": value for goal, value in row.seconds_to.items()})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def to_lines(parts: Mapping[str, Sequence[Row]]) -> str:
    """The rows of each part of a study as lines of JSON."""
    return "".join(json.dumps({"part": name} | asdict(row)) + "\n" for name, rows in parts.items() for row in rows)


def from_lines(text: str) -> dict[str, list[Row]]:
    """The inverse of `to_lines`."""
    parts: dict[str, list[Row]] = {}
    for line in text.splitlines():
        values = json.loads(line)
        parts.setdefault(values.pop("part"), []).append(Row(**values))
    return parts
