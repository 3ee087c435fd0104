"""Pictures: scan paths over images with the glimpses and beliefs of each look, as a PNG sheet and an animated GIF."""

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.patches import Rectangle

from hardattn.agents.base import Agent, collect
from hardattn.envs.canvases import pair_digits
from hardattn.envs.glimpse import corners, hard_glimpse, to_pixels
from hardattn.envs.task_data import AnyWorld
from hardattn.envs.tasks import Task

PATH = "#d62728"  # the path and the boxes of looks
COLUMNS = 8  # looks side by side on a sheet
RIGHT, WRONG, OTHER = "#2ca02c", "#d62728", "#9aa5b1"


class Paths:
    """The looks of an agent at some images, gathered once and drawn twice."""

    def __init__(self, agent: Agent, world: AnyWorld, indices: torch.Tensor) -> None:
        rollout = collect(agent, world, greedy=True, indices=indices)
        task = world.task
        self.size, self.scales, self.played = task.size, task.scales, task.catch is not None
        self.images, self.truth = world.images.cpu(), world.truth_by_look.tolist()  # [N, C, H, W], [N, T]
        self.each = world.horizon // task.targets  # looks for one target
        locations = torch.stack(world.locations, dim=1).cpu()  # [N, T, 2]
        height, width = self.images.shape[-2:]
        self.path = to_pixels(locations, height, width).numpy()
        self.beliefs = rollout.logits.softmax(dim=-1).cpu().numpy()  # [N, T, K]
        patch = self.size << (self.scales - 1)
        self.corners = corners(locations, patch, height, width).numpy()
        # In a game each look falls on a screen of its own.
        self.screens = [frame.cpu() for frame in getattr(world, "frames", [])] or [self.images] * world.horizon
        looks = [
            hard_glimpse(self.screens[t], locations[:, t], self.size, self.scales, task.background) for t in range(world.horizon)
        ]
        self.glimpses = torch.stack(looks, dim=1)  # [N, T, S, C, g, g]
        if self.played:  # as the agent sees them: a coarse pixel counts the white ones
            area = 4.0 ** torch.arange(self.scales)
            self.glimpses = (self.glimpses * area[:, None, None, None]).clamp(max=1)
        self.names = class_names(task, self.beliefs.shape[-1])

    @property
    def horizon(self) -> int:
        """Looks at each image."""
        return int(self.path.shape[1])

    def draw_image(self, axes: Any, n: int, looks: int) -> None:
        """Image n with its first `looks` looks; of a game the screen as it was then, at its end with the ball's trail."""
        image = self.images if looks == self.horizon else self.screens[looks - 1]
        axes.imshow(_picture(image[n].float() / 255), cmap="gray", vmin=0, vmax=1)
        path = self.path[n, :looks]
        axes.plot(path[:, 0], path[:, 1], color=PATH, linewidth=1.5)
        for t, (x, y) in enumerate(path):
            axes.plot(x, y, "o", color=PATH, markersize=9)
            axes.annotate(str(t + 1), (x, y), color="white", fontsize=6, ha="center", va="center_baseline")
        for scale in range(self.scales):
            side = self.size << scale
            margin = ((self.size << (self.scales - 1)) - side) / 2
            left, top = self.corners[n, looks - 1] + margin - 0.5
            axes.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor=PATH, linewidth=1))
        height, width = self.images.shape[-2:]
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
        said, right = self.reading(n, looks)
        axes.set_title(said, fontsize=9, color=OTHER if right is None else RIGHT if right else WRONG)

    def reading(self, n: int, looks: int) -> tuple[str, bool | None]:
        """What image n is taken for after so many looks, and whether that is right; None where nothing has been told yet."""
        if looks < (self.horizon if self.played else self.each if self.each < self.horizon else 1):
            return " ", None
        told = range(self.each - 1, looks, self.each) if self.each < self.horizon else [looks - 1]
        answers = [(int(self.beliefs[n, t].argmax()), self.truth[n][t]) for t in told if self.truth[n][t] >= 0]
        right = all(said == true for said, true in answers)
        said, true = (" ".join(self.names[pair[k]] for pair in answers) for k in (0, 1))
        return (said if self.played else f"reads {said} ({'right' if right else f'is {true}'})"), right

    def draw_glimpse(self, axes: Any, n: int, t: int) -> None:
        """What look t of image n held, its scales side by side."""
        scales = list(self.glimpses[n, t])
        axes.imshow(_picture(torch.cat(scales, dim=-1)), cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])

    def draw_belief(self, axes: Any, n: int, t: int, labelled: bool = False) -> None:
        """The class probabilities after look t of image n."""
        belief = self.beliefs[n, t]
        colours = [RIGHT if k == self.truth[n][t] else OTHER for k in range(len(belief))]
        axes.bar(range(len(belief)), belief, color=colours)
        axes.set(ylim=(0, 1), yticks=[0, 1], xticks=range(len(belief)) if labelled and len(belief) <= 20 else [])
        if labelled and self.played:
            axes.set_xticks(range(len(belief)), self.names)
        axes.tick_params(labelsize=5, length=0)


def draw_sheet(paths: Paths, file: Path) -> None:
    """One row an image: the image with its whole path, then each look's glimpse above the probabilities after it.

    Of a long episode some looks are shown, evenly spread, the first and the last among them.
    """
    count, shown = len(paths.images), spread(paths.horizon, COLUMNS)
    figure = plt.figure(figsize=(2.2 + 1.0 * len(shown) * max(1, paths.scales * 0.8), 2.1 * count), layout="constrained")
    grid = figure.add_gridspec(2 * count, len(shown) + 2)
    for n in range(count):
        paths.draw_image(figure.add_subplot(grid[2 * n : 2 * n + 2, :2]), n, paths.horizon)
        for column, t in enumerate(shown, start=2):
            axes = figure.add_subplot(grid[2 * n, column])
            paths.draw_glimpse(axes, n, t)
            axes.set_title(f"look {t + 1}", fontsize=7)
            paths.draw_belief(figure.add_subplot(grid[2 * n + 1, column]), n, t, labelled=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def draw_animation(paths: Paths, file: Path) -> None:
    """The same images look by look, as a GIF that repeats."""
    count = len(paths.images)
    figure, grid = plt.subplots(2, count, figsize=(1.7 * count, 2.8), height_ratios=[2, 1], squeeze=False, layout="constrained")

    def draw(frame: int) -> list[Any]:
        looks = min(frame, paths.horizon - 1) + 1  # the last look stays for two more frames
        for n in range(count):
            for axes in grid[:, n]:
                axes.clear()
            paths.draw_image(grid[0, n], n, looks)
            paths.draw_belief(grid[1, n], n, looks - 1, labelled=True)
        return []

    FuncAnimation(figure, draw, frames=paths.horizon + 2).save(file, writer=PillowWriter(fps=2), dpi=80)
    plt.close(figure)


def spread(horizon: int, most: int) -> list[int]:
    """At most `most` of the numbers 0..horizon-1, evenly spread, the first and the last among them."""
    return list(range(horizon)) if horizon <= most else sorted({round(k * (horizon - 1) / (most - 1)) for k in range(most)})


def class_names(task: Task, classes: int) -> list[str]:
    """What each of `classes` labels of a task is called: a digit, two digits, a sum, or what a game came to."""
    if task.catch:
        return ["missed", "caught"]
    if task.canvas and task.canvas.label == "pair":
        digits = (math.isqrt(8 * classes + 1) - 1) // 2  # of K digits there are K (K + 1) / 2 pairs
        return [f"{low}+{high}" for low, high in pair_digits(torch.arange(classes), digits).tolist()]
    names = [str(k) for k in range(classes)]
    return [*names[:-1], "end"] if task.targets > 1 else names


def _picture(image: torch.Tensor) -> Any:
    """[C, H, W] in [0, 1] as matplotlib wants it: [H, W] for one channel, else [H, W, C]."""
    return image[0].numpy() if len(image) == 1 else image.movedim(0, -1).numpy()
