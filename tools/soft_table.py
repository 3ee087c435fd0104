"""Make results/soft.md: what papers on soft attention claim, tried again at small scale, from the runs in results/soft/runs.jsonl.

    python tools/soft_table.py add ROW RUN_FOLDER    # gather a finished run under a row's name
    python tools/soft_table.py                       # write the page again

A test makes the page again and compares it to the byte.
"""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gathered

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "results" / "soft"
RUNS, WORDS, PAGE = FOLDER / "runs.jsonl", FOLDER / "page.md", ROOT / "results" / "soft.md"

ROTATED = (
    "hardattn train ram-translated60 --set canvas.size=28 --set canvas.turn=90 --set augment=0 --set episodes=300000 "
    "--set evaluations=10 --baseline "
)
CLUTTERED = (
    "hardattn train ram-cluttered60 --set scales=2 --set num_glimpses=6 --set augment=0.2 --set evaluations=10 "
    "--set episodes=240000 --baseline "
)
FASHION = (
    "hardattn train ram-mnist --set dataset=fashion --set width=8 --set augment=0 --set episodes=25000 --set batch_size=128 "
    "--set evaluations=5 --baseline residual-attention --set learning="
)
# Row -> the command that makes it, without the seed.
ROWS = {
    "rotated: cnn": ROTATED + "cnn --set layout=paper",
    "rotated: stn": ROTATED + "stn --set classifier=paper --set baseline.size=28 --set localiser_rate=1",
    "rotated: stn, slow localiser": ROTATED + "stn --set classifier=paper --set baseline.size=28",
    "cluttered: cnn": CLUTTERED + "cnn",
    "cluttered: stn": CLUTTERED + "stn --set localiser_rate=1",
    "cluttered: stn, slow localiser": CLUTTERED + "stn",
    "cluttered, the paper's networks: cnn": CLUTTERED + "cnn --set layout=paper",
    "cluttered, the paper's networks: stn": CLUTTERED + "stn --set classifier=paper --set localiser_rate=1",
    **{f"depth: {kind}": FASHION + f"{kind} --set modules=3" for kind in ("none", "residual", "naive")},
    **{
        f"noise {100 * share:.0f} %: {kind}": FASHION + kind + (f" --set label_noise={share}" if share else "")
        for share in (0.0, 0.3, 0.5)
        for kind in ("none", "residual")
    },
}


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The whole page."""
    errors = {name: [row["protocols"]["mean"]["error"] for row in rows if row["row"] == name] for name in ROWS}
    errors = {name: each for name, each in errors.items() if each}
    lines = [
        "# Claims about soft attention, tried again",
        "",
        "Made by `python tools/soft_table.py` from `results/soft/runs.jsonl`; the text below the tables is `page.md` there.",
        "Errors in percent on the 10,000 test images, read once at the end of each run; small networks, short trainings.",
        "",
        *_table(rows, errors),
        "",
        "## The claims",
        "",
        "| claim | wanted | measured | |",
        "|---|---|---|---|",
        *_claims(rows, {name: statistics.mean(each) for name, each in errors.items()}),
        "",
        "## The commands",
        "",
        "Each with `--seed K` for seeds above 0.",
        "",
        *(f"- {name}: `{ROWS[name]}`" for name in errors),
        "",
    ]
    return "\n".join(lines) + "\n" + WORDS.read_text()


def _table(rows: Sequence[dict[str, Any]], errors: dict[str, list[float]]) -> list[str]:
    lines = [
        "| row | error, mean of seeds | each seed | weights | MFLOP an image | training seconds |",
        "|---|---|---|---|---|---|",
    ]
    for name, each in errors.items():
        runs = [row for row in rows if row["row"] == name]
        seconds = statistics.median(row["seconds"] for row in runs)
        lines.append(
            f"| {name} | **{statistics.mean(each):.2f}** | {', '.join(f'{error:.2f}' for error in each)} "
            f"| {runs[0]['parameters']:,} | {runs[0]['flops_per_image'] / 1e6:,.1f} | {seconds:,.0f} |"
        )
    return lines


def _claims(rows: Sequence[dict[str, Any]], mean: dict[str, float]) -> list[str]:
    lines = []
    for data, what in {
        "rotated": "rotated MNIST",
        "cluttered, the paper's networks": "cluttered MNIST, the paper's networks",
        "cluttered": "cluttered MNIST, this package's",
    }.items():
        transformer = next((name for name in (f"{data}: stn", f"{data}: stn, slow localiser") if name in mean), "")
        if transformer and f"{data}: cnn" in mean:
            ratio = mean[transformer] / mean[f"{data}: cnn"]
            lines.append(_claim(f"a spatial transformer's error as a share of the CNN's, {what}", "below 0.8", ratio, ratio < 0.8))
    covered = [row["protocols"]["mean"]["covered"] for row in rows if row["row"] == transformer]  # the cluttered one
    if covered:
        share = statistics.mean(covered)
        lines.append(_claim("crops that overlap the digit (IoU above 0.5), cluttered MNIST, %", "80 or more", share, share >= 80))
    if {"depth: naive", "depth: residual"} <= set(mean):
        gain = mean["depth: naive"] - mean["depth: residual"]
        lines.append(
            _claim("naive masks' error less that of residual ones, 3 modules a stage, points", "1 or more", gain, gain >= 1)
        )
    for noise in ("30", "50"):
        names = [f"noise {share} %: {kind}" for kind in ("none", "residual") for share in ("0", noise)]
        if set(names) <= set(mean):
            trunk, masked = (mean[names[k + 1]] - mean[names[k]] for k in (0, 2))
            what = f"what {noise} % wrong labels cost residual masks, less what they cost the trunk alone, points"
            lines.append(_claim(what, "below 0", masked - trunk, masked < trunk))
    return lines


def _claim(what: str, wanted: str, measured: float, met: bool) -> str:
    return f"| {what} | {wanted} | **{measured:.2f}** | {'reproduced' if met else 'not reproduced'} |"


def main() -> None:
    """Gather a run, or write the page."""
    if sys.argv[1:2] == ["add"]:
        gathered.add(RUNS, list(ROWS), sys.argv[2], Path(sys.argv[3]))
    PAGE.write_text(page(gathered.read(RUNS)))


if __name__ == "__main__":
    main()
