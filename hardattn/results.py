"""The folder of one run: config.json, curve.jsonl, checkpoint.safetensors, final.json. Everything the study knows, it reads here.

No pickle: tensors go to safetensors, all else to JSON, and a checkpoint keeps its JSON in the safetensors header, so that one
rename makes it whole. A file is written under a temporary name, synced, then renamed: a kill at any moment leaves the old one.
"""

import errno
import json
import math
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from hardattn.envs.errors import HardattnError, UsageError

if sys.platform != "win32":
    import fcntl

RUNS = Path("results/runs")
CONFIG, CURVE, CHECKPOINT, FINAL = "config.json", "curve.jsonl", "checkpoint.safetensors", "final.json"
ERROR = "error.txt"  # the traceback of an agent that failed
WEIGHTS = "weights.safetensors"  # perception and policy alone, as they ship with the package
PREDICTIONS = "predictions.safetensors"  # class probabilities and correctness of each test image, for paired tests


def folder_for(task: str, agent: str, seed: int, root: Path = RUNS) -> Path:
    """results/runs/<task>/<agent>/seed-<k>; an agent given as module:Class is named module.Class."""
    return root / task / agent.replace(":", ".") / f"seed-{seed}"


@contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turn what the file system refuses into one line with a remedy."""
    try:
        yield
    except OSError as error:
        remedies = {
            errno.ENOSPC: "the disk is full; make room, then add --resume to the same command",
            errno.EACCES: "no permission; choose another folder with --out",
            errno.EROFS: "the disk is read-only; choose another folder with --out",
            errno.ENOENT: "no such file or folder" + ("; choose another folder with --out" if doing == "write" else ""),
            errno.ENOTDIR: "a part of this path is a file; choose another folder with --out",
            errno.EEXIST: "a file of this name is in the way; choose another folder with --out",
        }
        raise HardattnError(f"cannot {doing} {path}: {remedies.get(error.errno or 0, str(error))}") from error


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file as a whole. Raises HardattnError if the disk is full or refuses; the old file then stands."""
    temporary = path.with_name(f".{path.name}.tmp")
    with explained(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make a run's folder and keep other processes from training in it at once. Raises UsageError if one does already."""
    with explained(folder, "write"):
        folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":  # which locks no folders
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
    except BlockingIOError:
        os.close(handle)
        raise UsageError(f"{folder}: another process is training there; wait for it or stop it, or choose another --out") from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file as a whole; raises as `write_bytes`."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises HardattnError if it is missing or damaged."""
    with explained(path, "read"):
        text = path.read_bytes()
    try:
        return json.loads(text)
    except ValueError as error:  # not JSON, or not UTF-8
        raise HardattnError(f"{path} is damaged: {error}; restore it, or train again without --resume") from error


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Save a nested state (dicts, lists, tensors, numbers, text) as one safetensors file; raises as `write_bytes`."""
    tensors: dict[str, Tensor] = {}
    tree = _strip(state, tensors)
    write_bytes(path, save_tensors(tensors, metadata={"tree": json.dumps(tree)}))


def read_state(path: Path) -> dict[str, Any]:
    """What `write_state` saved, tensors on the CPU. Raises HardattnError if the file is missing or damaged."""
    with explained(path, "read"):
        data = path.read_bytes()
    try:
        length = struct.unpack("<Q", data[:8])[0]  # a safetensors file starts with the length of its JSON header
        tree = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["tree"])
        return dict(_fill(tree, load_tensors(data)))
    except (SafetensorError, struct.error, ValueError, KeyError, TypeError) as error:
        raise HardattnError(f"{path} is damaged or not a hardattn checkpoint ({error}); restore it, or train again") from error


def _strip(node: Any, tensors: dict[str, Tensor]) -> Any:
    """The tree with each tensor moved to `tensors`. Dicts become lists of pairs, since an optimiser's keys are integers."""
    if isinstance(node, Tensor):
        name = f"t{len(tensors)}"
        tensors[name] = node.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(node, dict):
        return {"dict": [[key, _strip(value, tensors)] for key, value in node.items()]}
    if isinstance(node, list | tuple):
        return {"list": [_strip(value, tensors) for value in node]}
    if node is None or isinstance(node, bool | int | float | str):
        return {"value": node}
    raise HardattnError(
        f"cannot save a {type(node).__name__} in a checkpoint: keep tensors, numbers, text, lists and dicts in state_dict()"
    )


def _fill(node: Any, tensors: dict[str, Tensor]) -> Any:
    ((kind, value),) = node.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _fill(child, tensors) for key, child in value}
    if kind == "list":
        return [_fill(child, tensors) for child in value]
    return value


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Add one line to a curve; raises HardattnError if the disk refuses."""
    with explained(path, "write"), open(path, "a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()


def read_curve(path: Path) -> list[dict[str, Any]]:
    """The rows of a curve. A line that a kill left half written is passed over. Raises HardattnError if there is no file."""
    return _rows(path)[0]


class Point(NamedTuple):
    """A point of a learning curve."""

    episodes: int
    """Training images until then."""
    seconds: float
    """Of training."""
    validation_error: float
    """In percent."""


def read_points(path: Path) -> tuple[list[Point], int]:
    """A learning curve, and how many lines of its file are no point of one. Raises HardattnError if there is no file."""
    rows, spoiled = _rows(path)
    values = [[row.get(field) for field in Point._fields] for row in rows]
    points = [Point(*three) for three in values if all(_is_number(value) for value in three)]  # type: ignore[arg-type]
    return points, spoiled + len(rows) - len(points)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """What can be read of a file of rows, and how many of its lines cannot."""
    with explained(path, "read"):
        lines = path.read_bytes().splitlines()
    rows, spoiled = [], 0
    for line in lines:
        try:
            row = json.loads(line.decode())
        except ValueError:  # no JSON, or bytes that are no text
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            spoiled += 1
    return rows, spoiled


def trim_curve(path: Path, update: int) -> None:
    """Drop the rows after `update`, which a resumed run writes again."""
    if path.exists():
        rows = [row for row in read_curve(path) if row["update"] <= update]
        write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def rng_state() -> dict[str, Any]:
    """Torch's own random state, on the CPU and on every GPU."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_rng_state(state: dict[str, Any]) -> None:
    """Continue from `rng_state()`."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
