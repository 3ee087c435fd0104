"""Train several runs side by side, each in a process of its own, and tell how far they are."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hardattn import results
from hardattn.compare import Wanted
from hardattn.envs.errors import HardattnError
from hardattn.train import Interrupted, interruptible

LOG = "train.log"
PATIENCE = 60.0  # seconds for a run that was told to stop to write its checkpoint


@dataclass(frozen=True)
class State:
    """How far one run is."""

    run: Wanted
    status: str
    """waiting, training, finished or failed."""
    share: float
    """Of its budget, 0 to 1."""
    validation_error: float | None


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _asked_threads() -> int:
    """OMP_NUM_THREADS where it is set: other work may be going on here."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) > 0 else cores()


def state_of(run: Wanted, status: str) -> State:
    """How far a run is, by its learning curve."""
    curve = run.folder / results.CURVE
    points = results.read_points(curve)[0] if curve.exists() else []
    share = min(1.0, points[-1].episodes / run.setup.train.episodes) if points else 0.0
    return State(run, status, 1.0 if status == "finished" else share, points[-1].validation_error if points else None)


def train_missing(
    wanted: Sequence[Wanted], jobs: int = 0, watch: Callable[[list[State]], None] = lambda states: None, pause: float = 1.0
) -> None:
    """Train what is not finished, `jobs` at a time (0: as many as there are cores), going on from checkpoints.

    What each run prints is in its folder's train.log. Raises Interrupted on Ctrl-C, when all have written their checkpoints, and
    HardattnError when runs failed; the others are trained to their end all the same.
    """
    waiting = [run for run in wanted if not run.finished]
    jobs = max(1, min(jobs or cores(), len(waiting)))
    threads = min(max(1, cores() // jobs), _asked_threads())
    running: dict[subprocess.Popen[bytes], Wanted] = {}
    failed: list[Wanted] = []
    with interruptible() as interrupted:
        try:
            while (waiting or running) and not interrupted():
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    running[_start(run, threads)] = run
                watch([state_of(run, _status(run, running, failed)) for run in wanted])
                time.sleep(pause)
                for process in [process for process in running if process.poll() is not None]:
                    run = running.pop(process)
                    failed += [] if process.returncode == 0 and run.finished else [run]
            stopped = bool(waiting or running)
        finally:  # whatever goes wrong here, no training is left behind
            _stop(running)
    watch([state_of(run, _status(run, {}, failed)) for run in wanted])
    if stopped:
        raise Interrupted("stopped; give the same command again to go on")
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise HardattnError(f"{failed[0].name} failed{more}: {_last_line(failed[0].folder / LOG)}; see {failed[0].folder / LOG}")


def _start(run: Wanted, threads: int) -> "subprocess.Popen[bytes]":
    arguments = [sys.executable, "-m", "hardattn", *run.arguments, "--resume"]
    with results.explained(run.folder, "write"):
        run.folder.mkdir(parents=True, exist_ok=True)
    # A session of its own: Ctrl-C reaches this process alone, which tells the others.
    with results.explained(run.folder / LOG, "write"), open(run.folder / LOG, "ab") as log:
        return subprocess.Popen(
            arguments,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )


def _stop(running: "dict[subprocess.Popen[bytes], Wanted]") -> None:
    for process in running:
        process.send_signal(signal.SIGINT)
    for process in running:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()


def _status(run: Wanted, running: "dict[subprocess.Popen[bytes], Wanted]", failed: list[Wanted]) -> str:
    if run.finished:
        return "finished"
    return "failed" if run in failed else "training" if run in running.values() else "waiting"


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1].removeprefix("hardattn: ") if lines else "it printed nothing"
