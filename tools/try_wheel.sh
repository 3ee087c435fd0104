#!/usr/bin/env bash
# Build the wheel, install it into a clean environment, leave the checkout, and see that it lists, trains and reports.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root"
python -m build --quiet --wheel --outdir "$work/dist" .
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$work"/dist/*.whl
cd "$work"
"$work/venv/bin/hardattn" list
"$work/venv/bin/hardattn" train ram-mnist --preset quick --set episodes=60_000 --set evaluations=2
"$work/venv/bin/hardattn" evaluate ram-mnist --split validation
"$work/venv/bin/hardattn" report ram-mnist results/runs/ram-mnist -o report.html
echo "the wheel works outside the checkout"
