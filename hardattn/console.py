"""What a person sees in the terminal: progress, tables, one line at the end. All but results goes to standard error."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from hardattn.table import ordered

notes = Console(stderr=True)
results = Console()
PLAIN_SECONDS = 20.0  # between progress lines where there is no terminal, such as a log file


@contextmanager
def progress(title: str) -> Iterator[Callable[[Any], None]]:
    """A live bar: episodes, error on validation, images a second, time left; plain lines now and then where nobody watches live.

    Yields the function to call with each `train.Progress`.
    """
    bar = Progress(
        SpinnerColumn(),
        TextColumn(title),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=notes,
        disable=not notes.is_terminal,
        transient=True,
    )
    started, first, last_line = time.monotonic(), None, 0.0
    with bar:
        task = bar.add_task(title, total=None, note="")

        def watch(now: Any) -> None:
            nonlocal first, last_line
            first = now.episodes if first is None else first  # a resumed run does not start at 0
            elapsed = time.monotonic() - started
            speed = (now.episodes - first) / max(elapsed, 1e-9)
            error = "" if now.validation_error is None else f" · validation error {now.validation_error:.2f} %"
            note = f"{now.phase} · {now.episodes:,} of {now.total:,} episodes{error} · {speed:,.0f} images/s"
            bar.update(task, completed=now.episodes, total=now.total, note=note)
            if not notes.is_terminal and (elapsed - last_line > PLAIN_SECONDS or now.episodes == now.total):
                last_line = elapsed
                notes.print(f"{title} · {note}", highlight=False, soft_wrap=True)

        yield watch


@contextmanager
def bytes_progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A live bar of a download. Yields the function to call with bytes done and in all (0 where that is unknown)."""
    columns = (SpinnerColumn(), TextColumn(title), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, disable=not notes.is_terminal, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


@contextmanager
def status(what: str) -> Iterator[Callable[[str], None]]:
    """A spinner that says what is going on. Yields the function to tell it."""
    with notes.status(what) as spinner:
        yield lambda detail: spinner.update(f"{what}: {detail}")


def say(text: str) -> None:
    """One line to the person, apart from the results."""
    notes.print(text, highlight=False, soft_wrap=True)


def show_report(report: dict[str, Any]) -> None:
    """The table of an evaluation: protocols above, controls below."""
    shown = f" of {report['data']}" if "data" in report else ""
    table = Table(title=f"{report['task']} · {report['agent']} · {report['images']:,} images{shown}", title_justify="left")
    table.add_column("looks chosen by")
    table.add_column("error", justify="right")
    table.add_column("95 % interval", justify="right")
    names = {"mean": "mean policy, one path", "sampled": "sampled policy, one path", "paths10": "average of 10 sampled paths"}
    for key, row in report["protocols"].items():
        low, high = row["interval"]
        table.add_row(names.get(key, key), f"{row['error']:.2f} %", f"{low:.2f} - {high:.2f} %")
    table.add_section()
    for key, row in report["controls"].items():
        table.add_row(f"control: {key}, same perception", f"{row['error']:.2f} %", "")
    results.print(table)
    if "on_target_by_look" in report["protocols"]["mean"]:
        policies = [("mean policy", report["protocols"]["mean"])]
        policies += [("random looks", report["controls"]["random"])] if "random" in report["controls"] else []
        for who, row in policies:
            rates = " ".join(f"{rate:.0f}" for rate in row["on_target_by_look"])
            results.print(f"looks on target, {who}, each look: {rates} %", highlight=False, soft_wrap=True)
    errors = report["protocols"]["mean"]["error_by_look"]
    if len(errors) > 1:
        by_look = " ".join(f"{error:.2f}" for error in errors)
        results.print(f"error after each look: {by_look} %", highlight=False, soft_wrap=True)
    results.print(
        f"pixels per image: {report['processed_pixels']:.0f} processed, {report['unique_pixels']:.0f} different",
        highlight=False,
        soft_wrap=True,
    )


@contextmanager
def many(title: str) -> Iterator[Callable[[list[Any]], None]]:
    """A bar for each run that trains; plain lines now and then where nobody watches live.

    Yields the function to call with a list of `pool.State`.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        console=notes,
        disable=not notes.is_terminal,
        transient=True,
    )
    tasks: dict[Any, Any] = {}
    last_line = time.monotonic()
    with bar:

        def watch(states: list[Any]) -> None:
            nonlocal last_line
            for state in states:
                key = state.run.folder
                error = "" if state.validation_error is None else f" · validation error {state.validation_error:.2f} %"
                if key not in tasks:
                    tasks[key] = bar.add_task(f"{state.run.name} seed {state.run.setup.seed}", total=1.0, note="")
                bar.update(tasks[key], completed=state.share, note=state.status + error, visible=state.status != "waiting")
            if not notes.is_terminal and time.monotonic() - last_line > PLAIN_SECONDS:
                last_line = time.monotonic()
                now = [f"{state.run.name} {100 * state.share:.0f} %" for state in states if state.status == "training"]
                done = sum(state.status == "finished" for state in states)
                said = f"{title} · {done} of {len(states)} runs finished · training {', '.join(now)}"
                notes.print(said, highlight=False, soft_wrap=True)

        yield watch


def show_comparison(rows: list[Any], title: str) -> None:
    """The table of a comparison in 80 columns; what does not fit there is in the files."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("method", no_wrap=True)
    for head in ("error", "95 %", "diff", "p", "target", "pixels", "MFLOP", "s"):
        table.add_column(head, justify="right", no_wrap=True, min_width=len(head))
    controls = False
    for row in ordered(rows):
        if row.kind == "control" and not controls:
            controls = True
            table.add_section()
        table.add_row(
            row.name,
            f"{row.error:.2f}",
            "{:.2f}-{:.2f}".format(*row.interval),
            f"{row.difference[0]:+.2f}" if row.difference else "-",
            "" if row.p is None else "<.001" if row.p < 0.001 else f"{row.p:.3f}",
            "" if row.on_target is None else f"{row.on_target:.0f}",
            f"{row.processed_pixels:,.0f}",
            f"{row.flops / 1e6:,.1f}",
            f"{row.seconds:,.0f}",
        )
    results.print(table)
    results.print("error, its interval, diff to the reference and looks on target in percent; s: training seconds", soft_wrap=True)


def show_findings(findings: list[Any]) -> None:
    """A line for each contract test."""
    for finding in findings:
        mark = "ok  " if finding.passed else ("note" if finding.advice else "FAIL")
        results.print(
            f"{mark} {finding.test}{': ' + finding.note if finding.note else ''}", highlight=False, soft_wrap=True, markup=False
        )
