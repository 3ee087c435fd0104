"""The `bench` command for tasks of gains: seconds a generation of an evolution strategy, folded into one batch and in a loop.

`loop` is how it is usually written: each member plays the batch by itself, from the pixels on, pass 0 included. `folded` is one
world whose repeats are the population. Both run the same network and the same policies; floating-point operations are counted.
"""

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from hardattn.agents.snes import SNES
from hardattn.agents.strategies import Snes
from hardattn.console import results
from hardattn.envs.datasets import Dataset
from hardattn.envs.filter_world import FilterWorld
from hardattn.envs.task_data import new_network
from hardattn.envs.tasks import Task, find_task
from hardattn.envs.world import Precision, use_bf16
from hardattn.experiment import git_commit

POPULATION, IMAGES = 50, 128
ROUNDS = 3  # each number is the median of so many
LOOPED = 5  # members of the loop that are timed; all cost the same


def bench_filters(task_name: str, device: str, tick: Callable[[str], None] = lambda what: None) -> dict[str, Any]:
    """Measure a generation in each way and arithmetic; plain data."""
    task = find_task(task_name)
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (IMAGES, 3 if task.dataset == "cifar10" else 1, 32, 32), generator=random, dtype=torch.uint8)
    data = Dataset("noise", images, torch.arange(IMAGES) % 10, 10).to(device)  # what is shown makes no difference to speed
    precisions: list[Precision] = ["fp32", "bf16"] if use_bf16("auto", torch.device(device)) else ["fp32"]
    rows = []
    for precision in precisions:
        tick(f"a generation in {precision}")
        rows += _generation(task, data, precision, device)
    world = _world(task, data, "fp32", device, POPULATION)
    size = SNES(world.observation_space, world.action_space).policy.size
    tick("ask and tell")
    asking = {
        name: _ask_and_tell(count, device) for name, count in (("linear", size), ("projected", 17 * world.action_space.shape[0]))
    }
    return {
        "task": task_name,
        "unit": "seconds a generation",
        "population": POPULATION,
        "images": IMAGES,
        "passes": task.num_glimpses,
        "rows": rows,
        "ask_and_tell": {name: {"weights": count, "seconds": seconds} for name, (count, seconds) in asking.items()},
        "device": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "git": git_commit(),
    }


def show(table: dict[str, Any]) -> None:
    """Print the numbers as a table."""
    shape = f"{table['population']} members, {table['images']} images, {table['passes']} passes"
    title = f"{table['task']} · {shape} · {table['device']} · {table['threads']} threads · torch {table['torch']}"
    sheet = Table("method", "precision", title=title, title_justify="left")
    for column in ("s a generation", "times the loop", "TFLOP", "GFLOP/s", "share of a convolution's"):
        sheet.add_column(column, justify="right")
    for row in table["rows"]:
        sheet.add_row(
            row["method"],
            row["precision"],
            f"{row['seconds']:.2f}",
            f"{row['ratio']:.1f}",
            f"{row['flops'] / 1e12:.2f}",
            f"{row['flops'] / row['seconds'] / 1e9:,.0f}",
            f"{100 * row['flops'] / row['seconds'] / row['convolution']:.0f} %",
        )
    results.print(sheet)
    for name, asked in table["ask_and_tell"].items():
        results.print(f"ask and tell, {name} policy, {asked['weights']:,} weights: {asked['seconds']:.3f} s", highlight=False)


def _generation(task: Task, data: Dataset, precision: Precision, device: str) -> list[dict[str, Any]]:
    """Folded and looped in turn, so that a slow moment of the machine meets both; medians."""
    folded, looped = _world(task, data, precision, device, POPULATION), _world(task, data, precision, device, 1)
    agent = SNES(folded.observation_space, folded.action_space, device=device)
    members = torch.randn(POPULATION, agent.policy.size, device=device) * 0.1
    indices = torch.arange(IMAGES, device=device)

    def play(world: FilterWorld, who: torch.Tensor) -> None:
        """One batch of episodes."""
        agent.play(who, world, indices)

    def loop() -> None:
        """A few members, one after the other."""
        for k in range(LOOPED):
            play(looped, members[k : k + 1])

    times: dict[str, list[float]] = {"loop": [], "folded": [], "convolution": []}
    flops = {"folded": _flops(lambda: play(folded, members)), "loop": _flops(lambda: play(looped, members[:1])) * POPULATION}
    convolve, operations = _convolution(precision, device)
    for _ in range(ROUNDS):
        times["loop"].append(_seconds(loop, device) * POPULATION / LOOPED)
        times["folded"].append(_seconds(lambda: play(folded, members), device))
        times["convolution"].append(_seconds(convolve, device))
    median = {name: statistics.median(values) for name, values in times.items()}
    return [
        {
            "method": method,
            "precision": precision,
            "seconds": median[method],
            "ratio": median["loop"] / median[method],
            "flops": flops[method],
            "convolution": operations / median["convolution"],
        }
        for method in ("loop", "folded")
    ]


def _world(task: Task, data: Dataset, precision: Precision, device: str, repeats: int) -> FilterWorld:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = new_network(task, data)
    return FilterWorld(task, data, network, batch_size=IMAGES * repeats, repeats=repeats, precision=precision, device=device)  # type: ignore[arg-type]


def _flops(play: Callable[[], None]) -> float:
    with FlopCounterMode(display=False) as counter:
        play()
    return float(counter.get_total_flops())


def _convolution(precision: Precision, device: str) -> tuple[Callable[[], None], float]:
    """A convolution of the network's widest maps on many rows, and its operations: what the machine can do."""
    rows, maps, side = 2048, 128, 15
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    seen = torch.randn(rows, maps, side, side, device=device, dtype=kind).contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(maps, maps, 3, 3, device=device, dtype=kind).contiguous(memory_format=torch.channels_last)

    def convolve() -> None:
        """It, without gradients."""
        with torch.no_grad():
            F.conv2d(seen, kernel, padding=1)

    convolve()
    return convolve, 2.0 * rows * side**2 * maps**2 * 9


def _ask_and_tell(size: int, device: str) -> tuple[int, float]:
    strategy = Snes(size, 0.1, device=device)

    def both() -> None:
        """Draw a population and learn from any fitness."""
        strategy.tell(strategy.ask(POPULATION).square().mean(dim=1))

    both()
    return size, statistics.median(_seconds(both, device) for _ in range(ROUNDS))


def _seconds(what: Callable[[], None], device: str) -> float:
    started = time.perf_counter()
    what()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
