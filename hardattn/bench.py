"""The `bench` command: how many images a second, at which batch, in which arithmetic, beside the way most ports do it.

Three columns, each with what the one before does: `rollout` moves the retina (random looks, glimpses cut, nothing computed from
them), `perception` adds the network without gradients under the policy's looks, `training` adds both updates. Every row is the
same network and task: those of the best-known PyTorch port (ReLU core of 256, 6 looks, one cross-entropy and one reward of 0 or 1,
both at the end). As in training, the last two are recorded and replayed (hardattn.recorded), on a GPU the first too.

The reference rows are that port's method, rebuilt here after kevinzakka/recurrent-visual-attention: each patch is sliced out of
its own image in a Python loop and everything runs in float32. Ratios are against them, measured in turn in the same process.
"""

import dataclasses
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor, nn

from hardattn.agents.base import collect
from hardattn.agents.rates import set_rate
from hardattn.agents.reinforce import Reinforce
from hardattn.console import results
from hardattn.envs import datasets
from hardattn.envs.errors import UsageError
from hardattn.envs.glimpse import hard_glimpse, lay_out
from hardattn.envs.glimpse_world import GlimpseWorld
from hardattn.envs.task_data import fixed_data, new_network
from hardattn.envs.tasks import PerceptionConfig, Task, find_task
from hardattn.envs.world import use_bf16
from hardattn.experiment import git_commit
from hardattn.recorded import WARM_UP, Recorded, own_stream

WINDOWS = 15  # each cell is the median of this many windows, short ones: a busy machine's speed drifts from second to second
PORT_NETWORK = PerceptionConfig(core="rnn")


def bench(
    task_name: str, batch_sizes: tuple[int, ...], seconds: float, device: str, tick: Callable[[str], None] = lambda what: None
) -> dict[str, Any]:
    """Measure every cell; plain data, images a second."""
    task = dataclasses.replace(find_task(task_name), perception=PORT_NETWORK, look_loss=0.0, reward="correct")
    if task.catch or task.gating or task.targets > 1:
        raise UsageError(f"bench {task_name}: the loop to compare with reads one label an image; wanted a task like ram-mnist")
    dataset = fixed_data(task, "train").to(device)
    assert isinstance(dataset, datasets.Dataset)
    precisions = ["fp32"] + (["bf16"] if use_bf16("auto", torch.device(device)) else [])
    rows = []
    for batch in batch_sizes:
        makers: dict[tuple[str, str], Callable[[], object]] = {("loop", "training"): _loop_training(task, dataset, batch)}
        makers["fp32", "rollout"] = _rollout(task, dataset, batch)
        for precision in precisions:
            makers[precision, "perception"] = _perception(task, dataset, batch, precision)
            makers[precision, "training"] = _training(task, dataset, batch, precision)
        tick(f"batch {batch}")
        with own_stream(device):
            speeds = _measure(makers, batch, seconds, device)
        cells = {key: statistics.median(windows) for key, windows in speeds.items()}
        loop = speeds["loop", "training"]
        rows.append(
            {"batch": batch, "method": "loop over images", "precision": "fp32", "training": cells["loop", "training"], "ratio": 1.0}
        )
        for precision in precisions:
            training = speeds[precision, "training"]
            rows.append(
                {
                    "batch": batch,
                    "method": "hardattn",
                    "precision": precision,
                    "rollout": cells["fp32", "rollout"],
                    "perception": cells[precision, "perception"],
                    "training": cells[precision, "training"],
                    "ratio": statistics.median(ours / theirs for ours, theirs in zip(training, loop, strict=True)),
                }
            )
    return {"task": task_name, "unit": "images/s", "looks": task.num_glimpses, "rows": rows, **_machine(device)}


def show(table: dict[str, Any]) -> None:
    """Print the numbers as a table."""
    title = f"{table['task']} · {table['device']} · {table['threads']} threads · torch {table['torch']} · images/s"
    sheet = Table("batch", "method", "precision", title=title, title_justify="left")
    for column in ("rollout only", "+ perception", "+ training", "training, times the loop"):
        sheet.add_column(column, justify="right")
    for row in table["rows"]:
        cells = [f"{row[key]:,.0f}" if key in row else "" for key in ("rollout", "perception", "training")]
        sheet.add_row(str(row["batch"]), row["method"], row["precision"], *cells, f"{row['ratio']:.1f}")
    results.print(sheet)


def _measure(
    makers: dict[tuple[str, str], Callable[[], object]], batch: int, seconds: float, device: str
) -> dict[tuple[str, str], list[float]]:
    """Images a second of each function, window by window, taken in turn, so that a slow moment of the machine meets them all."""
    for step in makers.values():
        for _ in range(WARM_UP + 2):
            step()
    windows: dict[tuple[str, str], list[float]] = {key: [] for key in makers}
    for _ in range(WINDOWS):
        for key, step in makers.items():
            _wait(device)
            started, steps = time.perf_counter(), 0
            while time.perf_counter() - started < seconds / WINDOWS:
                step()
                steps += 1
                if torch.device(device).type == "cuda" and steps % 8 == 0:
                    _wait(device)  # else the queue grows and the last wait is charged to one window
            _wait(device)
            windows[key].append(steps * batch / (time.perf_counter() - started))
    return windows


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _world(task: Task, dataset: datasets.Dataset, batch: int, precision: Any, learning: bool) -> GlimpseWorld:
    return GlimpseWorld(
        task,
        dataset,
        new_network(task, dataset),
        batch_size=batch,
        precision=precision,
        observes_bf16=True,  # as the study tells a world in which REINFORCE learns
        learning=learning,
        device=dataset.images.device,
    )


def _rollout(task: Task, dataset: datasets.Dataset, batch: int) -> Callable[[], object]:
    device = dataset.images.device
    generator = torch.Generator(device).manual_seed(0)

    def roll() -> dict[str, Tensor]:
        """Random looks at a random batch."""
        chosen = torch.randint(len(dataset), (batch,), generator=generator, device=device)
        images = dataset.images[chosen]
        field = lay_out(images, task.size, task.scales)
        for _ in range(task.num_glimpses):
            locations = torch.rand(batch, 2, generator=generator, device=device) * 2 - 1
            hard_glimpse(images, locations, task.size, task.scales, field=field)
        return {}

    return Recorded(roll, [generator], device) if device.type == "cuda" else roll


def _perception(task: Task, dataset: datasets.Dataset, batch: int, precision: str) -> Callable[[], None]:
    world = _world(task, dataset, batch, precision, learning=False)
    agent = Reinforce(world.observation_space, world.action_space, device=world.device)

    def play() -> dict[str, Tensor]:
        """A batch of episodes."""
        return {"logits": collect(agent, world).logits.sum()}

    return _step(world, agent, play)


def _training(task: Task, dataset: datasets.Dataset, batch: int, precision: str) -> Callable[[], None]:
    world = _world(task, dataset, batch, precision, learning=True)
    agent = Reinforce(world.observation_space, world.action_space, device=world.device)
    optimizer = torch.optim.Adam(world.network.parameters(), fused=True)

    def update() -> dict[str, Tensor]:
        """One step of both."""
        told = agent.update(world)
        optimizer.zero_grad()
        world.loss().backward()
        optimizer.step()
        return told

    def schedule() -> None:
        """Constant step sizes."""
        agent.schedule(0.0)
        set_rate(optimizer, 1e-3)

    return _step(world, agent, update, schedule)


def _step(
    world: GlimpseWorld, agent: Reinforce, update: Callable[[], dict[str, Tensor]], schedule: Callable[[], None] = lambda: None
) -> Callable[[], None]:
    """The update as the training loop runs it on this device."""
    recorded = Recorded(update, [world.generator, agent.generator], world.device)

    def step() -> None:
        schedule()
        world.deal()
        recorded()

    return step


class LoopRam(nn.Module):
    """The reference: RAM whose sensor slices each image's patch in a Python loop, as the module's docstring says."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.size = size
        self.pixels, self.location = nn.Linear(channels * size * size, 128), nn.Linear(2, 128)
        self.what, self.where = nn.Linear(128, 256), nn.Linear(128, 256)
        self.input, self.recurrent = nn.Linear(256, 256), nn.Linear(256, 256)
        self.locator = nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 2), nn.Tanh())
        self.classify, self.baseline = nn.Linear(256, classes), nn.Linear(256, 1)

    def cut(self, images: Tensor, location: Tensor) -> Tensor:
        """Patches [B, C * g * g], one slice an image."""
        start = (0.5 * (location + 1) * images.shape[-1]).long()
        padded = F.pad(images, [self.size // 2] * 4)
        patches = [
            padded[i, :, start[i, 1] : start[i, 1] + self.size, start[i, 0] : start[i, 0] + self.size] for i in range(len(images))
        ]
        return torch.stack(patches).flatten(1)

    def loss(self, images: Tensor, labels: Tensor, looks: int, std: float = 0.05) -> Tensor:
        """Cross-entropy of the last look, the baseline's squared error, and REINFORCE with weight 0.01."""
        hidden = images.new_zeros(len(images), 256)
        location = torch.rand(len(images), 2, device=images.device) * 2 - 1
        log_probs, baselines = [], []
        for _ in range(looks):
            seen = F.relu(self.what(F.relu(self.pixels(self.cut(images, location)))) + self.where(F.relu(self.location(location))))
            hidden = F.relu(self.input(seen) + self.recurrent(hidden))
            policy = torch.distributions.Normal(self.locator(hidden.detach()), std)
            location = policy.sample()
            log_probs.append(policy.log_prob(location).sum(dim=1))
            location = location.clamp(-1, 1)
            baselines.append(self.baseline(hidden.detach()).squeeze(1))
        logits = self.classify(hidden)
        reward = (logits.argmax(dim=1) == labels).float()[:, None]
        baseline, log_prob = torch.stack(baselines, dim=1), torch.stack(log_probs, dim=1)
        reinforce = -(log_prob * (reward - baseline.detach())).sum(dim=1).mean()
        value: Tensor = F.mse_loss(baseline, reward.expand_as(baseline))
        total: Tensor = F.cross_entropy(logits, labels) + value + 0.01 * reinforce
        return total


def _loop_training(task: Task, dataset: datasets.Dataset, batch: int) -> Callable[[], None]:
    device = dataset.images.device
    model = LoopRam(dataset.images.shape[1], task.size, dataset.classes).to(device)
    optimizer = torch.optim.Adam(model.parameters())
    images = dataset.images[:batch].float() / 255  # without a data loader, like the figures that others publish
    labels = dataset.labels[:batch]

    def step() -> None:
        optimizer.zero_grad()
        model.loss(images, labels, task.num_glimpses).backward()
        optimizer.step()

    return step


def _machine(device: str) -> dict[str, Any]:
    cuda = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "git": git_commit(),
        "peak_memory_bytes": torch.cuda.max_memory_allocated(device) if cuda else None,
    }


def processor() -> str:
    """The processor's name and widest instructions, its matrix unit among them."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)  # not public; a release without it leaves AMX unsaid
    widest = f"{torch.backends.cpu.get_cpu_capability()}{', AMX' if amx and amx() else ''}"
    return f"{names[0] if names else platform.machine()} ({widest})"
