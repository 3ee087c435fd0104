"""The world of dasNet: an agent weighs the feature maps of a frozen CNN, pass after pass over the same image.

Stollenga et al. 2014. The first pass is the network as it is; then, at each of T steps, the agent sees how the network reacted and
sets a gain for every map, and the image goes through again. With scores of 0 every gain is 1: the network as it is, to the bit (but
for the rounding of a convolution that is taken apart, which is done only to train populations).
"""

import math
import sys
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from hardattn.envs import rewards
from hardattn.envs.cnn import Cnn, Seen, Split
from hardattn.envs.datasets import Dataset
from hardattn.envs.errors import UsageError
from hardattn.envs.gains import HARD, LIMIT, to_gains
from hardattn.envs.observation import Observation
from hardattn.envs.pictures import Pictures
from hardattn.envs.shuffle import ShuffledPass
from hardattn.envs.tasks import Task
from hardattn.envs.world import Attention, Counts, Precision, Step, not_finite, use_bf16

NOT_FINITE = "action: got NaN or infinity, wanted scores of feature maps; look at the policy's last update"
MANY = 8  # repeats from which taking a convolution apart costs less than doing it for every row
CACHED = 200  # rows that go through at once on a CPU, whose caches more would leave: 2000 at once take a third longer a row


class FilterWorld:
    """B rows of images at a time, T passes with gains after one without.

    Observation [B, D]: the mean of each gated feature map, the activations before the last layer, the log-probabilities, all of the
    last pass and standardised over training images, and the step's number as indicators. Action [B, A]: a score for each gain, made
    a gain by the task's rule. `repeats` rows show the same image; what no gain touches is computed once for all of them.

    `attention="soft"` keeps the graph through the gains. Raises UsageError for a batch that is not a multiple of `repeats` or
    larger than the data set, and for soft attention by a rule that has no derivative.
    """

    def __init__(
        self,
        task: Task,
        dataset: Dataset | Pictures,
        network: Cnn,
        *,
        batch_size: int,
        repeats: int = 1,
        attention: Attention = "hard",
        augment: float = 0.0,
        precision: Precision = "auto",
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        if task.gating is None:
            raise UsageError(f"task {task.name}: it has no filters to weigh")
        if task.gating.first >= len(network.stages):
            raise UsageError(f"first={task.gating.first}: the network has {len(network.stages)} convolutions; wanted one of these")
        if attention == "soft" and task.gating.rule in HARD:
            raise UsageError(
                f"rule={task.gating.rule}: such gains have no derivative to learn by; wanted softmax, layer-softmax or sigmoid, or "
                "an agent that learns by trial, e.g. reinforce"
            )
        self.task, self.gating, self.device = task, task.gating, torch.device(device)
        self._pass = ShuffledPass(len(dataset), batch_size, repeats, seed, self.device)
        self.dataset = dataset.to(self.device)
        self.network: Cnn = network.to(self.device, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]
        self.horizon, self.batch_size, self.repeats, self.stop = task.num_glimpses, batch_size, repeats, False
        self.attention, self.augment, self.progress = attention, augment, 0.0
        self._bf16 = use_bf16(precision, self.device)
        self._at_once = CACHED if self.device.type == "cpu" else sys.maxsize
        self._counts = network.gain_counts(self.gating.where, self.gating.first)
        self.action_space = spaces.Box(-LIMIT, LIMIT, (sum(self._counts),), np.float32)
        maps = sum(network.mean_counts(self.gating.first))
        self.observation_space = Observation(
            {"maps": (maps,), "hidden": (network.hidden,), "log_probabilities": (dataset.classes,), "clock": (self.horizon,)}
        )
        stage = network.stages[self.gating.first]
        passes_through = self.gating.where == "after" or stage.pieces == 1  # a ReLU lets a gain through, a maxout does not
        self._splits = passes_through and self.gating.first + 1 < len(network.stages)
        self._clock = torch.eye(self.horizon, device=self.device)
        # Episodes, passes, correct, scores that were clipped, actions that were not finite
        self._tally = torch.zeros(5, dtype=torch.int64, device=self.device)

    @property
    def recordable(self) -> bool:
        """Whether its episodes may be recorded: not where pictures are spoiled, by tables that come from the host."""
        return getattr(self.dataset, "corruption", "none") == "none"

    @property
    def generator(self) -> torch.Generator:
        """Where its chances come from: the order of examples, canvases, distortions."""
        return self._pass.generator

    def deal(self) -> None:
        """Lay the next batch out: `reset()` shows it, and so does its replay where it is part of a recorded update."""
        self._pass.deal()

    def reset(self, indices: Tensor | None = None) -> Tensor:
        """Show the next images of a shuffled pass, or those at `indices` [n] (then B = n x repeats). Returns [B, D]."""
        examples = self._pass.take() if indices is None else indices.to(self.device)
        shown = self.dataset.show(examples, self._pass.generator, self.augment)
        self.examples = self._repeated(examples)
        self._shown, self.labels, self.boxes = shown.images, self._repeated(shown.labels), None
        self.locations: list[Tensor] = []  # no place is looked at
        self.hits: list[Tensor] = []
        self.gains: list[list[Tensor]] = []  # for each pass, a tensor [B, maps] for each layer
        with torch.no_grad(), self._autocast():
            linear, seen = self._first_pass(shown.images)
            many = self._splits and self.repeats >= MANY and self.attention == "hard"
            self._split: Split | None = self.network.split(linear, self.gating.first) if many else None
            self._linear = None if many else self._repeated(linear)
        self._step = 0
        observation = self._repeated(self.network.observe(seen, self.gating.first))
        self._logits = [self._repeated(seen.logits)]
        return self._with_clock(observation)

    def step(self, action: Tensor) -> Step:
        """Send the image through again, gains by scores [B, A]. ValueError for another shape or dtype, NaN, or after the end."""
        self._check(action)
        soft = self.attention == "soft"
        with torch.set_grad_enabled(soft):
            gains = to_gains(action.float(), self._counts, self.gating.rule, self.gating.keep)
            with self._autocast():
                seen = self._through(gains)
            observation = self.network.observe(seen, self.gating.first)
        self.gains.append([layer.detach() for layer in gains])
        self._logits.append(seen.logits)
        self._step += 1
        last = self._step == self.horizon
        self._tally[1] += len(action)
        self._tally[3] += (action.detach().abs() > LIMIT).any(dim=1).sum()
        if last:
            self._tally[0] += len(action)
            self._tally[2] += self.right.sum()
        done = torch.full((len(action),), last, device=self.device)
        return Step(self._with_clock(observation), self._reward(last), done, self._logits[-1].detach())

    def loss(self) -> Tensor:
        """Cross-entropy of the last pass; with `look_loss`, of the passes before it too. Ask after the last pass."""
        if self._step != self.horizon:
            raise ValueError(f"loss() after {self._step} of {self.horizon} passes: play the episodes to their end first")
        each = torch.stack([F.cross_entropy(logits, self.labels) for logits in self._logits[1:]])  # [T]
        weight = self.task.look_loss
        return (each[-1] + weight * each[:-1].sum()) / (1 + weight * (self.horizon - 1))

    @property
    def right(self) -> Tensor:
        """Which images are told right now, [B] bool."""
        return self._logits[-1].argmax(dim=1) == self.labels

    @property
    def truth_by_look(self) -> Tensor:
        """The label at each pass, [B, T]."""
        return self.labels[:, None].expand(-1, self.horizon)

    @property
    def images(self) -> Tensor:
        """What is shown, [B, C, H, W] uint8."""
        return self._repeated(self._shown)

    @property
    def logits(self) -> Tensor:
        """What the network says now, [B, K]."""
        return self._logits[-1].detach()

    @property
    def counts(self) -> Counts:
        """Totals since the world was made; every pass reads the whole image, `clipped` counts rows with scores out of bounds."""
        episodes, passes, correct, clipped, broken = self._tally.tolist()
        if broken:
            raise ValueError(NOT_FINITE)
        pixels = math.prod(self._shown.shape[2:]) if hasattr(self, "_shown") else 0
        return Counts(episodes, passes, correct, (passes + episodes) * pixels, episodes * pixels, clipped)

    def render(self, row: int) -> NDArray[np.uint8]:
        """One row's image, enlarged, over its gains: a line for each pass, a dot for each map; grey is 1, white 2 or more."""
        image = self.images[row].repeat(3 // self.dataset.channels, 1, 1).permute(1, 2, 0).cpu().numpy()
        large = image.repeat(4, axis=0).repeat(4, axis=1)
        if not self.gains:
            return np.ascontiguousarray(large)
        lines = torch.stack([torch.cat([layer[row] for layer in layers]) for layers in self.gains]).clamp(0, 2) * 127.5
        dots = lines.to(torch.uint8).cpu().numpy().repeat(8, axis=0)  # [8 T, A]
        width = max(large.shape[1], dots.shape[1])
        canvas = np.zeros((large.shape[0] + dots.shape[0], width, 3), np.uint8)
        canvas[: large.shape[0], : large.shape[1]] = large
        canvas[large.shape[0] :, : dots.shape[1]] = dots[:, :, None]
        return canvas

    def reseed(self, seed: int) -> None:
        """Start the shuffled pass and the random stream afresh."""
        self._pass.reseed(seed)

    def state_dict(self) -> dict[str, Tensor]:
        """Where the shuffled pass stands, the random generator and the counts. Take it between episodes."""
        return {**self._pass.state_dict(), "tally": self._tally.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()`: the next reset shows what it would have shown."""
        self._pass.load_state_dict(state)
        self._tally = state["tally"].to(self.device, copy=True)

    def _first_pass(self, images: Tensor) -> tuple[Tensor, Seen]:
        """What no gain touches, and the network as it is: images [n, C, H, W], before they are repeated."""
        linear, seen = [], []
        for part in images.split(self._at_once):
            linear.append(self.network.begin(part, self.gating.first))
            seen.append(self.network.finish(linear[-1], None, self.gating.where, self.gating.first))
        return torch.cat(linear) if len(linear) > 1 else linear[0], _joined(seen)

    def _through(self, gains: list[Tensor]) -> Seen:
        """A pass with gains, each [B, maps]."""
        images = max(1, self._at_once // self.repeats)
        scales = zip(*(gain.split(images * self.repeats) for gain in gains), strict=True)
        finish: Callable[..., Seen] = self.network.finish
        parts: Iterable[Tensor | Split]
        if self._split is None:
            assert self._linear is not None
            parts = self._linear.split(images * self.repeats)
        else:
            finish, parts = self.network.finish_split, map(Split, *(each.split(images) for each in self._split))
        heard = zip(parts, scales, strict=True)
        return _joined([finish(part, list(scale), self.gating.where, self.gating.first) for part, scale in heard])

    def _repeated(self, rows: Tensor) -> Tensor:
        return rows.repeat_interleave(self.repeats, dim=0) if self.repeats > 1 else rows

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)

    def _with_clock(self, observation: Tensor) -> Tensor:
        clock = self._clock[self._step] if self._step < self.horizon else torch.zeros_like(self._clock[0])
        whole = torch.cat([observation, clock.expand(len(observation), -1)], dim=1)
        return whole if self.attention == "soft" else whole.detach()

    def _reward(self, last: bool) -> Tensor:
        before, after = self._logits[-2].detach(), self._logits[-1].detach()
        name = self.task.reward
        if name in rewards.RISES:
            return rewards.RISES[name](after, self.labels) - rewards.RISES[name](before, self.labels)
        if not last:
            return torch.zeros(len(after), device=self.device)
        if name == "boosted":
            return rewards.boosted(after, self.labels, self.gating.boost)
        return (rewards.correct if name == "correct" else rewards.clipped_linear)(after, self.labels)

    def _check(self, action: Tensor) -> None:
        if not hasattr(self, "labels"):
            raise ValueError("step() before reset(): call reset() to show the first images")
        if self._step == self.horizon:
            raise ValueError(f"step() after the last of {self.horizon} passes: call reset() to show new images")
        broken = not_finite(action, len(self.labels), self, NOT_FINITE)
        if broken is not None:
            self._tally[4] += broken


def _joined(parts: list[Seen]) -> Seen:
    """What batches have left behind, as of one."""
    return Seen(*(torch.cat(each) for each in zip(*parts, strict=True))) if len(parts) > 1 else parts[0]
