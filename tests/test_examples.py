"""The examples run as they stand, and learn."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_single_file_ppo_runs_and_learns(tmp_path: Path) -> None:
    script = str(ROOT / "examples" / "cleanrl_ppo.py")
    command = [sys.executable, script, "--num-envs", "256", "--total-timesteps", str(40 * 6 * 256)]  # 240 steps of the vector
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    returns = [float(number) for number in re.findall(r"mean return (\S+)", ran.stdout)]
    assert len(returns) == 5 and returns[-1] > returns[0] + 0.05, returns
