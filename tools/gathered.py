"""Finished runs gathered in a results page's runs.jsonl, one a line: what the tables there are made from."""

import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any


def add(runs: Path, known: Collection[str], name: str, folder: Path, *, curve: bool = False) -> None:
    """Gather a run's final.json and settings (and its curve) under a row's name; it replaces an older one of that row and seed."""
    if name not in known:
        sys.exit(f"no row is called {name}; known: {', '.join(known)}")
    final, config = (json.loads((folder / file).read_text()) for file in ("final.json", "config.json"))
    row = {"row": name, **{key: value for key, value in final.items() if key != "command"}, "config": config}
    if curve:
        points = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
        row["curve"] = [[point["episodes"], point["seconds"], point["validation_error"]] for point in points]
    rows = [old for old in read(runs) if (old["row"], old["seed"]) != (name, final["seed"])] + [row]
    rows.sort(key=lambda one: (list(known).index(one["row"]), one["seed"]))
    runs.parent.mkdir(exist_ok=True)
    runs.write_text("".join(json.dumps(one) + "\n" for one in rows))


def read(runs: Path) -> list[dict[str, Any]]:
    """The gathered runs."""
    return [json.loads(line) for line in runs.read_text().splitlines()] if runs.exists() else []
