"""Run mypy on the package as it will be installed.

`hardattn.envs` lies in `envs/` and `hardattn.agents` in `agents/`; type checkers do not follow the install's mapping. So this
lays a tree of links with the installed shape under `.typecheck` and points mypy there (see `mypy_path` in pyproject.toml).
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def lay_links() -> None:
    """Make .typecheck/hardattn hold links to everything that the wheel's hardattn folder will hold."""
    tree = ROOT / ".typecheck" / "hardattn"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    for path in [*(ROOT / "hardattn").iterdir(), ROOT / "envs", ROOT / "agents"]:
        if path.name != "__pycache__":
            (tree / path.name).symlink_to(path)


if __name__ == "__main__":
    lay_links()
    sys.exit(subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT).returncode)
