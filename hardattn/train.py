"""The one training loop: play and update, let perception learn, now and then measure and write; resumable to the bit.

It knows nothing of how an agent learns, and an agent nothing of how it is measured.
"""

import copy
import math
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hardattn import evaluate, experiment, loading, plugins, results
from hardattn.agents.fixed import Random
from hardattn.agents.losses import cosine
from hardattn.agents.rates import set_rate
from hardattn.envs import task_data
from hardattn.envs.errors import HardattnError, UsageError
from hardattn.envs.perception import weights_sha256
from hardattn.experiment import Experiment
from hardattn.recorded import Metrics, Recorded, own_stream
from hardattn.settings import TrainSettings

BEGUN = (results.CHECKPOINT, results.CURVE, results.FINAL)  # the files of a run that has begun


@dataclass(frozen=True)
class Phase:
    """A stretch of training in which the same parts learn."""

    name: str
    updates: int
    perception_learns: bool
    agent_learns: bool


@dataclass(frozen=True)
class Progress:
    """What the loop tells whoever watches, after every update."""

    episodes: int
    total: int
    phase: str
    validation_error: float | None


class Interrupted(HardattnError):
    """Ctrl-C: the run stopped with a checkpoint."""

    exit_status = 130


def phases(settings: TrainSettings) -> list[Phase]:
    """The plan of a run: one phase, or three for `staged`."""
    updates = max(1, settings.episodes // settings.batch_size)
    if settings.mode == "joint":
        return [Phase("joint", updates, True, True)]
    if settings.mode == "frozen":
        return [Phase("frozen", updates, False, True)]
    looking = round(updates * settings.random_share)
    attending = min(round(updates * settings.frozen_share), updates - looking)  # two halves may both round up
    plan = [
        Phase("random", looking, True, False),
        Phase("frozen", attending, False, True),
        Phase("joint", updates - looking - attending, True, True),
    ]
    return [phase for phase in plan if phase.updates]


class Trainer:
    """The state of one run and its loop. All of it is in `state_dict()`, so a resumed run goes on to the bit."""

    def __init__(
        self, setup: Experiment, folder: Path, watch: Callable[[Progress], None] = lambda progress: None, resuming: bool = False
    ) -> None:
        self.setup, self.folder, self.watch = setup, folder, watch
        torch.manual_seed(setup.seed)  # the networks' first weights and dropout
        self.data = task_data.training_data(setup.task, setup.train.label_noise, setup.train.augment_clutter).to(setup.device)
        self.validation = task_data.fixed_data(setup.task, "validation").to(setup.device)
        self.data_sha256 = self.data.sha256()
        self.perception = setup.perception(self.data)
        if setup.train.mode == "frozen":
            loading.load_perception(self.perception, setup.train.perception_from or loading.pretrained(setup.task.name))
        self.plan = phases(setup.train)
        self.phase_index = self.phase_update = self.update = self.episodes = 0
        self.seconds = 0.0
        self.validation_error: float | None = None
        self.best: dict[str, Any] | None = None  # with keep=best: the lowest validation error so far, and the state it was of
        world = self._world(self.data, repeats=setup.train.repeats)
        self.agent = plugins.make_agent(setup.agent, world, config=setup.agent_config, seed=setup.seed)
        if setup.train.start_from and not resuming:
            loading.load_both(self.perception, self.agent, setup)
        self._start_phase()

    def run(self) -> dict[str, Any]:
        """Train to the budget, read the test split once, write final.json. Returns what it holds.

        Raises Interrupted on Ctrl-C, after a checkpoint; HardattnError when a loss is not finite or the disk refuses.
        """
        settings = self.setup.train
        total = sum(phase.updates for phase in self.plan)
        marks = {round(total * (k + 1) / settings.evaluations) for k in range(settings.evaluations)} | {total}
        with own_stream(self.setup.device), interruptible() as interrupted:
            if settings.keep == "best" and self.update == 0:
                self._evaluate({})
            while self.phase_index < len(self.plan):
                if self.phase_update == self.phase.updates:  # asked first: a checkpoint may be of a phase's very end
                    self.phase_index, self.phase_update = self.phase_index + 1, 0
                    if self.phase_index < len(self.plan):
                        self._start_phase()
                    continue
                started = time.perf_counter()
                metrics = self._one_update()
                self.seconds += time.perf_counter() - started
                if self.update in marks:
                    self._evaluate(metrics)
                    self.checkpoint()
                self.watch(Progress(self.episodes, total * settings.batch_size, self.phase.name, self.validation_error))
                if interrupted() and self.update < total:
                    self.checkpoint()
                    raise Interrupted(f"stopped after {self.episodes} episodes; add --resume to the same command to go on")
            return self._finish()

    @property
    def phase(self) -> Phase:
        """The current phase; the last one when all are done."""
        return self.plan[min(self.phase_index, len(self.plan) - 1)]

    def _start_phase(self) -> None:
        settings = self.setup.train
        self.world = self._world(
            self.data,
            repeats=settings.repeats,
            learning=self.phase.perception_learns,
            augment=settings.augment,
            spread=settings.spread,
            attention=plugins.attention(self.setup.agent) if self.phase.agent_learns else "hard",
            observes_bf16=self.phase.agent_learns and plugins.takes_bf16(self.agent),
            seed=self.setup.seed + 1000 * (self.phase_index + 1),  # a stream of its own for each phase
        )
        # An optimiser refuses to be without weights, as the perception of a game is; there it gets none and takes no step.
        weights, rate, decay = list(self.perception.parameters()), settings.learning_rate, settings.weight_decay
        self.optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=decay, fused=True) if weights else None
        self.acting = self.agent
        if not self.phase.agent_learns:
            self.acting = Random(
                self.world.observation_space, self.world.action_space, device=self.setup.device, seed=self.setup.seed
            )
        self.recorded = None
        if settings.recorded and self.world.recordable and plugins.recordable(self.acting):
            with self._of_the_agent("recordable = True asks for a generator and schedule(progress)"):
                self.acting.schedule(self._agent_progress())
                self.recorded = Recorded(self._learn, [self.world.generator, self.acting.generator], self.setup.device)

    def _one_update(self) -> dict[str, float]:
        self.world.progress = self._agent_progress()
        self._set_perception_rate()
        if self.recorded:
            self.acting.schedule(self.world.progress)
            self.world.deal()
            metrics = numbers(self.recorded(key=getattr(self.world, "reach", None)))
        else:
            metrics = numbers(self._learn())
        for name, value in metrics.items():
            if not math.isfinite(value):
                owner = "train" if name.startswith("perception") else "agent"
                raise self._diverged(f"{name} became {value}", owner)
        self.update += 1
        self.phase_update += 1
        self.episodes += self.setup.train.batch_size
        return metrics

    def _diverged(self, what: str, owner: str) -> HardattnError:
        """The one line for a run whose steps were too large."""
        written = (self.folder / results.CHECKPOINT).exists()
        kept = f"the last good checkpoint is kept in {self.folder}" if written else "no checkpoint had been written yet"
        return HardattnError(
            f"{what} at update {self.update + 1}; {kept}. "
            f"Lower the learning rate, e.g. --set {owner}.learning_rate=2e-4, and train again"
        )

    def _set_perception_rate(self) -> None:
        """Perception's step size for this update: a warm-up, then a cosine."""
        if self.optimizer:
            settings = self.setup.train
            rising = min(1.0, (self.phase_update + 1) / (settings.warmup * self.phase.updates + 1))
            set_rate(self.optimizer, settings.learning_rate * rising * cosine(self.phase_update / self.phase.updates))

    def _learn(self) -> Metrics:
        metrics = dict(self._agent_update())
        if self.phase.perception_learns and self.optimizer:
            metrics |= self._perception_step(self.optimizer)
        return metrics

    def _agent_update(self) -> Metrics:
        """The agent's round."""
        with self._of_the_agent("update() failed"):
            told = self.acting.update(self.world)
            # Tensors stay as they are, and all are read at once.
            return {name: value.detach().reshape(()) if isinstance(value, Tensor) else float(value) for name, value in told.items()}

    @contextmanager
    def _of_the_agent(self, what: str) -> Iterator[None]:
        """What goes wrong inside an agent becomes one line; the traceback lies in error.txt for its author."""
        try:
            yield
        except HardattnError:
            raise
        except Exception as error:
            logits = getattr(self.world, "logits", None)  # of a GPU they are not asked for: it may be recording
            if self.phase.perception_learns and logits is not None and not logits.is_cuda and not bool(logits.isfinite().all()):
                raise self._diverged("perception's logits became NaN or infinite", "train") from error
            results.write_bytes(self.folder / results.ERROR, traceback.format_exc().encode())
            name = self.setup.agent
            raise HardattnError(
                f"agent {name}: {what}: {type(error).__name__}: {error}; "
                f"the traceback is in {self.folder / results.ERROR}, and `hardattn check {name}` runs the whole contract"
            ) from error

    def _perception_step(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        with self._of_the_agent("update() left perception nothing to learn from"):
            loss: Tensor = self.world.loss()
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.perception.parameters(), self.setup.train.clip_norm)
        optimizer.step()  # a loss that is not finite ends the run before anything is written
        return {"perception_loss": loss.detach(), "perception_gradient_norm": norm.detach()}

    def _agent_progress(self) -> float:
        """The share of the agent's own updates, over all phases in which it learns, that is spent."""
        total = sum(phase.updates for phase in self.plan if phase.agent_learns)
        before = sum(phase.updates for phase in self.plan[: self.phase_index] if phase.agent_learns)
        return (before + (self.phase_update if self.phase.agent_learns else 0)) / total if total else 0.0

    def _world(self, dataset: task_data.Data, **changes: Any) -> Any:
        return self.setup.world(dataset, self.perception, **changes)

    def _evaluate(self, metrics: dict[str, float]) -> None:
        if self.phase_update and not self.world.counts.episodes:  # perception would have noticed, but it does not learn here
            name, looks = self.setup.agent, self.world.horizon
            raise HardattnError(
                f"agent {name}: update() has played no episode to its end, {looks} steps after reset(); "
                f"`hardattn check {name}` runs the whole contract"
            )
        world = evaluate.test_world(self._world, self.validation)()
        with self._of_the_agent("measuring it failed"):
            self.validation_error = evaluate.measure(self.agent, world).error
        if self.setup.train.keep == "best" and (self.best is None or self.validation_error < self.best["validation_error"]):
            self.best = copy.deepcopy(
                {
                    "validation_error": self.validation_error,
                    "update": self.update,
                    "perception": self.perception.state_dict(),
                    "agent": self.agent.state_dict(),
                }
            )
        row = {
            "update": self.update,
            "episodes": self.episodes,
            "phase": self.phase.name,
            "seconds": round(self.seconds, 2),
            "validation_error": self.validation_error,
        }
        results.append_line(self.folder / results.CURVE, row | {name: told for name, told in metrics.items() if name not in row})

    def _finish(self) -> dict[str, Any]:
        kept = self.update
        if self.best is not None:
            kept, self.validation_error = self.best["update"], self.best["validation_error"]
            self.perception.load_state_dict(self.best["perception"])
            self.agent.load_state_dict(self.best["agent"])
            self.checkpoint()
        test = task_data.fixed_data(self.setup.task, "test").to(self.setup.device)
        make_world = evaluate.test_world(self._world, test)
        report, mean = evaluate.full_report(self.agent, make_world)
        final = {
            "task": self.setup.task.name,
            "agent": self.setup.agent,
            "seed": self.setup.seed,
            **report,
            "validation_error": self.validation_error,
            "episodes": self.episodes,
            "kept_update": kept,
            "seconds": round(self.seconds, 1),
            "flops_per_image": evaluate.flops_per_image(self.agent, make_world),
            "parameters": sum(p.numel() for p in self.perception.parameters()),
            "perception_sha256": weights_sha256(self.perception),
            "test_sha256": test.sha256(),
            "command": " ".join(["hardattn", *sys.argv[1:]]),
        }
        predictions = {"probabilities": mean.probabilities.cpu(), "wrong": mean.wrong.cpu()}
        results.write_state(self.folder / results.PREDICTIONS, predictions)
        results.write_json(self.folder / results.FINAL, final)
        return final

    def checkpoint(self) -> None:
        """Write everything that the next update depends on."""
        results.write_state(self.folder / results.CHECKPOINT, self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on."""
        return {
            "task": self.setup.task.name,
            "agent_name": self.setup.agent,
            "data_sha256": self.data_sha256,
            "progress": [self.phase_index, self.phase_update, self.update, self.episodes, self.seconds, self.validation_error],
            "perception": self.perception.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "agent": self.agent.state_dict(),
            "acting": self.acting.state_dict() if self.acting is not self.agent else None,
            "world": self.world.state_dict(),
            "best": self.best,
            "random": results.rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`. Raises UsageError if it is of another task, agent or data set."""
        check_origin(state, self.setup, self.data_sha256, self.folder)
        self.phase_index, self.phase_update, self.update, self.episodes, self.seconds, self.validation_error = state["progress"]
        if self.phase_index < len(self.plan):
            self._start_phase()
        self.perception.load_state_dict(state["perception"])
        if self.optimizer:
            self.optimizer.load_state_dict(state["optimizer"])
        self.agent.load_state_dict(state["agent"])
        if state["acting"] is not None:
            self.acting.load_state_dict(state["acting"])
        self.world.load_state_dict(state["world"])
        self.best = state.get("best")
        results.set_rng_state(state["random"])


def numbers(metrics: Metrics) -> dict[str, float]:
    """What an update told, as numbers: waits for the device once."""
    tensors = {name: value.double() for name, value in metrics.items() if isinstance(value, Tensor)}
    read = dict(zip(tensors, torch.stack(list(tensors.values())).tolist(), strict=True)) if tensors else {}
    return {name: read[name] if name in read else float(value) for name, value in metrics.items()}


def train(
    setup: Experiment, folder: Path, *, resume: bool = False, watch: Callable[[Progress], None] = lambda progress: None
) -> dict[str, Any]:
    """Run an experiment in a folder and return its final.json; with `resume`, go on from the folder's checkpoint if it has one.

    Raises UsageError if the folder already holds a run and `resume` is off, or if the saved settings differ.
    """
    wanted = experiment.to_json(setup)
    final = may_start(folder, setup, wanted, resume)
    if final is not None:
        return final
    resuming = resume and (folder / results.CHECKPOINT).exists()
    trainer = Trainer(setup, folder, watch, resuming)  # before anything is written: what it refuses must not occupy the folder
    return run_alone(trainer, folder, wanted, resume)


def run_alone(trainer: Any, folder: Path, wanted: dict[str, Any], resume: bool) -> dict[str, Any]:
    """Train where no other process does, with `resume` from the folder's checkpoint if it has one. Returns final.json."""
    checkpoint = folder / results.CHECKPOINT
    with results.held(folder):
        results.write_json(folder / results.CONFIG, wanted)
        if resume and checkpoint.exists():
            trainer.load_state_dict(results.read_state(checkpoint))
            results.trim_curve(folder / results.CURVE, trainer.update)
        else:
            (folder / results.CURVE).unlink(missing_ok=True)
        try:
            final: dict[str, Any] = trainer.run()
        except UsageError:
            _leave(folder)
            raise
        return final


def _leave(folder: Path) -> None:
    """Give a folder back in which a run was refused before it began: a wrong command must not occupy it."""
    if not any((folder / name).exists() for name in BEGUN):
        (folder / results.CONFIG).unlink(missing_ok=True)
        with suppress(OSError):  # something else lies in it
            folder.rmdir()


def check_origin(state: dict[str, Any], setup: Experiment, data_sha256: str, folder: Path) -> None:
    """Raise UsageError if a checkpoint is of another task, agent or data set; one of an older version may not tell."""
    for key, here in {"task": setup.task.name, "agent_name": setup.agent, "data_sha256": data_sha256}.items():
        if state.get(key, here) != here:
            raise UsageError(f"the checkpoint in {folder} is of {key} {state[key]}, this run of {here}; choose another --out")


def may_start(
    folder: Path, setup: Experiment, wanted: dict[str, Any], resume: bool, keys: tuple[str, ...] = experiment.SAME
) -> dict[str, Any] | None:
    """Whether a run may begin or go on in a folder: None if so, its final.json if it is finished.

    `wanted` is what config.json will say. Raises UsageError if the folder already holds a run and `resume` is off, if the settings
    saved under `keys` differ, if the run was begun on another kind of device, or if its config.json is no run's or is missing.
    """
    config = folder / results.CONFIG
    begun = [name for name in BEGUN if (folder / name).exists()]
    if not config.exists():
        if begun:
            raise UsageError(f"{folder} holds {begun[0]} of a run and no {results.CONFIG}; choose another folder with --out")
        return None
    try:
        saved = results.read_json(config)
    except HardattnError as error:
        raise UsageError(f"{error.args[0].partition(';')[0]}; restore it, or choose another folder with --out") from error
    if not isinstance(saved, dict) or not {"task", "agent", "seed"} <= saved.keys():
        raise UsageError(f"{config} is not a run's and would be overwritten; choose another folder with --out")
    changed = experiment.changed(saved, wanted, setup, keys)
    if begun and not resume:
        if changed:
            raise UsageError(f"{folder} already holds a run with other settings ({changed}); choose another --out or --seed")
        raise UsageError(f"{folder} already holds a run; add --resume to go on with it, or choose another --seed or --out")
    if resume and changed:
        raise UsageError(f"--resume: {folder} was started with other settings ({changed}); give the same command")
    if resume and (folder / results.FINAL).exists():
        final: dict[str, Any] = results.read_json(folder / results.FINAL)
        return final
    there, here = (str(name).partition(":")[0] for name in (saved.get("device", setup.device), setup.device))
    if resume and there != here:  # whose random numbers are others
        raise UsageError(f"--resume: {folder} was begun on {there}, this is {here}; add --device {there}, or choose another --out")
    return None


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C (a polite kill, a closed terminal) sets a flag that the loop reads between updates; a second one stops at once."""
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]  # nohup's wish stands
    try:
        previous = {number: signal.signal(number, note) for number in heeded}
    except ValueError:  # not the main thread: leave signals alone
        previous = {}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
