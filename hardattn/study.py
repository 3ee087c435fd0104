"""A comparison from names to files: train what is missing, read the runs, write the table and its pictures.

Once, or for each value of a setting that is swept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hardattn import compare, pool, results, settings, table
from hardattn.compare import Comparison, Wanted
from hardattn.envs.errors import UsageError
from hardattn.rows import read as read_rows
from hardattn.table import Row

ROWS, TABLE, VALUES = "rows.jsonl", "table.md", "table.csv"


@dataclass(frozen=True)
class Part:
    """One value of the swept setting, or the whole comparison if none is swept."""

    name: str
    """`KEY=VALUE`, or empty."""
    wanted: list[Wanted]
    """Its runs."""


def swept(sweep: str) -> list[str]:
    """`canvas.size=40,60` as ["canvas.size=40", "canvas.size=60"]; [""] for none. Raises UsageError for anything else."""
    if not sweep:
        return [""]
    ((key, values),) = settings.parse([sweep]).items()
    found = [value.strip() for value in values.split(",") if value.strip()]
    if len(found) < 2 or len(set(found)) < len(found):
        raise UsageError(f"--sweep {sweep}: wanted two or more different values, e.g. canvas.size=40,60,100")
    return [f"{key}={value}" for value in found]


def plan(asked: Comparison, sweep: str = "") -> list[Part]:
    """All runs of a study; those of a swept value lie in a folder of its name. Raises UsageError as `compare.plan`."""
    return [
        Part(name, compare.plan(replace(asked, sets=(*asked.sets, name), root=asked.root / name) if name else asked))
        for name in swept(sweep)
    ]


def train(parts: Sequence[Part], jobs: int, watch: Callable[[list[pool.State]], None]) -> None:
    """Train what is not finished; raises as `compare.check` and `pool.train_missing`."""
    wanted = [run for part in parts for run in part.wanted]
    compare.check(wanted)
    pool.train_missing(wanted, jobs, watch)


def read(parts: Sequence[Part], reference: str = "") -> dict[str, list[Row]]:
    """Rows by the part's name; raises as `rows.read`."""
    return {part.name: read_rows(part.wanted, reference) for part in parts}


def write(rows: dict[str, list[Row]], title: str, command: str, curves: dict[str, list[Wanted]], out: Path) -> list[Path]:
    """Raw rows, Markdown, CSV and pictures in a folder. Returns the files; raises HardattnError if the disk refuses."""
    from hardattn import plots_compare

    results.write_bytes(out / ROWS, table.to_lines(rows).encode())
    results.write_bytes(out / TABLE, page(rows, title, command).encode())
    files = [out / TABLE, out / ROWS]
    for name, part in rows.items():
        suffix = f"-{name}" if name else ""
        values = out / f"{Path(VALUES).stem}{suffix}.csv"
        results.write_bytes(values, table.as_csv(part).encode())
        picture = plots_compare.draw_errors(part, curves[name], out / f"errors{suffix}.png", f"{title} {name}".strip())
        files += [values, picture]
    if len(rows) > 1:
        files.append(plots_compare.draw_sweep(rows, out / "sweep.png", title))
    return files


def page(rows: dict[str, list[Row]], title: str, command: str) -> str:
    """The Markdown page of a study: for a sweep one table of errors over all values first, then each value's own."""
    lines = [f"# {title}", "", f"Made by `{command}` from the runs' folders; raw rows in `{ROWS}`.", ""]
    if len(rows) > 1:
        lines += [*overview(rows), ""]
    for name, part in rows.items():
        lines += [*([f"## {name}", ""] if name else []), table.markdown(part)]
    return "\n".join(lines)


def overview(rows: dict[str, list[Row]]) -> list[str]:
    """Errors and training seconds of every method at every swept value, as lines of Markdown."""
    first = next(iter(rows.values()))
    lines = ["Test error in percent, mean of seeds (training seconds):", ""]
    lines += ["| method | " + " | ".join(rows) + " |", "|---|" + "---|" * len(rows)]
    for row in table.ordered(first):
        cells = []
        for part in rows.values():
            here = next(one for one in part if one.name == row.name)
            cells.append(f"{here.error:.2f} ({here.seconds:,.0f})")
        lines.append(f"| {'control: ' if row.kind == 'control' else ''}{row.name} | " + " | ".join(cells) + " |")
    return lines


def page_again(folder: Path, title: str, command: str) -> str:
    """The page from the raw rows in a folder alone."""
    return page(table.from_lines((folder / ROWS).read_text()), title, command)
