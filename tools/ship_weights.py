"""Turn a finished run into weights that ship: perception and the LSTM beside it in bfloat16 (unless `--in-full`), all else in full.

    python tools/ship_weights.py results/runs/ram-mnist/reinforce/seed-1
    python tools/ship_weights.py results/runs/ram-mnist/pretrain/seed-0 ram-mnist-pretrained
    python tools/ship_weights.py results/runs/dasnet-cifar10/pretrain-maxout/seed-0 dasnet-cifar10-maxout --in-full

writes hardattn/weights/<name>/config.json and weights.safetensors; the name is the task's if not given. Which seed ships is chosen
by its validation error.
"""

import sys
from pathlib import Path

import torch

from hardattn import experiment, results
from hardattn.envs.perception import weights_sha256
from hardattn.envs.task_data import new_network, training_data
from hardattn.loading import SHIPPED

TRAINING_ONLY = ("optimizer", "critic", "generator", "strategy", "deviation", "population")


STATISTICS = ("mean", "deviation", "usual", "usual_deviation")  # of a CNN's inputs and observations: computed with in full


def rounded(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Floating-point weights as bfloat16: what perception computes with anyway where bf16 is fast, so nothing changes there."""
    return {
        name: weight.bfloat16() if weight.is_floating_point() and name not in STATISTICS else weight
        for name, weight in weights.items()
    }


def ship(run: Path, name: str = "", in_full: bool = False) -> Path:
    """Write the shipped folder and return it; `in_full` leaves perception in float32, for numbers that come again to an image."""
    config, state = results.read_json(run / results.CONFIG), results.read_state(run / results.CHECKPOINT)
    folder = SHIPPED / (name or config["task"]["name"])
    perception = state["perception"] if in_full else rounded(state["perception"])
    agent = {key: value for key, value in state.get("agent", {}).items() if key not in TRAINING_ONLY}
    if perception and agent.get("body"):  # where nothing perceives, the LSTM is the row's only network and stays as it was measured
        agent["body"] = rounded(agent["body"])
    results.write_json(folder / results.CONFIG, config)
    # The fingerprint is that of the weights as they are loaded: float32 again.
    setup = experiment.task_from_json(config["task"])
    network = new_network(setup, training_data(setup))
    network.load_state_dict(perception)
    shipped = {"perception": perception, "agent": agent, "perception_sha256": weights_sha256(network)}
    results.write_state(folder / results.WEIGHTS, shipped)
    return folder


if __name__ == "__main__":
    named = [argument for argument in sys.argv[1:] if argument != "--in-full"]
    if len(named) not in (1, 2):
        sys.exit(__doc__)
    print(f"written to {ship(Path(named[0]), *named[1:], in_full='--in-full' in sys.argv)}")
