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
from hardattn.envs.glimpse_world import ROWS
from hardattn.envs.task_data import AnyWorld, Data
from hardattn.statistics import wilson

PATHS = 10
BATCH = 2000  # images side by side; larger batches leave the processor's caches


@dataclass(frozen=True)
class Measured:
    """One pass over a data set."""

    probabilities: Tensor  # [N, K] after the last look, or [N, L, K] after the last look for each of L targets
    labels: Tensor  # [N], or [N, L] with -1 where none is left
    wrong: Tensor  # [N] bool
    error_by_look: tuple[float, ...]  # T errors in percent, the last of which is the error; that one alone of a game
    on_target_by_look: tuple[float, ...] = ()  # share of looks whose middle lay on a digit, in percent; empty where that is unknown

    @property
    def error(self) -> float:
        """Share of wrong answers in percent."""
        return percent(self.wrong)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the error over the images, in percent."""
        low, high = wilson(int(self.wrong.sum()), len(self.wrong))
        return 100 * low, 100 * high


def measure(agent: Agent, world: AnyWorld, greedy: bool = True) -> Measured:
    """Show every image of the world's data set once. The world's counts grow by that many episodes."""
    beliefs, labels, truths, hits = [], [], [], []
    for indices in torch.arange(len(world.dataset), device=world.device).split(BATCH):
        beliefs.append(collect(agent, world, greedy, indices).logits)
        labels.append(world.labels)
        truths.append(world.truth_by_look)
        hits += [torch.stack(world.hits, dim=1)] if world.hits else []
    logits, wanted, truth = torch.cat(beliefs), torch.cat(labels), torch.cat(truths)  # [N, T, K], [N] or [N, L], [N, T]
    each = world.horizon // world.task.targets
    by_look = tuple(percent(look) for look in wrong_so_far(logits.argmax(dim=-1), truth, each).unbind(1))
    if world.task.catch:
        by_look = by_look[-1:]  # nothing is told before a game's end
    on_target = tuple(percent(look) for look in torch.cat(hits).unbind(dim=1)) if hits else ()
    probabilities = (logits[:, -1] if wanted.ndim == 1 else logits[:, each - 1 :: each]).softmax(dim=-1)
    return Measured(probabilities, wanted, is_wrong(probabilities, wanted), by_look, on_target)


def is_wrong(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Which examples are told wrong, [N] bool: [N, K] and [N], or [N, L, K] and [N, L], of which any wrong one makes all wrong."""
    wrong = (probabilities.argmax(dim=-1) != labels) & (labels >= 0)
    return wrong if labels.ndim == 1 else wrong.any(dim=1)


def wrong_so_far(said: Tensor, truth: Tensor, each: int) -> Tensor:
    """Which examples are wrong if nothing follows: classes said and true at each look [N, T], `each` looks a target -> [N, T].

    A target's earlier looks do not count once it has had its last; a truth of -1 asks for nothing. With one target: said != truth.
    """
    wrong = (said != truth) & (truth >= 0)
    settled = wrong[:, each - 1 :: each].cummax(dim=1).values if each < wrong.shape[1] else wrong[:, -1:]
    before = torch.cat([torch.zeros_like(settled[:, :1]), settled[:, :-1]], dim=1).repeat_interleave(each, dim=1)
    return wrong | before


def measure_paths(agent: Agent, world: AnyWorld, paths: int = PATHS) -> Measured:
    """The average of the class probabilities over several sampled paths an image (Ba et al. 2015, section 4)."""
    measured = [measure(agent, world, greedy=False) for _ in range(paths)]
    probabilities = torch.stack([one.probabilities for one in measured]).mean(dim=0)
    wrong = is_wrong(probabilities, measured[0].labels)
    return Measured(probabilities, measured[0].labels, wrong, (percent(wrong),))


def percent(wrong: Tensor) -> float:
    """Share of True in percent: wrong [N] bool."""
    return 100 * int(wrong.sum()) / len(wrong)


def full_report(
    agent: Agent, make_world: Callable[[], AnyWorld], tick: Callable[[str], None] = lambda what: None
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
    averaged = {}
    if not (world.task.catch or world.task.gating):  # what games came to cannot be averaged; passes are dear and no paths
        tick(f"average of {PATHS} sampled paths")
        averaged[f"paths{PATHS}"] = _summary(measure_paths(agent, make_world()))
    controls = {}
    for name in CONTROLS:
        world = make_world()
        if (name == "oracle" and world.dataset.boxes is None) or (name == "raster" and world.task.gating):
            continue
        tick(f"{name} looks")
        control = measure(plugins.make_agent(name, world), world)
        controls[name] = {"error": control.error, **_on_target(control)}
    report = {
        "protocols": {
            "mean": {**_summary(mean), "error_by_look": list(mean.error_by_look), **_on_target(mean)},
            "sampled": _summary(sampled),
            **averaged,
        },
        "controls": controls,
        "images": counts.episodes,
        "processed_pixels": counts.processed_pixels / counts.episodes,
        "unique_pixels": counts.unique_pixels / counts.episodes,
    }
    return report, mean


def flops_per_image(agent: Agent, make_world: Callable[..., AnyWorld]) -> float:
    """Floating-point operations for one image of the mean policy: matrix products and convolutions of perception and agent.

    The product by which the world counts the pixels read is among them. They are counted in float32 and by torch's own layers,
    of which its counter knows each.
    """
    from torch.utils.flop_counter import FlopCounterMode

    enabled, *_ = torch.backends.mkldnn.set_flags(False, None, None, None)
    try:
        world = make_world(precision="fp32")
        indices = torch.arange(ROWS, device=world.device) % len(world.dataset)  # fewer would be filled up, and counted for more
        with FlopCounterMode(display=False) as counter:
            collect(agent, world, True, indices)
    finally:
        torch.backends.mkldnn.set_flags(enabled, None, None, None)
    return float(counter.get_total_flops() / len(indices))


def test_world(make: Callable[..., AnyWorld], dataset: Data) -> Callable[..., AnyWorld]:
    """A maker of worlds over a data set for measuring: one path an image, nothing learns, no distortion. It takes changes."""
    return lambda **changes: make(dataset, batch_size=min(BATCH, len(dataset)), repeats=1, **changes)


def _on_target(measured: Measured) -> dict[str, Any]:
    return {"on_target_by_look": list(measured.on_target_by_look)} if measured.on_target_by_look else {}


def _summary(measured: Measured) -> dict[str, Any]:
    return {"error": measured.error, "interval": list(measured.interval)}
