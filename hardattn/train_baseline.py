"""Train a baseline by supervision and measure it, in a run folder like an agent's; resumable to the bit at each evaluation."""

import dataclasses
import importlib
import math
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hardattn import experiment, loading, results, settings
from hardattn.agents.losses import cosine
from hardattn.baselines import BASELINES
from hardattn.baselines.looked import Looked, overlap
from hardattn.envs import datasets, task_data
from hardattn.envs.canvases import Canvases
from hardattn.envs.crops import Crops
from hardattn.envs.datasets import Dataset
from hardattn.envs.errors import HardattnError, UsageError, unknown
from hardattn.envs.perception import weights_sha256
from hardattn.envs.shuffle import ShuffledPass
from hardattn.envs.tasks import Task, find_task
from hardattn.envs.world import use_bf16
from hardattn.evaluate import is_wrong, percent
from hardattn.experiment import Experiment, check_seed, resolve_device
from hardattn.settings import TrainSettings
from hardattn.statistics import wilson
from hardattn.train import Interrupted, Progress, check_origin, interruptible, may_start, run_alone

BATCH = 500  # images side by side where nothing is learned
CHECKED = 50  # steps after which the loss is looked at, which makes a GPU wait
# What of TrainSettings a baseline has no use for, and the value that says so.
UNUSED = {"mode": "joint", "repeats": 1, "spread": 0.0, "perception_from": "", "start_from": "", "keep": "last", "recorded": True}


def baseline_class(name: str) -> Any:
    """The class behind a baseline's name. Raises UsageError for an unknown one."""
    if name == "soft-glimpse":
        raise UsageError("soft-glimpse is the agent pathwise among `compare`'s baselines; alone it is --agent pathwise")
    if name not in BASELINES:
        raise unknown("baseline", name, BASELINES)
    module, _, attribute = BASELINES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def build(
    task: str, name: str, *, preset: str = "default", sets: list[str] | None = None, seed: int = 0, device: str = "auto"
) -> Experiment:
    """An experiment from the names and assignments of a command line. Raises UsageError for any that is wrong."""
    base = find_task(task)
    check_seed(seed)
    if base.catch or base.targets > 1:
        what = "a game of Catch" if base.catch else "several labels in turn"
        raise UsageError(f"--baseline {name} on {base.name}: it tells one label of one image, not {what}; wanted another task")
    sections: dict[str, Any] = {"train": TrainSettings(), "task": base, "baseline": baseline_class(name).Config()}
    sections |= {"canvas": base.canvas} if base.canvas else {}
    taken = {
        key: value
        for key, value in settings.preset(base.name, preset).items()
        if key.startswith("train.") and key.removeprefix("train.") not in UNUSED
    }
    if base.gating:
        taken = {}  # its presets are for policies over a frozen network
    asked = settings.parse(sets or [])
    sections = settings.override(settings.override(sections, taken), asked)
    for field, plain in UNUSED.items():
        if getattr(sections["train"], field) != plain:
            raise settings.NoSuchSetting(
                f"--set {field}={getattr(sections['train'], field)}: a baseline has no {field}; leave it out"
            )
    made = dataclasses.replace(sections["task"], **({"canvas": sections["canvas"]} if base.canvas else {}))
    chosen = sections["baseline"].fitted(made) if hasattr(sections["baseline"], "fitted") else sections["baseline"]
    return Experiment(made, sections["train"], name, chosen, seed, resolve_device(device))


def images_of(task: Task, split: str, label_noise: float = 0.0, augment_clutter: bool = True) -> Dataset | Canvases | Crops:
    """What a baseline is shown: in training the task's images, or new canvases each time; of other splits the fixed ones.

    With `label_noise` that share of the training images has another class's label; without `augment_clutter` clutter stays crisp.
    """
    if task.gating:  # a policy over filters learns from what its network has not seen; a baseline is that network's peer
        images = datasets.load(task.dataset, split)
        return images.mislabelled(label_noise) if label_noise and split == "train" else images
    learning = split == "train"
    data = task_data.training_data(task, label_noise, augment_clutter) if learning else task_data.fixed_data(task, split)
    assert isinstance(data, Dataset | Canvases | Crops)
    return data


def make(setup: Experiment, data: Dataset | Canvases | Crops) -> nn.Module:
    """An untrained model for images like these; its weights come from torch's global random state."""
    first = torch.zeros(1, dtype=torch.int64, device=setup.device)
    shape = tuple(data.show(first, torch.Generator(setup.device)).images.shape[1:])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element")  # layers of which such images leave nothing
        model: nn.Module = baseline_class(setup.agent)(shape, data.classes, setup.agent_config)
    task_data.fits(model, shape, f"--baseline {setup.agent}")
    return model.to(setup.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def open_baseline(folder: Path, data: Dataset) -> nn.Module:
    """The model of a finished run in eval mode, for images like these. Raises HardattnError if it does not fit this version."""
    saved = results.read_json(folder / results.CONFIG)
    found = baseline_class(saved["agent"])
    try:
        model: nn.Module = found(tuple(data.images.shape[1:]), data.classes, found.Config(**saved["agent_config"]))
    except (KeyError, TypeError) as error:
        raise HardattnError(f"{folder / results.CONFIG} does not fit this version: {error}; train the run again") from error
    loading.fit(model, loading.read_weights(folder), folder)
    return model.eval()


class BaselineTrainer:
    """The state of one training and its loop; `state_dict()` holds all of it."""

    def __init__(self, setup: Experiment, folder: Path, watch: Callable[[Progress], None]) -> None:
        self.setup, self.folder, self.watch = setup, folder, watch
        torch.manual_seed(setup.seed)
        self.data = images_of(setup.task, "train", setup.train.label_noise, setup.train.augment_clutter).to(setup.device)
        self.validation = images_of(setup.task, "validation").to(setup.device)
        task_data.one_label(self.data, f"--baseline {setup.agent}")
        self.data_sha256 = self.data.sha256()
        self.model = make(setup, self.data)
        slow = list(self.model.slow.parameters()) if hasattr(self.model, "slow") else []  # type: ignore[union-attr]
        others = [weight for weight in self.model.parameters() if not any(weight is one for one in slow)]
        groups = [{"params": others, "share": 1.0}]
        groups += [{"params": slow, "share": self.model.slow_rate}] if slow else []
        self.optimizer = torch.optim.AdamW(groups, lr=setup.train.learning_rate, weight_decay=setup.train.weight_decay, fused=True)
        self.passes = ShuffledPass(len(self.data), setup.train.batch_size, 1, setup.seed, torch.device(setup.device))
        self.bf16 = use_bf16(setup.train.precision, torch.device(setup.device))
        self.update, self.seconds = 0, 0.0
        self.validation_error: float | None = None

    @property
    def total(self) -> int:
        """Updates in all."""
        return max(1, self.setup.train.episodes // self.setup.train.batch_size)

    def run(self) -> dict[str, Any]:
        """Train to the budget, read the test split once, write final.json. Raises Interrupted on Ctrl-C, after a checkpoint."""
        train, total = self.setup.train, self.total
        marks = {round(total * (k + 1) / train.evaluations) for k in range(train.evaluations)} | {total}
        loss = torch.zeros((), device=self.setup.device)
        with interruptible() as interrupted:
            while self.update < total:
                started = time.perf_counter()
                loss = self._one_update()
                if self.update % CHECKED == 0 or self.update in marks:
                    self._check(float(loss))
                self.seconds += time.perf_counter() - started
                if self.update in marks:
                    self.validation_error = percent(answer(self.model, self.validation, self.bf16).wrong)
                    row = {
                        "update": self.update,
                        "episodes": self.update * train.batch_size,
                        "seconds": round(self.seconds, 2),
                        "validation_error": self.validation_error,
                        "loss": float(loss),
                    }
                    results.append_line(self.folder / results.CURVE, row)
                    self.checkpoint()
                self.watch(Progress(self.update * train.batch_size, total * train.batch_size, "supervised", self.validation_error))
                if interrupted() and self.update < total:
                    self._check(float(loss))
                    self.checkpoint()
                    raise Interrupted(
                        f"stopped after {self.update * train.batch_size} images; add --resume to the same command to go on"
                    )
        return self._finish()

    def _one_update(self) -> Tensor:
        train, done = self.setup.train, self.update / self.total
        rate = train.learning_rate * min(1.0, (self.update + 1) / (train.warmup * self.total + 1)) * cosine(done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self.model.train()
        shown = self.data.show(self.passes.take(), self.passes.generator, train.augment)
        loss = loss_of(looked(self.model, shown.images, self.bf16), shown.labels, self.setup.task.look_loss)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), train.clip_norm)
        self.optimizer.step()
        self.update += 1
        return loss.detach()

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            smaller = f"--set learning_rate={self.setup.train.learning_rate / 4:.2g}"
            raise HardattnError(f"the loss became {loss} at update {self.update}; try a smaller step: {smaller}")

    def _finish(self) -> dict[str, Any]:
        test = images_of(self.setup.task, "test").to(self.setup.device)
        assert isinstance(test, Dataset)
        answers = answer(self.model, test, self.bf16)
        count, missed = len(test), int(answers.wrong.sum())
        final = {
            "task": self.setup.task.name,
            "agent": self.setup.agent,
            "seed": self.setup.seed,
            "protocols": {
                "mean": {
                    "error": percent(answers.wrong),
                    "interval": [100 * bound for bound in wilson(missed, count)],
                    "error_by_look": answers.error_by_look,
                    **answers.on_target,
                }
            },
            "controls": {},
            "images": count,
            "processed_pixels": self.model.processed_pixels,
            "unique_pixels": self.model.unique_pixels,
            "sees": self.model.sees,
            "validation_error": self.validation_error,
            "episodes": self.update * self.setup.train.batch_size,
            "kept_update": self.update,
            "seconds": round(self.seconds, 1),
            "flops_per_image": flops_per_image(self.model, test),
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "perception_sha256": weights_sha256(self.model),
            "test_sha256": test.sha256(),
            "command": " ".join(["hardattn", *sys.argv[1:]]),
        }
        results.write_state(
            self.folder / results.PREDICTIONS, {"probabilities": answers.probabilities.cpu(), "wrong": answers.wrong.cpu()}
        )
        results.write_json(self.folder / results.FINAL, final)
        return final

    def checkpoint(self) -> None:
        """Write everything that the next update depends on."""
        state = {
            "task": self.setup.task.name,
            "agent_name": self.setup.agent,
            "data_sha256": self.data_sha256,
            "perception": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "passes": self.passes.state_dict(),
            "random": results.rng_state(),
            "progress": [self.update, self.seconds, self.validation_error],
        }
        results.write_state(self.folder / results.CHECKPOINT, state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint. Raises UsageError if it is of another task, baseline or data set."""
        check_origin(state, self.setup, self.data_sha256, self.folder)
        self.model.load_state_dict(state["perception"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.passes.load_state_dict(state["passes"])
        results.set_rng_state(state["random"])
        self.update, self.seconds, self.validation_error = state["progress"]


@dataclasses.dataclass(frozen=True)
class Answers:
    """One pass over a data set."""

    probabilities: Tensor  # [N, K]
    wrong: Tensor  # [N] bool
    error_by_look: list[float]
    on_target: dict[str, Any]  # on_target_by_look, and the share of last crops that cover a digit; empty where nothing is known


@torch.no_grad()
def answer(model: nn.Module, data: Dataset | Canvases | Crops, bf16: bool) -> Answers:
    """What a model says of every image of a fixed data set, and where it looked."""
    assert isinstance(data, Dataset)
    model.eval()
    logits, by_look, boxes = [], [], []
    for images in data.images.split(BATCH):
        one = looked(model, images, bf16)
        logits.append(one.logits)
        by_look += [one.by_look] if one.by_look is not None else []
        boxes += [one.boxes] if one.boxes is not None else []
    probabilities = torch.cat(logits).softmax(dim=1)
    looks = torch.cat(by_look) if by_look else torch.cat(logits)[:, None]
    errors = [percent(is_wrong(looks[:, t], data.labels)) for t in range(looks.shape[1])]
    hits = {}
    if boxes and data.boxes is not None:
        crops = torch.cat(boxes)  # [N, T, 4]
        middle = (crops[..., :2] + crops[..., 2:])[:, :, None] / 2  # [N, T, 1, 2]
        inside = ((middle >= data.boxes[:, None, :, :2]) & (middle < data.boxes[:, None, :, 2:])).all(dim=-1).any(dim=-1)
        covered = overlap(crops[:, -1:], data.boxes).amax(dim=1) > 0.5
        hits = {"on_target_by_look": [percent(look) for look in inside.unbind(dim=1)], "covered": percent(covered)}
    return Answers(probabilities, is_wrong(probabilities, data.labels), errors, hits)


def looked(model: nn.Module, images: Tensor, bf16: bool) -> Looked:
    """A model's answer to images [B, C, H, W], uint8 or in [0, 1], convolutions in bf16 where asked; logits as float32."""
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        one: Looked = model(pixels.contiguous(memory_format=torch.channels_last))
    return one._replace(logits=one.logits.float())


def loss_of(one: Looked, labels: Tensor, look_loss: float) -> Tensor:
    """Cross-entropy, weighted over looks as a world weighs them: 1 for the last, `look_loss` for each before it."""
    last = F.cross_entropy(one.logits, labels)
    if one.by_look is None or look_loss == 0 or one.by_look.shape[1] < 2:
        return last
    early = one.by_look[:, :-1]
    before = F.cross_entropy(early.flatten(0, 1), labels.repeat_interleave(early.shape[1]), reduction="mean") * early.shape[1]
    return (last + look_loss * before) / (1 + look_loss * early.shape[1])


def flops_per_image(model: nn.Module, data: Dataset) -> float:
    """Floating-point operations for one image: products and convolutions counted by torch, and the rest as the model says."""
    from torch.utils.flop_counter import FlopCounterMode

    images = data.images[: min(8, len(data))]
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        looked(model, images, False)
    return float(counter.get_total_flops() / len(images)) + float(model.other_flops)  # type: ignore[arg-type]


def train_baseline(
    setup: Experiment, folder: Path, *, resume: bool = False, watch: Callable[[Progress], None] = lambda progress: None
) -> dict[str, Any]:
    """Run a baseline's experiment in a folder and return its final.json; with `resume`, go on from the folder's checkpoint.

    Raises UsageError if the folder already holds a run and `resume` is off, or if the saved settings differ.
    """
    wanted = experiment.to_json(setup)
    final = may_start(folder, setup, wanted, resume)
    if final is not None:
        return final
    return run_alone(BaselineTrainer(setup, folder, watch), folder, wanted, resume)
