"""Turn a finished run into weights that ship: perception and policy alone, in half precision.

    python tools/ship_weights.py results/runs/ram-mnist/reinforce/seed-1
    python tools/ship_weights.py results/runs/ram-mnist/pretrain/seed-0 ram-mnist-pretrained

writes hardattn/weights/<name>/config.json and weights.safetensors; the name is the task's if not given. Which seed ships is chosen
by its validation error.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from hardattn import experiment, results
from hardattn.envs.perception import weights_sha256
from hardattn.envs.task_data import training_data
from hardattn.loading import SHIPPED

TRAINING_ONLY = ("optimizer", "critic", "generator")


def halve(node: Any) -> Any:
    """The same tree with its floating-point tensors as float16."""
    if isinstance(node, dict):
        return {key: halve(child) for key, child in node.items()}
    return node.half() if isinstance(node, torch.Tensor) and node.is_floating_point() else node


def ship(run: Path, name: str = "") -> Path:
    """Write the shipped folder and return it."""
    config, state = results.read_json(run / results.CONFIG), results.read_state(run / results.CHECKPOINT)
    folder = SHIPPED / (name or config["task"]["name"])
    perception = halve(state["perception"])
    agent = {key: value for key, value in state["agent"].items() if key not in TRAINING_ONLY}
    results.write_json(folder / results.CONFIG, config)
    # The fingerprint is that of the weights as they are loaded: float32 again.
    setup = experiment.from_json(config)
    network = setup.perception(training_data(setup.task))
    network.load_state_dict(perception)
    shipped = {"perception": perception, "agent": halve(agent), "perception_sha256": weights_sha256(network)}
    results.write_state(folder / results.WEIGHTS, shipped)
    return folder


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    print(f"written to {ship(Path(sys.argv[1]), *sys.argv[2:])}")
