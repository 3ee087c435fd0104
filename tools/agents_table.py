"""Make results/agents-ram-mnist.md: agents on one frozen perception, from the runs gathered in results/agents-ram-mnist/runs.jsonl.

    python tools/agents_table.py add ROW RUN_FOLDER     # gather a finished run under a row's name
    python tools/agents_table.py                         # write the page again

A test makes the page again and compares it to the byte.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import gathered

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "results" / "agents-ram-mnist"
RUNS, NOTES = FOLDER / "runs.jsonl", FOLDER / "notes.md"
PAGE, SPEED = ROOT / "results" / "agents-ram-mnist.md", ROOT / "results" / "environment-speed.json"

COMMON = "hardattn train ram-mnist --set mode=frozen --set episodes=200_000 --set evaluations=20"
# Row name -> what the command adds to COMMON.
ROWS = {
    "reinforce": "",
    "ppo": "--agent ppo",
    "pathwise": "--agent pathwise",
    "snes": "--agent snes",
    "sb3:PPO": "--agent sb3:PPO",
}
REFERENCE, CHALLENGER = "sb3:PPO", "ppo"


def seconds_to(run: dict[str, Any], error: float) -> float | None:
    """Training seconds until the validation error was first at most `error`; None if it never was."""
    return next((seconds for _, seconds, reached in run["curve"] if reached <= error), None)


def page(rows: list[dict[str, Any]]) -> str:
    """The whole page."""
    by_row = {name: [row for row in rows if row["row"] == name] for name in ROWS}
    by_row = {name: runs for name, runs in by_row.items() if runs}
    lines = [
        "# Agents on one frozen perception: ram-mnist",
        "",
        "Made by `python tools/agents_table.py` from `results/agents-ram-mnist/runs.jsonl` and `results/environment-speed.json`;",
        "the text below the tables is `notes.md` there. Errors in percent on the 10,000 test digits, of the mean policy with one",
        "path an image. Every agent plays the same number of episodes over the same perception, which was trained on random looks",
        "and ships with the package (`ram-mnist-pretrained`).",
        "",
        "| agent | mean of seeds | each seed | sampled | 10 paths | training seconds | episodes/s | different pixels |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in by_row.items():
        mean, sampled, paths = (
            [run["protocols"][protocol]["error"] for run in runs] for protocol in ("mean", "sampled", "paths10")
        )
        seconds = statistics.median(run["seconds"] for run in runs)
        each = ", ".join(f"{error:.2f}" for error in mean)
        unique = statistics.mean(run["unique_pixels"] for run in runs)
        lines.append(
            f"| {name} | **{statistics.mean(mean):.2f}** | {each} | {statistics.mean(sampled):.2f} "
            f"| {statistics.mean(paths):.2f} | {seconds:.0f} | {runs[0]['episodes'] / seconds:,.0f} "
            f"| {unique:.0f} |"
        )
    for name, row in next(iter(by_row.values()))[0]["controls"].items():
        lines.append(f"| control: {name} | {row['error']:.2f} | | | | | | |")
    lines += ["", "Commands (add `--seed K`):", ""]
    lines += [f"- {name}: `{f'{COMMON} {ROWS[name]}'.strip()}`" for name in by_row]
    lines += ["", *race(by_row), "", *speeds(), "", NOTES.read_text().rstrip(), ""]
    return "\n".join(lines)


def race(by_row: dict[str, list[dict[str, Any]]]) -> list[str]:
    """How long each agent takes to the reference's final validation error."""
    goal = statistics.mean(run["curve"][-1][2] for run in by_row[REFERENCE])
    lines = [
        f"## Seconds to the error that {REFERENCE} ends with ({goal:.2f} % on validation, mean of its seeds)",
        "",
        "| agent | seconds, each seed | median | times faster than the whole run of " + REFERENCE + " |",
        "|---|---|---|---|",
    ]
    whole = statistics.median(run["seconds"] for run in by_row[REFERENCE])
    for name, runs in by_row.items():
        times = [seconds_to(run, goal) for run in runs]
        reached = [seconds for seconds in times if seconds is not None]
        each = ", ".join("never" if seconds is None else f"{seconds:.0f}" for seconds in times)
        middle = statistics.median(reached) if len(reached) == len(times) else None
        lines.append(f"| {name} | {each} | " + (" | |" if middle is None else f"{middle:.0f} | {whole / middle:.1f} |"))
    return lines


def speeds() -> list[str]:
    """Steps a second of the environment faces."""
    table = json.loads(SPEED.read_text())
    rates, turns = table["steps_per_second"], len(next(iter(table["rounds"].values())))
    lines = [
        "## Steps a second of the environments",
        "",
        f"`python tools/environment_speed.py`: one look of one row is a step, resets included; medians of {turns} rounds "
        f"in which all take turns; {table['threads']} threads, torch {table['torch']}.",
        "",
        "| environment | steps/s |",
        "|---|---|",
        *(f"| {name} | {rate:,} |" for name, rate in rates.items()),
    ]
    perception, raw = rates["vector environment, 4096 rows"], rates["raw glimpses, 4096 rows"]
    dummy = rates["DummyVecEnv over 64 single environments"]
    peer = max((rate for name, rate in rates.items() if name.startswith("ap_gym")), default=None)
    lines += [
        "",
        f"- The vector environment makes {perception / dummy:,.0f} times the steps of DummyVecEnv over single environments.",
    ]
    if peer:
        lines += [
            f"- Against ap_gym at its better batch size: raw glimpses {raw / peer:,.0f} times, with the frozen perception "
            f"{perception / peer:,.0f} times."
        ]
    return lines


if __name__ == "__main__":
    if sys.argv[1:2] == ["add"] and len(sys.argv) == 4:
        gathered.add(RUNS, ROWS, sys.argv[2], Path(sys.argv[3]), curve=True)
    elif len(sys.argv) != 1:
        sys.exit(__doc__)
    PAGE.write_text(page(gathered.read(RUNS)))
