"""Measure what gates know of the cue: mutual information between each gate and the channel asked, on the test images.

    python tools/gate_cue.py RUN_FOLDER... > results/channels/gates.md

Takes runs of dasnet-cue: agents, whose last pass's gains it reads, and baselines with gates. Of three channels asked equally often
there are log2(3) = 1.58 bits to be known.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hardattn import loading, results, train_baseline
from hardattn.agents.base import collect
from hardattn.baselines import BASELINES
from hardattn.envs import datasets
from hardattn.envs.cue import channel_asked
from hardattn.statistics import mutual_information

DATASET, BATCH, BINS = "mnist-cue", 500, 8
LAYERS = (16, 32, 64)  # maps of `envs.cnn.cue` and of layout=local at width=1


@torch.no_grad()
def gates_of(folder: Path) -> Tensor:
    """Every gate at every test image, [N, maps] float."""
    saved = results.read_json(folder / results.CONFIG)
    data = datasets.load(DATASET, "test")
    if saved["agent"] in BASELINES:
        model = train_baseline.open_baseline(folder, data)
        told = [train_baseline.looked(model, part, False).maps for part in data.images.split(BATCH)]
        return torch.cat([maps for maps in told if maps is not None])
    run = loading.open_run(str(folder))
    world, gains = run.world(batch_size=BATCH, repeats=1), []
    for indices in torch.arange(len(data)).split(BATCH):
        collect(run.agent, world, True, indices)
        gains.append(torch.cat(world.gains[-1], dim=1))
    return torch.cat(gains).float()


def line(folder: Path) -> str:
    """A run's line of the table: for each layer the mean over maps and the largest, in bits."""
    saved = results.read_json(folder / results.CONFIG)
    asked = channel_asked(datasets.load(DATASET, "test").images).numpy()
    gates = gates_of(folder).numpy()
    bits = np.array([mutual_information(gate, asked, BINS) for gate in gates.T])
    cells = [f"{part.mean():.2f} ({part.max():.2f})" for part in np.split(bits, np.cumsum(LAYERS)[:-1])]
    return f"| {saved['agent']} | " + " | ".join(cells) + f" | {gates.mean():.2f} | {gates.std(axis=0).mean():.2f} |"


def main() -> None:
    """Print the table."""
    print("| gates of | first layer, bits: mean (largest) | second | third | mean gate | deviation over images |")
    print("|---|---|---|---|---|---|")
    for name in sys.argv[1:]:
        print(line(Path(name)))


if __name__ == "__main__":
    main()
