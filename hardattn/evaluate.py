"""Measure an agent: every image exactly once, the mean policy, the sampled policy and the average of sampled paths.

Errors are in percent. The number that counts is the mean policy with one path an image; averaging paths is reported apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hardattn import plugins
from hardattn.agents import CONTROLS
from hardattn.agents.base import Agent, collect
from hardattn.envs.datasets import Dataset
from hardattn.envs.glimpse_world import GlimpseWorld
from hardattn.statistics import wilson

PATHS = 10
BATCH = 2000  # images side by side; larger batches leave the processor's caches


@dataclass(frozen=True)
class Measured:
    """One pass over a data set."""

    probabilities: Tensor  # [N, K] after the last look
    wrong: Tensor  # [N] bool
    error_by_look: tuple[float, ...]  # T errors in percent, the last of which is the error

    @property
    def error(self) -> float:
        """Share of wrong answers in percent."""
        return percent(self.wrong)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the error over the images, in percent."""
        low, high = wilson(int(self.wrong.sum()), len(self.wrong))
        return 100 * low, 100 * high


def measure(agent: Agent, world: GlimpseWorld, greedy: bool = True) -> Measured:
    """Show every image of the world's data set once. The world's counts grow by that many episodes."""
    batches = torch.arange(len(world.dataset), device=world.device).split(BATCH)
    logits = torch.cat([collect(agent, world, greedy, indices).logits for indices in batches])  # [N, T, K]
    wrong = logits.argmax(dim=-1) != world.dataset.labels[:, None]  # [N, T]
    return Measured(logits[:, -1].softmax(dim=-1), wrong[:, -1], tuple(percent(look) for look in wrong.unbind(dim=1)))


def measure_paths(agent: Agent, world: GlimpseWorld, paths: int = PATHS) -> Measured:
    """The average of the class probabilities over several sampled paths an image (Ba et al. 2015, section 4)."""
    measured = [measure(agent, world, greedy=False) for _ in range(paths)]
    probabilities = torch.stack([one.probabilities for one in measured]).mean(dim=0)
    wrong = probabilities.argmax(dim=-1) != world.dataset.labels
    return Measured(probabilities, wrong, (percent(wrong),))


def percent(wrong: Tensor) -> float:
    """Share of True in percent: wrong [N] bool."""
    return 100 * int(wrong.sum()) / len(wrong)


def full_report(
    agent: Agent, make_world: Callable[[], GlimpseWorld], tick: Callable[[str], None] = lambda what: None
) -> tuple[dict[str, Any], Measured]:
    """All protocols and controls as plain data, and the mean policy's pass.

    The controls look through the same perception. `tick` is told what is about to be measured.
    """
    tick("mean policy")
    world = make_world()
    mean = measure(agent, world)
    counts = world.counts
    tick("sampled policy")
    sampled = measure(agent, make_world(), greedy=False)
    tick(f"average of {PATHS} sampled paths")
    averaged = measure_paths(agent, make_world())
    controls = {}
    for name in CONTROLS:
        tick(f"{name} looks")
        world = make_world()
        controls[name] = {"error": measure(plugins.make_agent(name, world), world).error}
    report = {
        "protocols": {
            "mean": {**_summary(mean), "error_by_look": list(mean.error_by_look)},
            "sampled": _summary(sampled),
            f"paths{PATHS}": _summary(averaged),
        },
        "controls": controls,
        "images": counts.episodes,
        "processed_pixels": counts.processed_pixels / counts.episodes,
        "unique_pixels": counts.unique_pixels / counts.episodes,
    }
    return report, mean


def flops_per_image(agent: Agent, world: GlimpseWorld) -> float:
    """Floating-point operations for one image of the mean policy: matrix products and convolutions of perception and agent."""
    from torch.utils.flop_counter import FlopCounterMode

    indices = torch.arange(min(8, len(world.dataset)), device=world.device)
    with FlopCounterMode(display=False) as counter:
        collect(agent, world, True, indices)
    return float(counter.get_total_flops() / len(indices))


def test_world(make: Callable[..., GlimpseWorld], dataset: Dataset) -> Callable[[], GlimpseWorld]:
    """A maker of worlds over a data set for measuring: one path an image, nothing learns, no distortion."""
    return lambda: make(dataset, batch_size=min(BATCH, len(dataset)), repeats=1)


def _summary(measured: Measured) -> dict[str, Any]:
    return {"error": measured.error, "interval": list(measured.interval)}
