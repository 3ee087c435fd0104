"""The table of named tasks: data, retina, horizon, perception, published numbers. Plain data; nothing here imports torch."""

from dataclasses import dataclass, field
from typing import Literal

from hardattn.envs.errors import UsageError, unknown

Reward = Literal["correct", "clipped-linear", "confidence-gain", "evidence-gain"]


@dataclass(frozen=True)
class PerceptionConfig:
    """The network that sees: glimpse network, recurrent core, classifier (Mnih et al. 2014, section 4)."""

    encoder: Literal["fc", "conv"] = "fc"
    """How glimpse pixels are encoded: one fully connected layer (the paper), or two small convolutions before it."""
    core: Literal["lstm", "rnn"] = "lstm"
    """The recurrent core: an LSTM, or the paper's ReLU recurrence for classification."""
    encoder_width: int = 128
    """Units of the pixel encoding and of the location encoding."""
    glimpse_width: int = 256
    """Units of the glimpse vector, in which what was seen and where it was seen are added."""
    core_width: int = 256
    """Units of the recurrent core."""
    dropout: float = 0.0
    """Share of core units dropped before the classifier while perception learns, 0 to 1."""

    def __post_init__(self) -> None:
        _positive(self, "encoder_width", "glimpse_width", "core_width")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout={self.dropout}: wanted at least 0 and less than 1")


@dataclass(frozen=True)
class Task:
    """One hard-attention task: what is shown, through which retina, for how many looks, and what a look earns."""

    name: str
    """The name on the command line."""
    summary: str
    """One line for `hardattn list`."""
    dataset: str = "mnist"
    """The data set, a name in hardattn.envs.datasets."""
    size: int = 8
    """Width of the finest patch in pixels."""
    scales: int = 1
    """Patches in a glimpse, each twice as wide as the one before."""
    num_glimpses: int = 6
    """Looks at each image (the horizon T)."""
    reward: Reward = "confidence-gain"
    """What a look earns: 1 for a right answer at the end (correct), p(label) - 1/K at the end (clipped-linear), each look's rise
    of p(label) (confidence-gain), or each look's rise of log p(label) (evidence-gain)."""
    look_loss: float = 1.0
    """Weight of the cross-entropy after each look before the last, against 1 for the last; 0 is the paper."""
    background: float = 0.0
    """The value outside the image, 0 to 1."""
    perception: PerceptionConfig = field(default_factory=PerceptionConfig)
    """The network that sees."""
    published: tuple[tuple[str, float], ...] = ()
    """Test errors in percent that others report, each with its source."""

    def __post_init__(self) -> None:
        _positive(self, "size", "scales", "num_glimpses")
        if self.reward not in Reward.__args__:  # type: ignore[attr-defined]
            raise unknown("reward", self.reward, Reward.__args__)  # type: ignore[attr-defined]
        if self.look_loss < 0:
            raise UsageError(f"look_loss={self.look_loss}: wanted 0 or more")


def _positive(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise UsageError(f"{name}={getattr(config, name)}: wanted at least 1")


TASKS = {
    task.name: task
    for task in [
        Task(
            name="ram-mnist",
            summary="classify a 28x28 digit from 6 looks of 8x8 pixels",
            look_loss=0.2,
            perception=PerceptionConfig(encoder_width=256),
            published=(
                ("Mnih et al. 2014, NIPS version, 6 looks", 1.12),
                ("kevinzakka/recurrent-visual-attention, 6 looks, about 160 epochs", 1.21),
                ("dHonerkamp/ram, 6 looks, the best published re-run", 0.67),
            ),
        ),
    ]
}


def get_task(name: str) -> Task:
    """The named task. Raises UsageError with the nearest name for an unknown one."""
    if name not in TASKS:
        raise unknown("task", name, TASKS, "`hardattn list` shows them all")
    return TASKS[name]
