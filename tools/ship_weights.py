"""Turn a finished run into the weights that ship: perception and policy alone, in half precision.

    python tools/ship_weights.py results/runs/ram-mnist/reinforce/seed-1

writes hardattn/weights/<task>/config.json and weights.safetensors. Which seed ships is chosen by its validation error.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from hardattn import results
from hardattn.loading import SHIPPED

TRAINING_ONLY = ("optimizer", "critic", "generator")


def halve(node: Any) -> Any:
    """The same tree with its floating-point tensors as float16."""
    if isinstance(node, dict):
        return {key: halve(child) for key, child in node.items()}
    return node.half() if isinstance(node, torch.Tensor) and node.is_floating_point() else node


def ship(run: Path) -> Path:
    """Write the shipped folder of the run's task and return it."""
    config, state = results.read_json(run / results.CONFIG), results.read_state(run / results.CHECKPOINT)
    folder = SHIPPED / config["task"]["name"]
    agent = {key: value for key, value in state["agent"].items() if key not in TRAINING_ONLY}
    results.write_json(folder / results.CONFIG, config)
    results.write_state(folder / results.WEIGHTS, {"perception": halve(state["perception"]), "agent": halve(agent)})
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(f"written to {ship(Path(sys.argv[1]))}")
