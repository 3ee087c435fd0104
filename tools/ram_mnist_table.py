"""Make results/ram-mnist.md from the final.json of each run, gathered in results/ram-mnist/runs.jsonl.

    python tools/ram_mnist_table.py add NAME RUN_FOLDER     # gather a finished run under a row's name
    python tools/ram_mnist_table.py                          # write the page again

A test makes the page again and compares it to the byte.
"""

import statistics
import sys
from pathlib import Path
from typing import Any

import gathered

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "results" / "ram-mnist" / "runs.jsonl"
PAGE = ROOT / "results" / "ram-mnist.md"
NOTES = ROOT / "results" / "ram-mnist" / "notes.md"

# Row name -> the command that makes it, without the seed.
COMMANDS = {
    "best": "hardattn train ram-mnist --preset best",
    "default": "hardattn train ram-mnist",
    "quick": "hardattn train ram-mnist --preset quick",
    "random": "hardattn train ram-mnist --agent random",
    "centre": "hardattn train ram-mnist --agent centre",
    "raster": "hardattn train ram-mnist --agent raster",
    "best-fc": "hardattn train ram-mnist --preset best --set encoder=fc",
    "best-plain": "hardattn train ram-mnist --preset best --set encoder=fc --set look_loss=1 --set encoder_width=128",
}


def page(rows: list[dict[str, Any]]) -> str:
    """The whole page."""
    lines = [
        "# ram-mnist: what was measured",
        "",
        "Made by `python tools/ram_mnist_table.py` from `results/ram-mnist/runs.jsonl`; the text below the tables is `notes.md`",
        "there. Errors in percent on the 10,000 test digits, read once at the end of each run. *Mean*: the mean policy, one",
        "path an image; this number counts. *Sampled*: looks drawn from the policy. *10 paths*: class probabilities averaged",
        "over 10 sampled paths.",
        "",
        "## Runs",
        "",
        "| row | seed | mean | 95 % interval | sampled | 10 paths | images shown | minutes | validation |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        protocols = row["protocols"]
        low, high = protocols["mean"]["interval"]
        lines.append(
            f"| {row['row']} | {row['seed']} | **{protocols['mean']['error']:.2f}** | {low:.2f} - {high:.2f} "
            f"| {protocols['sampled']['error']:.2f} | {protocols['paths10']['error']:.2f} | {row['episodes']:,} "
            f"| {row['seconds'] / 60:.1f} | {row['validation_error']:.2f} |"
        )
    lines += ["", "Commands (add `--seed K`):", ""]
    present = {row["row"] for row in rows}
    lines += [f"- {name}: `{command}`" for name, command in COMMANDS.items() if name in present]
    lines += ["", "## Learned looks against the controls", "", *controls(rows), "", NOTES.read_text().rstrip(), ""]
    return "\n".join(lines)


def controls(rows: list[dict[str, Any]]) -> list[str]:
    """Each control through a perception trained on just such looks, and through the learned perceptions."""
    mean = {
        name: statistics.mean(row["protocols"]["mean"]["error"] for row in rows if row["row"] == name)
        for name in {row["row"] for row in rows}
    }
    learned = [row for row in rows if row["row"] == "default"]
    lines = [
        "The same number of images for all (the default preset). *Fair*: through a perception trained on just such looks. *Same",
        "perception*: through the default runs' perceptions, which never saw such looks.",
        "",
        "| looks | fair | same perception | learned looks leave, of the fair control's error |",
        "|---|---|---|---|",
    ]
    for name in ("random", "centre", "raster"):
        if name in mean and learned:
            same = statistics.mean(row["controls"][name]["error"] for row in learned)
            lines.append(f"| {name} | {mean[name]:.2f} | {same:.2f} | {mean['default'] / mean[name]:.2f} |")
    if learned:
        lines.append(f"| learned (default) | {mean['default']:.2f} | | |")
    lines += ["", "| | error |", "|---|---|"]
    for name in ("best", "default"):
        seeds = [row["protocols"]["mean"]["error"] for row in rows if row["row"] == name]
        each = ", ".join(f"{error:.2f}" for error in seeds)
        lines += [f"| hardattn, {name} preset, mean of {len(seeds)} seeds (each: {each}) | {mean[name]:.2f} |"] if seeds else []
    published = next(row["config"]["task"]["published"] for row in rows)
    return lines + [f"| {source} | {error:.2f} |" for source, error in published]


if __name__ == "__main__":
    if sys.argv[1:2] == ["add"] and len(sys.argv) == 4:
        gathered.add(RUNS, COMMANDS, sys.argv[2], Path(sys.argv[3]))
    elif len(sys.argv) != 1:
        sys.exit(__doc__)
    PAGE.write_text(page(gathered.read(RUNS)))
