"""Make results/ram.md, results/dram.md and the figure of looks on target, from the runs gathered in results/canvases/runs.jsonl.

    python tools/canvas_tables.py add ROW RUN_FOLDER     # gather a finished run under a row's name
    python tools/canvas_tables.py                         # write the pages again
    python tools/canvas_tables.py figure                  # draw results/on-target.png again

A test makes the pages again and compares them to the byte.
"""

import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import gathered

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "results" / "canvases"
RUNS = FOLDER / "runs.jsonl"
FIGURE = ROOT / "results" / "on-target.png"

CRISP = "results/runs/crisp"  # where the commands of two stages keep the first


def two_stages(task: str) -> tuple[str, str]:
    """The commands of a run whose clutter was left crisp, and of the one that goes on from it."""
    first = f"{CRISP}/{task}"
    return (
        f"hardattn train {task} --preset best --set augment_clutter=off --out {first}",
        f"hardattn train {task} --preset finish --set start_from={first}",
    )


# Page -> row name -> the command that makes it, without the seed. Before a comma stands the task.
PAGES = {
    "ram": {
        "translated60": "hardattn train ram-translated60",
        "translated60, best": "hardattn train ram-translated60 --preset best",
        "cluttered60": "hardattn train ram-cluttered60",
        "cluttered60, crisp": two_stages("ram-cluttered60")[0],
        "cluttered60, finished": two_stages("ram-cluttered60")[1],
        "cluttered100": "hardattn train ram-cluttered100",
        "cluttered100, crisp": two_stages("ram-cluttered100")[0],
        "cluttered100, finished": two_stages("ram-cluttered100")[1],
        "cluttered60-narrow": "hardattn train ram-cluttered60-narrow",
        "cluttered60-narrow, finished": "hardattn train ram-cluttered60-narrow --preset finish "
        "--set start_from=results/runs/ram-cluttered60-narrow/reinforce/seed-K "
        "--out results/runs/finished/ram-cluttered60-narrow/seed-K",
        "cluttered60-narrow, random looks": "hardattn train ram-cluttered60-narrow --agent random --set augment_clutter=off",
    },
    "dram": {
        "pairs": "hardattn train dram-pairs",
        "pairs, best": "hardattn train dram-pairs --preset best --out results/runs/best/dram-pairs",
        "pairs, finished": "hardattn train dram-pairs --preset finish --set start_from=results/runs/best/dram-pairs",
        "addition": "hardattn train dram-addition",
        "addition, best": "hardattn train dram-addition --preset best",
        "catch": "hardattn train catch --agent ppo",
    },
}
# What the issue of this page asks for, in percent.
TARGETS = {"translated60": 0.9, "cluttered60": 2.5, "cluttered100": 4.0, "pairs": 4.0, "addition": 2.0, "catch": 5.0}
TITLES = {
    "ram": "RAM on canvases: translated and cluttered digits",
    "dram": "DRAM's two digits, and Catch",
}


def task_of(row: str) -> str:
    """The task behind a row's name."""
    return row.partition(",")[0]


def minutes(seconds: float) -> str:
    """Whole minutes; less than one to a tenth."""
    return f"{seconds / 60:.{0 if seconds >= 60 else 1}f}"


def page(rows: list[dict[str, Any]], name: str) -> str:
    """One page as text."""
    commands = PAGES[name]
    rows = [row for row in rows if row["row"] in commands]
    lines = [
        f"# {TITLES[name]}",
        "",
        "Made by `python tools/canvas_tables.py` from `results/canvases/runs.jsonl`; the text below the tables is",
        f"`{name}.md` there. Errors in percent on the 10,000 fixed test examples of the task, read once at the end of each run.",
        "*Mean*: the mean policy, one path an example; this number counts. *Sampled*: looks drawn from the policy. *10 paths*:",
        "probabilities averaged over 10 sampled paths. The controls look through the same perception, which was not trained on",
        "their looks.",
        "",
        "| row | seed | mean | 95 % interval | sampled | 10 paths | random | centre | oracle | target |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        protocols, controls = row["protocols"], row["controls"]
        low, high = protocols["mean"]["interval"]
        told = [f"{controls[control]['error']:.2f}" if control in controls else "" for control in ("random", "centre", "oracle")]
        # What games came to cannot be averaged.
        paths = "" if row["config"]["task"].get("catch") else f"{protocols['paths10']['error']:.2f}"
        task = task_of(row["row"])
        target = f"{TARGETS[task]:.1f}" if task in TARGETS else ""
        lines.append(
            f"| {row['row']} | {row['seed']} | **{protocols['mean']['error']:.2f}** | {low:.2f} - {high:.2f} "
            f"| {protocols['sampled']['error']:.2f} | {paths} | {' | '.join(told)} | {target} |"
        )
    lines += [
        "",
        "| row | seed | shown in training | on | minutes | validation | parameters of perception |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['row']} | {row['seed']} | {row['episodes']:,} | {row['config']['device'].partition(':')[0].upper()} "
            f"| {minutes(row['seconds'])} | {row['validation_error']:.2f} | {row['parameters']:,} |"
        )
    present = [row["row"] for row in rows]
    lines += ["", "Commands (add `--seed K`; a K in a folder's name is the same):", ""]
    lines += [f"- {row}: `{command}`" for row, command in commands.items() if row in present]
    lines += ["", *beside(rows), *(by_overlap() if name == "dram" else []), "", (FOLDER / f"{name}.md").read_text().rstrip(), ""]
    return "\n".join(lines)


def beside(rows: list[dict[str, Any]]) -> list[str]:
    """Our mean over seeds beside what others report, and looks on target."""
    lines = ["## Beside what others report", "", "| task | who | error |", "|---|---|---|"]
    for task in dict.fromkeys(task_of(row["row"]) for row in rows):
        of_task = [row for row in rows if task_of(row["row"]) == task]
        for name in dict.fromkeys(row["row"] for row in of_task):
            errors = [row["protocols"]["mean"]["error"] for row in of_task if row["row"] == name]
            seeds = f"{len(errors)} seed{'s' if len(errors) > 1 else ''}"
            lines.append(f"| {name} | hardattn, {seeds} | **{statistics.mean(errors):.2f}** |")
        lines += [f"| | {source} | {theirs:.2f} |" for source, theirs in of_task[0]["config"]["task"]["published"]]
    found = [row for row in rows if "on_target_by_look" in row["protocols"]["mean"]]
    if found:
        lines += ["", "## Looks on target, in percent", "", "| row | looks chosen by | each look |", "|---|---|---|"]
        for name in dict.fromkeys(row["row"] for row in found):
            seeds = [row for row in found if row["row"] == name]
            told = [("policy", row["protocols"]["mean"]) for row in seeds] + [("random", seeds[0]["controls"]["random"])]
            for who, measured in told:
                lines.append(f"| {name} | {who} | {' '.join(f'{rate:.0f}' for rate in measured['on_target_by_look'])} |")
    return lines


def by_overlap() -> list[str]:
    """Errors on two digits by how far they lie over one another, from what tools/overlap.py measured."""
    found = json.loads((FOLDER / "overlap.json").read_text())
    ends = [f"{100 * edge:.0f}" for edge in found.pop("edges")]
    columns = ["apart", *(f"{low} to {high} %" for low, high in itertools.pairwise(ends))]
    lines = ["", "## Two digits over one another", ""]
    lines += [
        "Canvases by the share of a digit's 28 x 28 pixels that the other's cover (`python tools/overlap.py`), in percent:",
        "",
    ]
    lines += ["| row | | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for row, told in found.items():
        for what, each in {"of all canvases": "share", "error": "policy", "error, the oracle's looks": "oracle"}.items():
            lines.append(f"| {row} | {what} | " + " | ".join(f"{value:.1f}" for value in told[each]) + " |")
    return lines


def draw(rows: list[dict[str, Any]]) -> None:
    """The share of looks on target, look by look, of each task's last row (a line a seed) and of random looks."""
    import matplotlib.pyplot as plt

    found = [row for row in rows if "on_target_by_look" in row["protocols"]["mean"] and row["config"]["agent"] != "random"]
    names = list({task_of(row["row"]): row["row"] for row in found}.values())
    figure, grid = plt.subplots(1, len(names), figsize=(2.6 * len(names), 2.6), sharey=True, squeeze=False, layout="constrained")
    for axes, name in zip(grid[0], names, strict=True):
        seeds = [row for row in found if row["row"] == name]
        looks = range(1, len(seeds[0]["protocols"]["mean"]["on_target_by_look"]) + 1)
        for row in seeds:
            label = "learned policy" if row is seeds[0] else None
            axes.plot(looks, row["protocols"]["mean"]["on_target_by_look"], "o-", color="#d62728", markersize=3, label=label)
        axes.plot(
            looks, seeds[0]["controls"]["random"]["on_target_by_look"], "o-", color="#9aa5b1", markersize=3, label="random looks"
        )
        axes.set(title=task_of(name), xlabel="look", ylim=(0, 100))
        axes.title.set_fontsize(9)
    grid[0, 0].set_ylabel("on target, %")
    grid[0, 0].legend(fontsize=7, loc="lower right")
    figure.savefig(FIGURE, dpi=130)


if __name__ == "__main__":
    rows_of_all_pages = [row for commands in PAGES.values() for row in commands]
    if sys.argv[1:2] == ["add"] and len(sys.argv) == 4:
        gathered.add(RUNS, rows_of_all_pages, sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1:] == ["figure"]:
        draw(gathered.read(RUNS))
    elif len(sys.argv) != 1:
        sys.exit(__doc__)
    for name in PAGES:
        (ROOT / "results" / f"{name}.md").write_text(page(gathered.read(RUNS), name))
