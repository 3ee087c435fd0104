import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")
# A shell without job control starts what it puts in the background deaf to Ctrl-C, which tests send and children inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def hardattn(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line as a person does: a process of its own, in an empty folder."""

    def run(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hardattn", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=timeout
        )

    return run
