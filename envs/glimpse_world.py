"""The world of glimpses: an action is a fixation point, and a recurrent network classifies from what it saw there.

Recurrent Models of Visual Attention (Mnih et al. 2014): the perception part of RAM (glimpse network, core, classifier) lives
here, the location policy is the agent's. The agent gets detached observations, so its gradient never enters perception;
perception learns from `loss()` alone.
"""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from hardattn.envs import glimpse, rewards
from hardattn.envs.canvases import Canvases
from hardattn.envs.cells import State
from hardattn.envs.crops import Crops
from hardattn.envs.datasets import Dataset, Shown
from hardattn.envs.drawing import scan_path
from hardattn.envs.errors import UsageError
from hardattn.envs.observation import Observation
from hardattn.envs.perception import Perception
from hardattn.envs.precision import MixedPrecision
from hardattn.envs.products import quick_in_float32
from hardattn.envs.ram_written_out import WrittenOut, fits
from hardattn.envs.shuffle import ShuffledPass
from hardattn.envs.tasks import Task
from hardattn.envs.world import Attention, Counts, Precision, Step, not_finite, use_bf16

FAR = 100.0  # a location at which no patch meets the image: where the looks lie that were not taken
NOT_FINITE = "action: got NaN or infinity, wanted locations in [-1, 1]; look at the policy's last update"
NEAR = 0.3  # the reach with which `spread` begins: on a field of 100 pixels, two digits of 28 within 50, apart as often as not
STRIDE = 0.05  # by which that reach grows on a GPU
ROWS = 16  # a smaller batch is filled up to this: matrix products of fewer rows take other kernels, which round otherwise


class GlimpseWorld:
    """B images at a time, T looks at each.

    Observation [B, D]: the perception features, the last location (x, y), the step index as T indicators (all zero after the
    last look), and, where the task says so, the last glimpse's pixels and the whole image made small. Action [B, 2]: the next
    location, clipped to the image, in the task's unit (from -1 to 1 as a rule); with `stop` a third number, above 0 of which the
    episode stops looking: its state, location and glimpse stand and later looks cost nothing.

    `learning` keeps for `loss()` what perception's gradient needs: take it before the next step(). `attention="soft"` cuts bilinear
    glimpses and keeps the graph through the action too. Otherwise everything runs without gradients and perception is in eval mode.

    On a CPU the products of a fully connected RAM may be made without its modules (`ram_written_out.py`): hooks on these count, and
    methods put in their place, if they are there when the world is made.

    With `observes_bf16`, observations come in bf16 where perception computes so on a processor: a policy's products in float32
    would take longer there than all of perception's.

    With `spread`, the digits of canvases lie near the middle at first and move out over that share of the training budget.

    Raises UsageError for a batch that is not a multiple of `repeats` or larger than the data set, or `spread` without canvases.
    """

    def __init__(
        self,
        task: Task,
        dataset: Dataset | Canvases | Crops,
        perception: nn.Module,
        *,
        batch_size: int,
        repeats: int = 1,
        learning: bool = False,
        attention: Attention = "hard",
        augment: float = 0.0,
        spread: float = 0.0,
        stop: bool = False,
        precision: Precision = "auto",
        observes_bf16: bool = False,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        self.task, self.device = task, torch.device(device)
        self._pass = ShuffledPass(len(dataset), batch_size, repeats, seed, self.device)
        self.dataset = dataset.to(self.device)
        self.network = perception.to(self.device)
        self.perception: Perception = perception  # type: ignore[assignment]  # the same object, by its contract
        self.horizon, self.batch_size, self.repeats = task.num_glimpses, batch_size, repeats
        labels = getattr(dataset, "labels", None)
        told = labels.shape[1] if labels is not None and labels.ndim == 2 else 1
        if told != task.targets:
            raise UsageError(f"targets={task.targets}: the data set has {told} label(s) an image; wanted targets={told}")
        if spread and not isinstance(dataset, Canvases):
            raise UsageError(f"spread={spread}: {task.name} shows no canvases on which digits could move; wanted 0")
        height, width = dataset.shape
        for name, asked in (("size", task.size), ("context", task.context)):
            if asked > max(height, width):
                raise UsageError(f"{name}={asked}: images are {height} x {width} pixels; wanted no wider than that")
        self.spread = spread
        self._each = self.horizon // task.targets  # looks for one target
        self.learning, self.attention, self.augment, self.stop = learning, attention, augment, stop
        bf16 = use_bf16(precision, self.device)
        bf16_on_cpu = bf16 and self.device.type == "cpu"
        self._dtype = torch.bfloat16 if bf16_on_cpu and observes_bf16 else torch.float32  # of observations
        self._see: MixedPrecision | WrittenOut
        plain = self.device.type == "cpu" and attention == "hard" and not stop
        if plain and (bf16 or quick_in_float32()) and fits(perception):
            self._see = WrittenOut(perception, torch.bfloat16 if bf16 else torch.float32)
        else:
            self._see = MixedPrecision(perception, bf16, self.device.type)
        self.progress = 0.0
        self._reach = 0.5 / task.unit  # of an action, from the middle of the image to its border
        reach = np.array([self._reach, self._reach, 1.0][: 3 if stop else 2], np.float32)
        self.action_space = spaces.Box(-reach, reach)
        parts: dict[str, tuple[int, ...]] = {"core": (self.perception.features,), "location": (2,), "clock": (self.horizon,)}
        if task.see_glimpse:
            parts["glimpse"] = (task.scales, dataset.channels, task.size, task.size)
        if task.context:
            parts["context"] = (dataset.channels, task.context, task.context)
        self.observation_space = Observation(parts)
        self._keeps_graph = learning or attention == "soft"
        # Episodes, looks, correct, unique pixels, clipped, on target, actions that were not finite
        self._tally = torch.zeros(7, dtype=torch.int64, device=self.device)
        clock = torch.eye(self.horizon + 1, self.horizon, dtype=self._dtype, device=self.device)
        self._clock = clock.unbind()  # each [T]: before each look, and after the last

    @property
    def recordable(self) -> bool:
        """Whether its episodes may be recorded: so far where no crops are shown."""
        return not isinstance(self.dataset, Crops)

    @property
    def generator(self) -> torch.Generator:
        """Where its chances come from: the order of examples, canvases, distortions."""
        return self._pass.generator

    def deal(self) -> None:
        """Lay the next batch out: `reset()` shows it, and so does its replay where it is part of a recorded update."""
        self._pass.deal()

    def reset(self, indices: Tensor | None = None) -> Tensor:
        """Show the next examples of a shuffled pass, or those at `indices` [n] (then B = n x repeats). Returns [B, D]."""
        examples = self._pass.take() if indices is None else indices.to(self.device)
        shown = self._source().show(examples, self._pass.generator, self.augment)
        if self.repeats > 1:
            examples = examples.repeat_interleave(self.repeats)
            boxes = None if shown.boxes is None else shown.boxes.repeat_interleave(self.repeats, dim=0)
            images, labels = (part.repeat_interleave(self.repeats, dim=0) for part in (shown.images, shown.labels))
            shown = Shown(images, labels, boxes)
        self.examples, (self.images, self.labels, self.boxes) = examples, shown
        batch = len(examples)
        self._fill = 0 if self._keeps_graph else max(0, ROWS - batch)
        self._state: State | None = None
        self._logits = [torch.zeros(batch, self.dataset.classes, device=self.device)]  # before any look every class is alike
        gain = rewards.RISES.get(self.task.reward)
        self._worth = None if gain is None else gain(self._logits[0], self.labels)
        self.locations: list[Tensor] = []  # each [B, 2], as looked at
        # After the last look, for each [B] bool: whether its middle lay on a digit. Empty where boxes are unknown.
        self.hits: list[Tensor] = []
        self._asked: list[Tensor] = []  # each [B, 2], the locations before they were clipped
        self._looking: list[Tensor] = []  # with `stop` each [B] bool: which episodes took that look
        self._stopped = torch.zeros(batch, dtype=torch.bool, device=self.device)
        self._told: list[Tensor] = []  # each [B] bool: whether that target was told right; so it is where none is left
        retina = self.task.size, self.task.scales, self.task.background
        self._field = glimpse.lay_out(shown.images, *retina) if self.attention == "hard" else None
        pixels = self.task.scales * shown.images.shape[1] * self.task.size**2
        self._glimpse = [torch.zeros(batch, pixels, device=self.device)] if self.task.see_glimpse else []
        self._context = [glimpse.coarse(shown.images, self.task.context).flatten(1)] if self.task.context else []
        self._before = torch.zeros(batch, 2, device=self.device)  # where each episode looked last
        return self._observe(self._before)

    def _source(self) -> Dataset | Canvases | Crops:
        if not isinstance(self.dataset, Canvases):
            return self.dataset
        return replace(self.dataset, reach=self.reach)

    @property
    def reach(self) -> float:
        """How far from the middle a canvas's digits may lie now, as a share of the room there is; 1 is anywhere."""
        if not self.spread:
            return 1.0
        reach = NEAR + (1 - NEAR) * min(1.0, self.progress / self.spread)
        # Of a recorded update it is a part, and each change has it recorded again; on a CPU it is not, until this stands.
        return reach if self.device.type == "cpu" else round(reach / STRIDE) * STRIDE

    def step(self, action: Tensor) -> Step:
        """Look at `action` [B, 2] (or [B, 3] with `stop`). Raises ValueError for another shape or dtype, or after the last look."""
        self._check(action)
        location = (action[:, :2] / self._reach).clamp(-1, 1)
        if self.stop:
            self._stopped = self._stopped | (action[:, 2] > 0)
            location = torch.where(self._stopped[:, None], self._before, location)
            self._before = location
        with torch.set_grad_enabled(self._keeps_graph and not isinstance(self._see, WrittenOut)):
            if not self.locations:
                self._see.refresh(self.learning)
            seen = self._glimpses(location)
            if self._glimpse:
                news = seen.flatten(1)
                self._glimpse = [torch.where(self._stopped[:, None], self._glimpse[0], news) if self.stop else news]
            state = self._see("look", self._state, self._filled(seen), self._filled(location))
            self._state = self._hold(state) if self.stop else state
            logits = self._see("read", self._state)[: len(self.labels)]
        self._logits.append(logits.float())
        if self.stop:
            self._looking.append(~self._stopped)
        self.locations.append(location.detach())
        self._asked.append(action[:, :2].detach())
        last = len(self.locations) == self.horizon
        if last:
            self._count()
        done = torch.full_like(self._stopped, last)
        return Step(self._observe(location), self._reward(last), done, self._logits[-1].detach())

    def _glimpses(self, location: Tensor) -> Tensor:
        """What lies there, [B, S, C, g, g]."""
        retina = self.task.size, self.task.scales, self.task.background
        if self.attention == "soft":
            return glimpse.soft_glimpse(self.images, location, *retina)
        return glimpse.hard_glimpse(self.images, location, *retina, self._field)

    def loss(self) -> Tensor:
        """Cross-entropy after each look of the episodes just played: weight 1 for the last, `look_loss` for those before."""
        if len(self._logits) != self.horizon + 1:
            raise ValueError(f"loss() after {len(self._logits) - 1} of {self.horizon} looks: play the episodes to their end first")
        weight = self.task.look_loss
        told = self._see.connect(self._logits[1:])  # T times [B, K]
        if self.task.targets > 1:
            return self._loss_of_targets(told, weight)
        if weight == 0:
            return F.cross_entropy(told[-1], self.labels)
        looks = F.cross_entropy(torch.cat(told), self.labels.repeat(self.horizon), reduction="none")
        looks = looks.view(self.horizon, -1).mean(dim=1)  # [T]
        return (looks[-1] + weight * looks[:-1].sum()) / (1 + weight * (self.horizon - 1))

    @property
    def right(self) -> Tensor:
        """Which episodes told what was to be told, all of it, [B] bool. Ask after the last look."""
        if self.task.targets > 1:
            return torch.stack(self._told, dim=1).all(dim=1)
        return self._logits[-1].argmax(dim=1) == self.labels

    @property
    def truth_by_look(self) -> Tensor:
        """What each look should tell, [B, T]: the label, or that of the target whose turn it is; -1 where none is left."""
        labels = self.labels[:, None] if self.labels.ndim == 1 else self.labels
        return labels.repeat_interleave(self._each, dim=1)

    @property
    def counts(self) -> Counts:
        """Totals since the world was made. Reading them waits for the device."""
        episodes, looks, correct, unique, clipped, on_target, broken = self._tally.tolist()
        if broken:
            raise ValueError(NOT_FINITE)
        return Counts(episodes, looks, correct, looks * self.task.scales * self.task.size**2, unique, clipped, on_target)

    @property
    def logits(self) -> Tensor:
        """What perception believes now, [B, K]; zeros before the first look."""
        return self._logits[-1].detach()

    def render(self, row: int) -> NDArray[np.uint8]:
        """The image of one episode with its looks so far, enlarged: [H', W', 3]."""
        image = self.images[row] if self.images.dtype == torch.uint8 else self.images[row] * 255
        path = torch.stack([location[row] for location in self.locations]) if self.locations else torch.zeros(0, 2)
        return scan_path(image, path, self.task.size, self.task.scales)

    def reseed(self, seed: int) -> None:
        """Start the shuffled pass and the random stream afresh."""
        self._pass.reseed(seed)

    def state_dict(self) -> dict[str, Tensor]:
        """Where the shuffled pass stands, the random generator and the counts. Take it between episodes."""
        return {**self._pass.state_dict(), "tally": self._tally.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()`: the next reset shows what it would have shown."""
        self._pass.load_state_dict(state)
        self._tally = state["tally"].to(self.device, copy=True)  # which goes on; the caller's stands

    def _observe(self, location: Tensor) -> Tensor:
        if self._state is None:
            known = location.new_zeros(len(location), self.perception.features)
        else:
            known = self.perception.observe(self._state)[: len(location)]
        clock = self._clock[len(self.locations)].expand(len(location), -1)
        parts = [known, location, clock, *self._glimpse, *self._context]
        observation = torch.cat([part.to(self._dtype) for part in parts], dim=1)
        return observation if self.attention == "soft" else observation.detach()

    def _hold(self, state: State) -> State:
        """The new state, but the old one in episodes that stopped; zeros where they stopped before the first look."""
        before = self._state or tuple(torch.zeros_like(part) for part in state)
        stopped = self._filled(self._stopped)[:, None]
        return tuple(torch.where(stopped, old.to(new.dtype), new) for old, new in zip(before, state, strict=True))

    def _filled(self, rows: Tensor) -> Tensor:
        """The rows [B, ...] and enough copies of the last one to make `ROWS`, where nothing learns."""
        return torch.cat([rows, rows[-1:].expand(self._fill, *rows.shape[1:])]) if self._fill else rows

    def _reward(self, last: bool) -> Tensor:
        after = self._logits[-1].detach()
        if self._worth is not None:
            before, self._worth = self._worth, rewards.RISES[self.task.reward](after, self.labels)
            return self._worth - before
        if self.task.targets > 1:
            return self._pay_target(after)
        if not last:
            return torch.zeros(len(after), device=self.device)
        formula = rewards.correct if self.task.reward == "correct" else rewards.clipped_linear
        return formula(after, self.labels)

    def _pay_target(self, after: Tensor) -> Tensor:
        """At the last look for a target, 1 where it and all before it were told right."""
        turn, looks = divmod(len(self.locations), self._each)
        if looks:
            return torch.zeros(len(after), device=self.device)
        truth = self.labels[:, turn - 1]
        self._told.append((after.argmax(dim=1) == truth) | (truth < 0))
        return rewards.until_first_error(torch.stack(self._told, dim=1))[:, -1] * (truth >= 0)

    def _loss_of_targets(self, told: list[Tensor], weight: float) -> Tensor:
        """Mean cross-entropy over all looks that have a target left, its last look with weight 1, those before with `weight`."""
        weights = torch.full((self.horizon, 1), weight, device=self.device)
        weights[self._each - 1 :: self._each] = 1
        truth = self.truth_by_look.T  # [T, B]
        weights = weights * (truth >= 0)
        looks = F.cross_entropy(torch.cat(told), truth.flatten(), reduction="none", ignore_index=-1)
        return (looks.view(truth.shape) * weights).sum() / weights.sum()

    def _count(self) -> None:
        """What the episodes just played add to the totals: at their end and at once, not look by look."""
        path = torch.stack(self.locations, dim=1)  # [B, T, 2]
        looking = torch.stack(self._looking, dim=1) if self.stop else torch.ones_like(path[..., 0], dtype=torch.bool)  # [B, T]
        height, width = self.images.shape[-2:]
        clipped = (torch.stack(self._asked, dim=1).abs() > self._reach).any(dim=2) & looking
        on_target = torch.zeros_like(clipped)
        if self.boxes is not None:
            on_target = glimpse.on_target(path, self.boxes[:, None], height, width).any(dim=2) & looking
            self.hits = list(on_target.unbind(dim=1))
        path = path.where(looking[..., None], FAR) if self.stop else path
        unique = glimpse.unique_pixels(path, self.task.size, self.task.scales, height, width)
        correct = self.right.sum()
        episodes = torch.ones_like(looking[:, 0]).sum()
        self._tally[:6] += torch.stack([episodes, looking.sum(), correct, unique, clipped.sum(), on_target.sum()])

    def _check(self, action: Tensor) -> None:
        if not hasattr(self, "locations"):
            raise ValueError("step() before reset(): call reset() to start the episodes")
        if len(self.locations) == self.horizon:
            raise ValueError(f"step() after the last of {self.horizon} looks: call reset() to start new episodes")
        broken = not_finite(action, len(self.labels), self, NOT_FINITE)
        if broken is not None:
            self._tally[6] += broken
