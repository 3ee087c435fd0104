"""The examples run as they stand, and learn."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_single_file_ppo_runs_and_learns(tmp_path: Path) -> None:
    script = str(ROOT / "examples" / "cleanrl_ppo.py")
    command = [sys.executable, script, "--num-envs", "512", "--total-timesteps", str(34 * 6 * 512)]  # 204 steps of the vector
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    returns = [float(number) for number in re.findall(r"mean return (\S+)", ran.stdout)]
    assert len(returns) == 5 and sum(returns[-3:]) / 3 > returns[0] + 0.005, returns  # each of 512 episodes: within 0.012
