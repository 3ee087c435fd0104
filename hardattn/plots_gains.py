"""A picture of gains: each image, how its class probabilities change from pass to pass, and what is listened to."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from hardattn.agents.base import Agent, collect
from hardattn.envs.filter_world import FilterWorld

NAMES = {"cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")}
SHOWN = 3  # classes whose probabilities are drawn


def draw_gains(agent: Agent, world: FilterWorld, indices: Tensor, file: Path) -> None:
    """Write a PNG with a row for each test image at `indices`: image, probabilities by pass, gains by pass and feature map."""
    if hasattr(agent, "watch"):
        agent.watch(world)
    world.reset(indices)
    before = world.logits.softmax(dim=1)
    rollout = collect(agent, world, True, indices)
    beliefs = torch.cat([before[:, None], rollout.logits.softmax(dim=2)], dim=1).cpu()  # [n, T + 1, K]
    gains = torch.stack([torch.cat(layers, dim=1) for layers in world.gains], dim=1).cpu()  # [n, T, A]
    bounds = torch.tensor([layer.shape[1] for layer in world.gains[0]]).cumsum(0).tolist()
    rows = len(indices)
    figure, grid = plt.subplots(
        rows, 3, figsize=(11, 1.7 * rows + 0.6), squeeze=False, layout="constrained", width_ratios=(1, 1.6, 5)
    )
    names = NAMES.get(world.task.dataset, tuple(str(k) for k in range(beliefs.shape[2])))
    for row, axes in enumerate(grid):
        image = world.images[row].permute(1, 2, 0).cpu().numpy()
        truth = int(world.labels[row])
        axes[0].imshow(image, cmap="gray" if image.shape[2] == 1 else None)
        axes[0].set_title(names[truth], fontsize=8)
        axes[0].axis("off")
        for kind in beliefs[row].amax(dim=0).topk(SHOWN).indices.tolist():
            axes[1].plot(beliefs[row, :, kind].tolist(), "o-", markersize=3, label=names[kind], linewidth=2 if kind == truth else 1)
        axes[1].set(ylim=(-0.02, 1.02), xticks=range(beliefs.shape[1]))
        axes[1].tick_params(labelsize=7)
        axes[1].legend(fontsize=6)
        drawn = axes[2].imshow(gains[row].numpy(), aspect="auto", cmap="RdBu_r", vmin=0, vmax=2, interpolation="nearest")
        for bound in bounds[:-1]:
            axes[2].axvline(bound - 0.5, color="black", linewidth=0.6)
        axes[2].set_yticks(range(gains.shape[1]), [str(k + 1) for k in range(gains.shape[1])])
        axes[2].tick_params(labelsize=7)
        figure.colorbar(drawn, ax=axes[2], pad=0.01)
    grid[0, 1].set_title("probability by pass", fontsize=8)
    grid[0, 2].set_title("gain of each feature map by pass; lines part the layers", fontsize=8)
    figure.savefig(file, dpi=110)
    plt.close(figure)
