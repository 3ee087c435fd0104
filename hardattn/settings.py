"""Settings of a training run: frozen dataclasses, presets by task, and `--set key=value` to reach every field. Imports no torch."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hardattn.envs.errors import UsageError, at_least, more_than_zero, unknown, zero_to_one

Mode = Literal["joint", "frozen", "staged"]


@dataclass(frozen=True)
class TrainSettings:
    """How a run trains; the same for every agent."""

    mode: Mode = "joint"
    """joint: perception and agent learn from the same episodes; frozen: perception is given and stays; staged: perception on
    random looks, then the agent on the frozen perception, then both."""
    episodes: int = 3_300_000
    """Images shown in training, repeats included: the budget."""
    batch_size: int = 512
    """Episodes played side by side, repeats included."""
    repeats: int = 1
    """How many of those episodes show the same image (M)."""
    learning_rate: float = 2e-3
    """Adam's largest step size for perception; it rises during the warm-up, then falls to 0 along a cosine."""
    warmup: float = 0.05
    """Share of a phase in which perception's learning rate rises, 0 to 1."""
    weight_decay: float = 0.0
    """Decoupled weight decay of perception, a share per unit of learning rate."""
    clip_norm: float = 5.0
    """Perception's gradient norm is clipped to this."""
    augment: float = 0.5
    """Strength of random rotation, scaling, shear and shift of training images; 0 is none, 1 about as much as a digit bears.
    Tasks of gains shift and mirror instead, at any strength alike."""
    augment_clutter: bool = True
    """Distort the clutter of canvases as their digits are; off leaves it crisp. Perception then tells it from
    resampled digits by that, which misleads where both are crisp (results/ram.md)."""
    spread: float = 0.0
    """Share of the agent's budget over which a canvas's digits move out from its middle, 0 to 1; 0 strews them at once. On a
    GPU they do so in steps of a twentieth of the room."""
    start_from: str = ""
    """The run folder, or the task with shipped weights, whose network, perception and policy this run begins with, its critic and
    optimisers afresh; empty begins with none."""
    perception_from: str = ""
    """Frozen only: the run folder whose perception is used, e.g. one made by `hardattn pretrain`; empty means the perception
    that ships with the package, which was trained on random looks."""
    random_share: float = 0.3
    """Staged only: share of the budget that perception spends on random looks."""
    frozen_share: float = 0.1
    """Staged only: share of the budget that the agent spends on the frozen perception."""
    evaluations: int = 30
    """How many times to measure the validation error and write a checkpoint, evenly spread over the budget."""
    keep: Literal["last", "best"] = "last"
    """Which state a run ends with and is measured in: the last, or that of the lowest validation error, the start included."""
    label_noise: float = 0.0
    """Share of the training images that bear another class's label, 0 to 1; which ones is the same for every run."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of perception, and on a processor of REINFORCE's policy: auto is bf16 where that is fast, else fp32."""
    recorded: bool = True
    """Record an update and replay it without Python, to the same bits, where agent and world say that they can be: as a CUDA graph
    on a GPU, as a program of torch's interpreter on a CPU; off runs every update from Python."""

    def __post_init__(self) -> None:
        more_than_zero(self, "episodes", "batch_size", "repeats", "learning_rate", "clip_norm", "evaluations")
        at_least(self, 0, "weight_decay", "augment")
        if self.batch_size % self.repeats:
            raise UsageError(f"batch_size={self.batch_size} with repeats={self.repeats}: wanted a multiple of repeats")
        if min(self.random_share, self.frozen_share) < 0 or self.random_share + self.frozen_share > 1:
            raise UsageError(
                f"random_share={self.random_share} and frozen_share={self.frozen_share}: wanted 0 or more each, together at most 1"
            )
        zero_to_one(self, "warmup", "spread", "label_noise")


@dataclass(frozen=True)
class CnnSettings:
    """How `hardattn pretrain` trains the network of a task of gains."""

    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 256
    """Images a step."""
    learning_rate: float = 0.1
    """Largest step size of stochastic gradient descent; it rises in the first fifth of the training, then falls to 0 along a
    cosine."""
    momentum: float = 0.9
    """Nesterov momentum."""
    weight_decay: float = 5e-4
    """Pull of the weights towards 0."""
    smoothing: float = 0.05
    """Share of each label that is spread over all classes."""
    shift: int = 3
    """Training images are moved by up to this many pixels each way, and mirrored half of the time (not digits or clothes)."""
    alternate: bool = False
    """Mirror an image in every other pass rather than by chance."""
    bias_rate: float = 1.0
    """Steps of the shifts behind the normalisation are so many times as large."""
    last_rate: float = 0.0
    """The step size that training ends with, as a share of the largest."""
    average: float = 0.0
    """The weights are averaged over about so many of the last passes; 0 takes them as they are in the end. The
    curve's validation errors are of the weights as they are."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of convolutions: auto is bf16 where the machine has fast bf16, else fp32."""

    def __post_init__(self) -> None:
        more_than_zero(self, "epochs", "batch_size", "learning_rate", "bias_rate")
        at_least(self, 0, "weight_decay", "shift", "average")
        zero_to_one(self, "last_rate")
        if not (0 <= self.momentum < 1 and 0 <= self.smoothing < 1):
            raise UsageError(f"cnn: momentum={self.momentum} and smoothing={self.smoothing}: wanted 0 to less than 1")


# As the CIFAR-10 speed runs train (Jordan 2024), in batches of 128 and three times as long.
SMALL = {
    "cnn.epochs": 31,
    "cnn.batch_size": 128,
    "cnn.learning_rate": 0.1875,
    "cnn.momentum": 0.85,
    "cnn.weight_decay": 1.33e-3,
    "cnn.smoothing": 0.2,
    "cnn.shift": 3,
    "cnn.alternate": True,
    "cnn.bias_rate": 64.0,
    "cnn.last_rate": 0.1,
    "cnn.average": 3.0,
}
# A maxout network has no normalisation, and larger steps blow it up; its dropout is what keeps it from learning by heart.
MAXOUT = {"cnn.learning_rate": 0.015, "cnn.batch_size": 128, "cnn.smoothing": 0.0}
# The network for digits with a cue is small, and cannot tell more than which three digits there are.
LITTLE = {"cnn.epochs": 4, "cnn.learning_rate": 0.05, "cnn.batch_size": 64}
OF_CNN: dict[str, dict[str, Any]] = {"small": SMALL, "maxout": MAXOUT, "cue": LITTLE}
QUICK = {"train.episodes": 100_000, "train.evaluations": 4}
# Few images teach soonest in many large steps: 6 % of the validation digits are wrong, with the defaults 23 (results/ram-mnist.md).
LIVELY = {"train.batch_size": 64, "train.learning_rate": 4e-3}
# On canvases many small steps learn from fewer images than few large ones, and ppo learns soonest as an actor and critic of one
# step a batch whose advantages look few looks ahead (results/ram.md).
CANVAS: dict[str, Any] = {
    "agent.epochs": 1,
    "agent.minibatches": 1,
    "agent.decay": 0.5,
    "train.episodes": 1_500_000,
    "train.batch_size": 128,
    "train.learning_rate": 1e-3,
    "perception.encoder": "conv",
}
# A fully connected encoder learns less from a canvas and sees more of them in the same time (results/ram.md).
# Its row was measured with clutter left crisp, which at this strength makes no difference.
LONG: dict[str, Any] = {
    "train.episodes": 5_000_000,
    "perception.encoder": "fc",
    "train.augment": 0.2,
    "train.augment_clutter": False,
}
# On a field of 100 pixels a look's spread stays as wide as on the smaller ones, and the digit moves out from the middle.
WIDE: dict[str, Any] = {"agent.std": 0.06, "train.spread": 0.5}
# Four to twenty-two times as many canvases, in large batches: minutes on a GPU (results/gpu.md).
BEST: dict[str, Any] = {
    "train.batch_size": 1024,
    "train.learning_rate": 2e-3,
    "train.evaluations": 20,
    "train.augment": 0.4,
}
# A second budget on a processor, after the run that start_from names: as before, but whole fields from the start (results/dram.md).
FURTHER: dict[str, Any] = {"train.spread": 0.0, "train.augment": 0.3, "train.evaluations": 40}
# After that, named by start_from: small steps on canvases as they are measured, whole and undistorted. It undoes what crisp clutter
# taught (results/ram.md); where there is no clutter it brings nothing (results/dram.md).
FINISH: dict[str, Any] = {
    "train.episodes": 400_000,
    "train.batch_size": 128,
    "train.learning_rate": 5e-4,
    "train.evaluations": 10,
    "train.augment": 0.0,
    "train.spread": 0.0,
    "agent.learning_rate": 3e-4,
}
# The upper core and the spread of looks of Ba et al. 2015: a variance of 0.03, where 1 is 15 % of the image's width.
DRAM: dict[str, Any] = {"train.episodes": 1_500_000, "agent.policy": "lstm", "agent.std": 0.173}
# Two digits begin near the middle, and the policy moves slowly, or it has left them before perception reads (results/dram.md).
TWO: dict[str, Any] = DRAM | {
    "train.episodes": 2_000_000,
    "train.batch_size": 128,
    "train.learning_rate": 1e-3,
    "train.augment": 0.2,
    "train.spread": 0.5,
    "agent.learning_rate": 1e-4,
}
# Reading is what two digits wanted more of: perception is about twice as large as a processor would train (results/dram.md).
BEST_TWO = BEST | {
    "agent.learning_rate": 2e-4,
    "train.learning_rate": 1.5e-3,
    "train.augment": 0.3,
    "train.spread": 0.25,
    "perception.filters": 32,
    "perception.glimpse_width": 352,
    "perception.core_width": 352,
}

# Nothing but the end of a game pays. A critic that knows how each stands can be believed from the next frames on (a low decay);
# games cost little, so each is gone over twice and no more (results/dram.md). 800,000 games are 18 million frames; the paper has 20
# million.
CATCH = {
    "agent.policy": "lstm",
    "agent.critic": "state",
    "agent.decay": 0.6,
    "agent.epochs": 2,
    "agent.learning_rate": 2e-3,
    "train.batch_size": 512,
}

# Only what the frozen network was not trained on teaches, 4,000 images, shifted and mirrored: 60 passes over them.
GAINS: dict[str, Any] = {
    "train.mode": "frozen",
    "train.episodes": 240_000,
    "train.batch_size": 128,
    "train.keep": "best",
    "agent.start": 0.0,
    "agent.learning_rate": 3e-4,
    "agent.std": 0.1,
    "agent.penalty": 0.005,
}

# On the paper's kind of network, stopped after three passes: one pass with gains, learned from the network's own training images,
# which it does not know by heart (results/dasnet-cifar10.md).
YOUNG: dict[str, Any] = GAINS | {
    "train.perception_from": "dasnet-cifar10-maxout",
    "train.episodes": 96_000,
    "train.keep": "last",
    "task.num_glimpses": 1,
    "gating.learns_from": "training",
    "agent.learning_rate": 1e-3,
}

# The same on digits with a cue, whose network is small: two passes, so that more images are seen in the same time.
CUE = GAINS | {"train.episodes": 240_000, "agent.learning_rate": 1e-3, "agent.penalty": 0.0}

# What a learner needs on every task: the population of an evolution strategy is the number of repeats.
POPULATION: dict[str, Any] = {"agent.learning_rate": 1.0, "train.mode": "frozen", "train.repeats": 50, "train.batch_size": 3200}
# Where 0.01 of cross-entropy is to be gained: small steps that fall, deviations that stay, no penalty (results/dasnet-cifar10.md).
PATIENT: dict[str, Any] = POPULATION | {
    "train.episodes": 30_000_000,
    "train.repeats": 256,
    "train.batch_size": 256 * 64,
    "train.evaluations": 12,
    "task.reward": "evidence-gain",
    "gating.first": 1,
    "agent.sees": "log_probabilities",
    "agent.learning_rate": 0.5,
    "agent.anneal": True,
    "agent.std_rate": 0.0,
    "agent.penalty": 0.0,
}
LEARNERS: dict[str, dict[str, dict[str, Any]]] = {
    "snes": {"default": POPULATION | {"train.episodes": 960_000}, "best": POPULATION, "quick": POPULATION, "maxout": PATIENT},
}

# Presets that go on from the run that start_from names.
GOING_ON = ("further", "finish")

# Chosen settings by task and preset. What each reaches stands in results/.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "ram-mnist": {
        "default": {},  # 60 passes over the training digits
        "best": {"train.episodes": 8_250_000, "train.evaluations": 50, "perception.encoder": "conv"},  # 150 passes
        "quick": QUICK | LIVELY,
    },
    "ram-translated60": {
        "default": CANVAS,
        "best": CANVAS | BEST | {"train.episodes": 17_000_000, "train.batch_size": 512, "train.augment": 0.5},
        "quick": CANVAS | QUICK,
    },
    "ram-cluttered60": {
        "default": CANVAS | LONG,
        "best": CANVAS | BEST | {"train.episodes": 32_000_000},
        "finish": CANVAS | FINISH,
        "quick": CANVAS | LONG | QUICK,
    },
    "ram-cluttered100": {
        "default": CANVAS | LONG | WIDE | {"train.episodes": 4_000_000},
        "best": CANVAS | BEST | WIDE | {"train.episodes": 17_000_000},
        "finish": CANVAS | WIDE | FINISH,
        "quick": CANVAS | LONG | WIDE | QUICK,
    },
    "ram-cluttered60-narrow": {"default": CANVAS, "finish": CANVAS | FINISH, "quick": CANVAS | QUICK},
    "catch": {
        "default": CATCH | {"train.episodes": 800_000},
        "quick": CATCH | QUICK,
    },
    "dasnet-cifar10": {"default": GAINS, "maxout": YOUNG, "quick": GAINS | {"train.episodes": 20_000}},
    "dasnet-fashion": {"default": GAINS, "quick": GAINS | {"train.episodes": 20_000}},
    "dasnet-cue": {"default": CUE, "quick": CUE | {"train.episodes": 20_000}},
    "dram-svhn": {"default": DRAM | {"train.augment": 0.0}, "quick": DRAM | QUICK | {"train.augment": 0.0}},  # crops alone, as DRAM
    "dram-addition": {
        "default": TWO,
        "best": TWO | BEST_TWO | {"train.episodes": 44_000_000},
        "further": TWO | FURTHER | {"train.episodes": 4_200_000},
        "quick": TWO | QUICK,
    },
    "dram-pairs": {
        "default": TWO | {"train.episodes": 2_500_000, "train.augment_clutter": False},
        "best": TWO | BEST_TWO | {"train.episodes": 40_000_000},
        "further": TWO | FURTHER | {"train.episodes": 3_800_000, "agent.learning_rate": 3e-4},
        "finish": TWO | FINISH | {"agent.learning_rate": 1e-4, "train.episodes": 1_600_000, "train.batch_size": 512},
        "quick": TWO | QUICK,
    },
}


def preset(task: str, name: str) -> dict[str, Any]:
    """The named preset's assignments for a task. Raises UsageError for an unknown name."""
    presets = PRESETS.get(task, {"default": {}})
    if name not in presets:
        raise unknown("preset", name, presets)
    return presets[name]


def of_learner(agent: str, name: str) -> dict[str, Any]:
    """What the agent needs beside the task's preset of that name."""
    return LEARNERS.get(agent, {}).get(name, {})


class NoSuchSetting(UsageError):
    """What is to be set does not exist here; it may for another method."""


def parse(assignments: Iterable[str]) -> dict[str, str]:
    """["std=0.1", ...] as {"std": "0.1"}. Raises UsageError for text without an equals sign."""
    pairs = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {text}: wanted key=value, for example --set std=0.1")
        pairs[key.strip()] = value.strip()
    return pairs


def override(sections: Mapping[str, Any], assignments: Mapping[str, Any]) -> dict[str, Any]:
    """Frozen dataclasses by section name, with fields replaced: keys are "field", or "section.field" where two sections share it.

    Text is read as the field's type. Raises NoSuchSetting for an unknown key (with the nearest one), UsageError for an ambiguous
    key or a bad value.
    """
    changes: dict[str, dict[str, Any]] = {section: {} for section in sections}
    for key, value in assignments.items():
        section, field = _find(key, sections)
        kind = typing.get_type_hints(type(sections[section]))[field]
        changes[section][field] = _read(key, value, kind)
    return {name: _replaced(config, changes[name]) for name, config in sections.items()}


def _replaced(config: Any, changes: Mapping[str, Any]) -> Any:
    """The config with other values. Raises UsageError where it refuses them, in whatever words: it may be a stranger's."""
    try:
        return dataclasses.replace(config, **changes)
    except (ValueError, TypeError, AssertionError) as error:
        told = " ".join(f"--set {name}={value}" for name, value in changes.items())
        raise UsageError(f"{told}: {type(config).__name__} refuses it: {error or type(error).__name__}") from error


def settable(config: Any) -> list[str]:
    """The fields of a config that `--set` reaches: numbers, words and switches, but no names or nested records."""
    hints = typing.get_type_hints(config if isinstance(config, type) else type(config))
    fixed = {"name", "summary"}
    return [
        field.name
        for field in dataclasses.fields(config)
        if _is_plain(hints[field.name]) and field.name not in fixed and field.init
    ]


def _is_plain(kind: Any) -> bool:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return all(
        option in (bool, int, float, str, type(None), Any) or typing.get_origin(option) is typing.Literal for option in options
    )


def _find(key: str, sections: Mapping[str, Any]) -> tuple[str, str]:
    known = {name: settable(config) for name, config in sections.items()}
    section, dot, field = key.partition(".")
    if dot and section in known and field in known[section]:
        return section, field
    owners = [name for name, fields in known.items() if key in fields]
    if len(owners) == 1:
        return owners[0], key
    if owners:
        raise UsageError(f"--set {key}: it could be {' or '.join(f'{name}.{key}' for name in owners)}; write one of these")
    spellings = [f"{name}.{field}" for name, fields in known.items() for field in fields]
    bare = {spelling.partition(".")[2]: spelling for spelling in spellings}
    near = difflib.get_close_matches(key, [*spellings, *bare], n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(sorted(spellings))}"
    raise NoSuchSetting(f"--set {key}: no setting has this name; {hint}")


def _read(key: str, value: Any, kind: Any) -> Any:
    if not isinstance(value, str):
        return value
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for option in options:
        try:
            return _as(value, option)
        except ValueError:
            continue
    raise UsageError(f"--set {key}={value}: wanted {' or '.join(_describe(option) for option in options)}")


def _as(text: str, kind: Any) -> Any:
    """The text as one plain type. Raises ValueError if it is none."""
    if typing.get_origin(kind) is typing.Literal:
        if text not in typing.get_args(kind):
            raise ValueError(text)
        return text
    if kind is type(None):
        if text.lower() != "none":
            raise ValueError(text)
        return None
    if kind is bool:
        words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
        if text.lower() not in words:
            raise ValueError(text)
        return words[text.lower()]
    if kind is int:
        number = float(text)  # accepts 1e6 and 1_000_000
        if not number.is_integer():
            raise ValueError(text)
        return int(number)
    if kind is float:
        number = float(text)
        if number != number:
            raise ValueError(text)
        return number
    return text


def _describe(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(typing.get_args(kind))
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "none"}.get(kind, str(kind))
