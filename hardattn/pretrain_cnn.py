"""Train the convolutional network whose filters dasNet weighs: supervised, on the training images alone, then frozen.

One loop over epochs; the held-out images (`validation`) are measured, never trained on, so that a policy can learn on them later.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from hardattn import experiment, results, settings
from hardattn.agents.losses import cosine
from hardattn.envs import datasets, task_data
from hardattn.envs.augment import shifted
from hardattn.envs.cnn import Cnn, whiten
from hardattn.envs.datasets import Dataset
from hardattn.envs.errors import HardattnError, UsageError
from hardattn.envs.perception import weights_sha256
from hardattn.envs.tasks import find_task
from hardattn.envs.world import use_bf16
from hardattn.evaluate import percent
from hardattn.experiment import Experiment, check_seed, resolve_device
from hardattn.settings import OF_CNN, CnnSettings, TrainSettings
from hardattn.statistics import wilson
from hardattn.train import Interrupted, Progress, interruptible, may_start, run_alone

CHECKED = 50  # steps after which the loss is looked at, which makes a GPU wait
RISING = 0.2  # share of the training in which the step size rises
SETTLING = 20_000  # training images from which averaged weights take their statistics


class CnnTrainer:
    """The state of one training and its loop; `state_dict()` holds all of it, so that a resumed one goes on to the bit."""

    def __init__(self, setup: Experiment, settings: CnnSettings, folder: Path, watch: Callable[[Progress], None]) -> None:
        assert setup.task.gating is not None
        self.setup, self.settings, self.folder, self.watch = setup, settings, folder, watch
        torch.manual_seed(setup.seed)
        self.data = datasets.load(setup.task.dataset, "train").to(setup.device)
        who = f"pretrain {setup.task.name} with cnn={setup.task.gating.cnn}"
        task_data.one_label(self.data, who)
        if not self.data.in_place and settings.shift >= min(self.data.images.shape[2:]):
            raise UsageError(f"shift={settings.shift}: images are {self.data.images.shape[2]} pixels high; wanted fewer")
        self.network = task_data.new_cnn(setup.task.gating.cnn, self.data)
        task_data.fits(self.network, tuple(self.data.images.shape[1:]), who)
        self.network.to(setup.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        whiten(self.network, self.data.images[: min(len(self.data), 5000)])
        self.generator = torch.Generator(setup.device).manual_seed(setup.seed)
        self.weights: list[Tensor] = [weight for weight in self.network.parameters() if weight.requires_grad]
        self.norms = [module for module in self.network.modules() if isinstance(module, nn.BatchNorm2d)]
        shifts = [norm.bias for norm in self.norms]
        others = [weight for weight in self.weights if all(weight is not shift for shift in shifts)]
        # The pull towards 0 is the same for both, whatever the steps.
        self.optimizer = torch.optim.SGD(
            [
                {"params": others, "times": 1.0, "weight_decay": settings.weight_decay},
                {"params": shifts, "times": settings.bias_rate, "weight_decay": settings.weight_decay / settings.bias_rate},
            ],
            lr=0.1,
            momentum=settings.momentum,
            nesterov=settings.momentum > 0,
        )
        self.averaged: list[Tensor] = []
        chance = torch.Generator(setup.device).manual_seed(setup.seed)
        self.first_side = torch.randint(2, (len(self.data),), generator=chance, device=setup.device)
        self.bf16 = use_bf16(setup.train.precision, torch.device(setup.device))
        self.epoch, self.seconds = 0, 0.0
        self.validation_error: float | None = None

    def run(self) -> dict[str, Any]:
        """Train to the last epoch, put the normalisation away, read the test split once, write final.json."""
        validation = datasets.load(self.setup.task.dataset, "validation").to(self.setup.device)
        with interruptible() as interrupted:
            while self.epoch < self.settings.epochs:
                started = time.perf_counter()
                loss = self._one_epoch(interrupted)
                self.seconds += time.perf_counter() - started
                self.epoch += 1
                self.validation_error = percent(wrong(self.network, validation, self.bf16))
                row = {
                    "update": self.epoch,
                    "seconds": round(self.seconds, 2),
                    "loss": loss,
                    "validation_error": self.validation_error,
                }
                results.append_line(self.folder / results.CURVE, row)
                self.checkpoint()
                self._tell(0)
        return self._finish(validation)

    @property
    def update(self) -> int:
        """How far its curve goes, which counts epochs."""
        return self.epoch

    def _one_epoch(self, interrupted: Callable[[], bool]) -> float:
        """A pass over the training images in a new order. Returns the mean loss; raises HardattnError when it is not finite."""
        self.network.train()
        order = torch.randperm(len(self.data), generator=self.generator, device=self.generator.device)
        batches = order.split(self.settings.batch_size)
        if len(batches) > 1 and len(batches[-1]) < 2:
            batches = batches[:-1]  # one image has no batch statistics
        total = torch.zeros((), device=self.setup.device)
        for number, batch in enumerate(batches):
            done = (self.epoch + number / len(batches)) / self.settings.epochs
            rate = self.settings.learning_rate * self._share(done)
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["times"]
            images = self._distorted(batch)
            with torch.autocast(self.setup.device.split(":")[0], torch.bfloat16, enabled=self.bf16):
                logits = self.network(images)
            loss = F.cross_entropy(logits, self.data.labels[batch], label_smoothing=self.settings.smoothing)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            if self.settings.average and done >= 0.5:
                self._average(len(batches))
            total += loss.detach()
            self._tell(number * self.settings.batch_size)
            if number % CHECKED == CHECKED - 1:
                self._check(total)
            if interrupted():
                raise Interrupted(
                    f"stopped in epoch {self.epoch + 1}; add --resume to the same command to go on from its beginning"
                )
        self._check(total)
        return float(total) / len(batches)

    def _share(self, done: float) -> float:
        """How large a step is when so much of the training is done, as a share of the largest."""
        if done < RISING:
            return done / RISING
        return self.settings.last_rate + (1 - self.settings.last_rate) * cosine((done - RISING) / (1 - RISING))

    def _distorted(self, batch: Tensor) -> Tensor:
        """The training images of these numbers [B], moved and mirrored."""
        images = self.data.images[batch]
        if self.data.in_place:
            return images
        mirror: bool | Tensor = self.data.photographs
        if mirror and self.settings.alternate:
            mirror = (self.first_side[batch] + self.epoch) % 2 == 1
        return shifted(images, self.settings.shift, mirror, self.generator)

    @torch.no_grad()
    def _average(self, steps: int) -> None:
        """Move the averaged weights towards those of this step, as far as forgets `average` passes of so many steps."""
        if not self.averaged:
            self.averaged = [weight.clone() for weight in self.weights]
        for averaged, weight in zip(self.averaged, self.weights, strict=True):
            averaged.lerp_(weight, min(1.0, 1 / (steps * self.settings.average)))

    @torch.no_grad()
    def _settle(self) -> None:
        """Take the averaged weights, and statistics of the normalisation that belong to them."""
        for weight, averaged in zip(self.weights, self.averaged, strict=True):
            weight.copy_(averaged)
        self.averaged = []
        order = torch.randperm(len(self.data), generator=self.generator, device=self.generator.device)[:SETTLING]
        self.network.train()
        update_bn((self._distorted(batch) for batch in order.split(500)), self.network)

    def _check(self, total: Tensor) -> None:
        """Raise HardattnError if a loss among those added up was not finite."""
        if not math.isfinite(float(total)):
            smaller = f"--set learning_rate={self.settings.learning_rate / 4:.2g}"
            raise HardattnError(f"the loss became {float(total)} in epoch {self.epoch + 1}; try a smaller step: {smaller}")

    def _tell(self, shown: int) -> None:
        images = len(self.data)
        self.watch(
            Progress(self.epoch * images + shown, self.settings.epochs * images, self.setup.task.name, self.validation_error)
        )

    def _finish(self, validation: Dataset) -> dict[str, Any]:
        if self.averaged:
            self._settle()
        self.network.eval()
        self.network.fold()
        self.network.get_used_to(self.data.images[: min(len(self.data), 5000)])
        self.checkpoint(folded=True)
        test = datasets.load(self.setup.task.dataset, "test").to(self.setup.device)
        missed = {name: wrong(self.network, data, self.bf16) for name, data in (("validation", validation), ("test", test))}
        final = {
            "task": self.setup.task.name,
            "agent": "pretrain",
            "seed": self.setup.seed,
            "test_error": percent(missed["test"]),
            "test_interval": [100 * bound for bound in wilson(int(missed["test"].sum()), len(test))],
            "validation_error": percent(missed["validation"]),
            "seconds": round(self.seconds, 1),
            "epochs": self.settings.epochs,
            "parameters": sum(weight.numel() for weight in self.network.parameters()),
            "perception_sha256": weights_sha256(self.network),
            "test_sha256": test.sha256(),
            "command": " ".join(["hardattn", *sys.argv[1:]]),
        }
        results.write_json(self.folder / results.FINAL, final)
        return final

    def checkpoint(self, folded: bool = False) -> None:
        """Write everything that the next epoch depends on, or what there is after the last."""
        results.write_state(
            self.folder / results.CHECKPOINT,
            {
                "task": self.setup.task.name,
                "perception": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "averaged": self.averaged,
                "generator": self.generator.get_state(),
                "random": results.rng_state(),
                "progress": [self.epoch, self.seconds, self.validation_error],
                "folded": folded,
            },
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint at the end of an epoch."""
        if state["folded"]:  # killed between the last checkpoint and final.json
            self.network.fold()
        self.network.load_state_dict(state["perception"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.averaged = [weight.to(self.setup.device) for weight in state["averaged"]]
        self.generator.set_state(state["generator"])
        results.set_rng_state(state["random"])
        self.epoch, self.seconds, self.validation_error = state["progress"]


@torch.no_grad()
def wrong(network: Cnn, dataset: Dataset, bf16: bool) -> Tensor:
    """Which images the network tells wrong, [N] bool."""
    network.eval()
    missed = []
    for images, labels in zip(dataset.images.split(1000), dataset.labels.split(1000), strict=True):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            missed.append(network(images).argmax(dim=1) != labels)
    return torch.cat(missed)


def build(task: str, sets: list[str], *, seed: int, device: str) -> tuple[Experiment, CnnSettings]:
    """What a command line asks for. Raises UsageError for a wrong name or value."""
    base = find_task(task)
    assert base.gating is not None
    check_seed(seed)
    sections: dict[str, Any] = {"task": base, "cnn": CnnSettings(), "gating": base.gating}
    asked = settings.parse(sets)
    kind = settings.override(sections, asked)["gating"].cnn
    for name in settings.settable(base.gating):
        if name != "cnn" and not asked.keys().isdisjoint((name, f"gating.{name}")):
            raise UsageError(f"--set {name}: the network learns without gains; set it where they are learned: hardattn train")
    sections = settings.override(settings.override(sections, OF_CNN.get(kind, {})), asked)
    setup = dataclasses.replace(sections["task"], gating=sections["gating"])
    train = TrainSettings(precision=sections["cnn"].precision)
    return Experiment(setup, train, "pretrain", None, seed, resolve_device(device)), sections["cnn"]


def pretrain_cnn(
    setup: Experiment, chosen: CnnSettings, folder: Path, *, resume: bool = False, watch: Callable[[Progress], None]
) -> dict[str, Any]:
    """Train the network of a gating task in a folder; with `resume`, go on from its last epoch. Returns final.json."""
    wanted = experiment.to_json(setup) | {"cnn": dataclasses.asdict(chosen)}
    final = may_start(folder, setup, wanted, resume, ("task", "cnn", "seed"))
    if final is not None:
        return final
    trainer = CnnTrainer(setup, chosen, folder, watch)
    return run_alone(trainer, folder, wanted, resume)
