"""How errors on two digits depend on how far the digits lie over one another, of the weights that ship.

    python tools/overlap.py

writes results/canvases/overlap.json, from which tools/canvas_tables.py makes a table of results/dram.md.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from hardattn import evaluate, loading, plugins

FILE = Path(__file__).resolve().parent.parent / "results" / "canvases" / "overlap.json"
EDGES = (0.0, 0.3, 0.6, 1.0)  # shares of a digit's image that the other one covers, where the table's columns end


def covered(boxes: Tensor) -> Tensor:
    """The share of one box that the other covers, both of one size: [N, 2, 4] (left, top, right, bottom) -> [N]."""
    one, other = boxes.unbind(1)
    sides = (torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])).clamp_min(0)
    return sides.prod(dim=1) / (one[:, 2:] - one[:, :2]).prod(dim=1)


def errors(name: str) -> dict[str, list[float]]:
    """Percent of all canvases in each column, and percent told wrong there by the policy's looks and by the oracle's."""
    run = loading.open_run(name)
    assert run.dataset.boxes is not None
    share = covered(run.dataset.boxes)
    column = torch.bucketize(share, torch.tensor(EDGES))
    make = evaluate.test_world(run.world, run.dataset)
    told = {
        "policy": evaluate.measure(run.agent, make()).wrong,
        "oracle": evaluate.measure(plugins.make_agent("oracle", make()), make()).wrong,
    }
    there = [column == k for k in range(len(EDGES))]
    rows = {"share": [evaluate.percent(rows) for rows in there]}
    return rows | {who: [evaluate.percent(wrong[rows]) for rows in there] for who, wrong in told.items()}


if __name__ == "__main__":
    found = {name.removeprefix("dram-"): errors(name) for name in ("dram-pairs", "dram-addition")}
    FILE.write_text(json.dumps({"edges": EDGES, **found}, indent=2) + "\n")
    print(FILE.read_text())
