"""The table of named tasks: data, retina, horizon, perception, published numbers. Plain data; nothing here imports torch."""

import re
from dataclasses import dataclass, field
from typing import Literal

from hardattn.envs.errors import UsageError, at_least, unknown
from hardattn.envs.importing import import_object

Label = Literal["class", "pair", "sum"]
Reward = Literal["correct", "clipped-linear", "confidence-gain", "evidence-gain", "boosted"]


@dataclass(frozen=True)
class PerceptionConfig:
    """The network that sees: glimpse network, recurrent core, classifier."""

    network: Literal["ram", "dram"] = "ram"
    """ram: what was seen is added to where (Mnih et al. 2014, section 4); dram: it is read by three convolutions and multiplied by
    where, and a hidden layer classifies (Ba et al. 2015, section 3): encoder, encoder_width and core say nothing there."""
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
    filters: int = 16
    """dram: filters of the first convolution; the second and the third have twice as many."""
    dropout: float = 0.0
    """Share of core units dropped before the classifier while perception learns, 0 to 1."""

    def __post_init__(self) -> None:
        _positive(self, "encoder_width", "glimpse_width", "core_width", "filters")
        for name, known in (("network", ("ram", "dram")), ("encoder", ("fc", "conv")), ("core", ("lstm", "rnn"))):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout={self.dropout}: wanted at least 0 and less than 1")


MOST_PIECES = 128  # pieces that may all lie on one pixel: 128 times 255 is the most that the int16 of a canvas can hold


@dataclass(frozen=True)
class CanvasConfig:
    """What a canvas holds and what is asked about it."""

    size: int = 60
    """Width and height of the canvas in pixels."""
    clutter: int = 0
    """Pieces of other digits that are strewn over the canvas."""
    clutter_size: int = 8
    """Width and height of a piece in pixels."""
    turn: float = 0.0
    """Degrees by which each digit is turned at most, either way, before it is put down: 0 to 180."""
    label: Label = "class"
    """What is to be told: the class of the one digit (class), which two digits there are, in any order (pair), or their sum."""

    def __post_init__(self) -> None:
        at_least(self, 1, "size", "clutter_size")
        at_least(self, 0, "clutter")
        if not 0 <= self.turn <= 180:
            raise UsageError(f"turn={self.turn}: wanted 0 to 180 degrees")
        if self.label not in Label.__args__:  # type: ignore[attr-defined]
            raise unknown("canvas label", self.label, Label.__args__)  # type: ignore[attr-defined]
        if self.clutter + self.digits > MOST_PIECES:
            raise UsageError(f"clutter={self.clutter}: wanted at most {MOST_PIECES - self.digits} pieces")

    @property
    def digits(self) -> int:
        """How many digits lie on the canvas."""
        return 1 if self.label == "class" else 2


@dataclass(frozen=True)
class CatchConfig:
    """A game of Catch (Mnih et al. 2014, section 4.2)."""

    size: int = 24
    """Width and height of the screen in pixels; a ball needs size - 1 frames to come down."""
    paddle: int = 2
    """Width of the paddle in pixels."""
    angle: float = 45.0
    """A ball falls at most so many degrees from straight down; at 45 it moves a column a row."""

    def __post_init__(self) -> None:
        _positive(self, "size", "paddle")
        if self.paddle > self.size or self.size < 3:
            raise UsageError(f"size={self.size} with paddle={self.paddle}: wanted a screen of 3 pixels or more, wide as the paddle")
        if not 0 <= self.angle < 90:
            raise UsageError(f"angle={self.angle}: wanted 0 to less than 90 degrees")


@dataclass(frozen=True)
class GatingConfig:
    """Feedback onto the filters of a frozen convolutional network (dasNet, Stollenga et al. 2014)."""

    cnn: Literal["small", "narrow", "maxout", "cue"] = "small"
    """The network: six convolutions with ReLU (small), or in fewer maps (narrow); three maxout layers and a fully connected one, as
    dasNet has (maxout); or three convolutions of which no unit sees more than 14x14 pixels, and the mean over places (cue)."""
    rule: Literal["softmax", "layer-softmax", "sigmoid", "top-k", "threshold"] = "softmax"
    """From scores to gains: softmax over all feature maps, mean 1 (the paper); the same for each layer; twice a sigmoid; the same
    gain for the highest scores of each layer and 0 for the others; or hard gates, 1 for scores of -1 or more and 0 for the others
    (threshold)."""
    where: Literal["before", "after"] = "after"
    """Whether a gain stands before the nonlinearity (the paper) or after it; through a ReLU both are the same."""
    first: int = 0
    """The first convolution that has gains, counted from 0; what comes before it is computed once an image."""
    keep: float = 0.5
    """top-k alone: the share of a layer's maps that are heard."""
    boost: float = 0.005
    """Weight in the boosted reward of images that are told right, against 1 for the others (dasNet's lambda_correct)."""
    corruption: Literal["none", "noise", "blur", "contrast", "jpeg", "all"] = "none"
    """What spoils each image before it is shown; all spoils a quarter of a batch with each."""
    strength: int = 0
    """How strong that is, 1 to 5; 0 draws a strength for each image."""
    learns_from: Literal["held-out", "training"] = "held-out"
    """The images that teach the policy: those held out from the network's training; or the network's own training images
    (training), of which there are more, but which it may know by heart: then there is nothing left to learn from them."""

    def __post_init__(self) -> None:
        for name in ("cnn", "rule", "where", "corruption", "learns_from"):
            known = GatingConfig.__annotations__[name].__args__
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        layers = {"small": 6, "narrow": 6, "maxout": 3, "cue": 3}[self.cnn]
        if not 0 <= self.first < layers:
            raise UsageError(f"first={self.first}: {self.cnn} has {layers} convolutions; wanted 0 to {layers - 1}")
        if not 0 < self.keep <= 1:
            raise UsageError(f"keep={self.keep}: wanted a share above 0, at most 1")
        if self.boost < 0:
            raise UsageError(f"boost={self.boost}: wanted 0 or more")
        if not 0 <= self.strength <= 5:
            raise UsageError(f"strength={self.strength}: wanted 0 to 5")


@dataclass(frozen=True)
class Task:
    """One hard-attention task: what is shown, through which retina, for how many looks, and what a look earns."""

    name: str
    """The name on the command line."""
    summary: str
    """One line for `hardattn list`."""
    dataset: str = "mnist"
    """The data set: a name in hardattn.envs.datasets, folder:PATH for an image folder, or module:function for your own arrays."""
    canvas: CanvasConfig | None = None
    """The larger field on which the images are strewn; none shows them as they are."""
    crop: int = 0
    """Width of the window through which images are shown, anywhere in training and in the middle for measuring; 0 shows all."""
    catch: CatchConfig | None = None
    """The game that is played instead of showing images; none plays none."""
    gating: GatingConfig | None = None
    """The network whose filters are attended to instead of places; none attends to places."""
    size: int = 8
    """Width of the finest patch in pixels."""
    scales: int = 1
    """Patches in a glimpse, each twice as wide as the one before."""
    num_glimpses: int = 6
    """Looks at each image (the horizon T); in a game of Catch a ball's rows, catch.size - 1; passes with gains through a CNN."""
    targets: int = 1
    """Labels to be told in turn, an end symbol among them; each gets an equal share of the looks (Ba et al. 2015, section 3.3)."""
    reward: Reward = "confidence-gain"
    """What a look earns: 1 for a right answer at the end (correct), p(label) - 1/K at the end (clipped-linear), each look's rise
    of p(label) (confidence-gain), each look's rise of log p(label) (evidence-gain), or, for gains alone, log p(label) at the end,
    weighted (boosted)."""
    look_loss: float = 1.0
    """Weight of the cross-entropy after each look before the last, against 1 for the last; 0 is the paper."""
    background: float = 0.0
    """The value outside the image, 0 to 1."""
    context: int = 0
    """Width and height in pixels of the whole image, made small, that the agent sees besides; 0 shows it none (Ba et al. 2015)."""
    see_glimpse: bool = False
    """Whether the agent sees the pixels of the last glimpse beside what perception made of them: what perception learns to keep is
    for telling classes apart, and may not say where to look next."""
    unit: float = 0.5
    """What an action of 1 means, as a share of the image's width: 0.5 reaches from the middle to the border; DRAM takes 0.15."""
    perception: PerceptionConfig = field(default_factory=PerceptionConfig)
    """The network that sees."""
    published: tuple[tuple[str, float], ...] = ()
    """Test errors in percent that others report, each with its source."""

    def __post_init__(self) -> None:
        _positive(self, "size", "scales", "num_glimpses", "targets")
        if self.reward not in Reward.__args__:  # type: ignore[attr-defined]
            raise unknown("reward", self.reward, Reward.__args__)  # type: ignore[attr-defined]
        if self.gating:
            for name, nothing in (
                ("canvas", None),
                ("catch", None),
                ("crop", 0),
                ("targets", 1),
                ("context", 0),
                ("see_glimpse", False),
            ):
                if getattr(self, name) != nothing:
                    raise UsageError(f"{name}={getattr(self, name)}: a task of gains has none; leave it out")
        elif self.reward == "boosted":
            raise UsageError("reward=boosted: it is dasNet's, for tasks of gains; wanted correct or another")
        if self.catch:
            if self.reward != "correct":
                raise UsageError(f"reward={self.reward}: Catch pays for a caught ball alone; wanted correct")
            for name, nothing in (("canvas", None), ("crop", 0), ("targets", 1), ("context", 0), ("see_glimpse", False)):
                if getattr(self, name) != nothing:
                    raise UsageError(f"{name}={getattr(self, name)}: a game of Catch has none; leave it out")
        if self.num_glimpses % self.targets:
            raise UsageError(f"num_glimpses={self.num_glimpses} for targets={self.targets}: wanted as many looks for each target")
        if self.targets > 1 and self.reward != "correct":
            raise UsageError(f"reward={self.reward}: several targets are paid for up to the first wrong one; wanted correct")
        if self.crop < 0:
            raise UsageError(f"crop={self.crop}: wanted 0 for whole images, or a width in pixels")
        if self.crop and self.canvas:
            raise UsageError(f"crop={self.crop}: a canvas is shown whole; wanted one of the two")
        if self.context < 0:
            raise UsageError(f"context={self.context}: wanted 0 for none, or a width in pixels")
        if not 0 < self.unit <= 0.5:
            raise UsageError(f"unit={self.unit}: wanted a share of the image's width above 0, at most 0.5")
        if self.look_loss < 0:
            raise UsageError(f"look_loss={self.look_loss}: wanted 0 or more")
        if not 0 <= self.background <= 1:
            raise UsageError(f"background={self.background}: wanted 0 (black) to 1 (white)")


def _positive(config: object, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(config, name), int) or getattr(config, name) < 1:
            raise UsageError(f"{name}={getattr(config, name)}: wanted a whole number of at least 1")


# RAM on a larger field: what the tasks below share. Their published rows: Mnih et al. 2014 (NIPS), table 2; re-runs as found.
_CANVAS = PerceptionConfig(encoder_width=256)


def _ram_canvas(name: str, summary: str, canvas: CanvasConfig, scales: int, published: tuple[tuple[str, float], ...] = ()) -> Task:
    return Task(
        name,
        summary,
        canvas=canvas,
        size=12,
        scales=scales,
        num_glimpses=8,
        look_loss=0.2,
        see_glimpse=True,
        perception=_CANVAS,
        published=published,
    )


# DRAM (Ba et al. 2015, section 4.1): the agent sees the whole image made small. How much clutter the paper's pairs lie in, how many
# looks its sums take and how small the image is made are not known: 8 pieces as in RAM's field of this size, 4 looks, 20 pixels.
def _dram(name: str, summary: str, canvas: CanvasConfig, published: tuple[tuple[str, float], ...]) -> Task:
    return Task(
        name,
        summary,
        canvas=canvas,
        size=12,
        scales=2,
        num_glimpses=4,
        look_loss=0.2,
        context=20,
        unit=0.15,
        perception=PerceptionConfig(network="dram"),
        published=published,
    )


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
        _ram_canvas(
            "ram-translated60",
            "find and classify a digit on a 60x60 field from 8 looks of 12x12 pixels at 3 scales",
            CanvasConfig(60),
            3,
            (("Mnih et al. 2014, NIPS version, 8 looks", 1.20), ("best published re-run", 0.94)),
        ),
        _ram_canvas(
            "ram-cluttered60",
            "the same among 4 pieces of other digits",
            CanvasConfig(60, clutter=4),
            3,
            (
                ("Mnih et al. 2014, NIPS version, 8 looks", 4.04),
                ("Mnih et al. 2014, NIPS version, random looks", 14.4),
                ("best published re-run", 2.63),
            ),
        ),
        _ram_canvas(
            "ram-cluttered100",
            "the same on a 100x100 field among 8 pieces, at 4 scales",
            CanvasConfig(100, clutter=8),
            4,
            (("Mnih et al. 2014, NIPS version, 8 looks", 8.11), ("best published re-run", 5.9)),
        ),
        Task(
            name="ram-cluttered60-narrow",
            summary="ram-cluttered60 through a retina of one 8x8 patch: only a policy that searches can read it",
            canvas=CanvasConfig(60, clutter=4),
            num_glimpses=8,
            look_loss=0.2,
            see_glimpse=True,
            perception=_CANVAS,
        ),
        _dram(
            "dram-pairs",
            "name the two digits on a 100x100 field among 8 pieces of others, from 4 looks of 12x12 pixels at 2 scales",
            CanvasConfig(100, clutter=8, label="pair"),
            (
                ("Ba et al. 2015, DRAM", 5.0),
                ("Ba et al. 2015, DRAM without context", 7.0),
                ("Ba et al. 2015, RAM", 9.0),
            ),
        ),
        _dram(
            "dram-addition",
            "add the two digits on a 100x100 field, from 4 looks of 12x12 pixels at 2 scales",
            CanvasConfig(100, label="sum"),
            (("Ba et al. 2015, DRAM", 2.5), ("Ba et al. 2015, convolutional network", 3.2)),
        ),
        Task(
            name="dram-svhn",
            summary="read a house number of up to 5 digits, 54x54 pixels, from 3 looks a digit and 3 for its end; see docs/svhn.md",
            dataset="svhn",
            crop=54,
            size=12,
            scales=2,
            num_glimpses=18,
            targets=6,
            reward="correct",
            look_loss=0.2,
            context=18,
            unit=0.15,
            perception=PerceptionConfig(network="dram"),
            published=(("Ba et al. 2015, DRAM", 5.1), ("Ba et al. 2015, DRAM, average of sampled paths", 4.4)),
        ),
        *(
            Task(
                name=f"dasnet-{dataset}",
                summary=f"weigh the filters of a frozen CNN on {what}, in 5 passes over each image",
                dataset=dataset,
                gating=GatingConfig(),
                num_glimpses=5,
                reward="boosted",
                look_loss=0.0,
                published=published,
            )
            for dataset, what, published in (
                (
                    "cifar10",
                    "CIFAR-10",
                    (("Stollenga et al. 2014, dasNet, a larger network", 9.22),),
                ),
                ("fashion", "Fashion-MNIST", ()),
            )
        ),
        Task(
            name="dasnet-cue",
            summary="tell which of three digits a corner's colour asks for, weighing the filters of a frozen CNN; see docs/cue.md",
            dataset="mnist-cue",
            gating=GatingConfig(cnn="cue"),
            num_glimpses=2,
            reward="evidence-gain",
            look_loss=0.0,
        ),
        Task(
            name="catch",
            summary="move a paddle under a falling ball that is seen only where the gaze falls; the error is the share missed",
            dataset="catch",
            catch=CatchConfig(),
            size=6,
            scales=3,
            num_glimpses=23,
            reward="correct",
            published=(("samrudhdhirangrej, Recurrent-Model-of-Visual-Attention, about 15 million games", 11.0),),
        ),
    ]
}


def get_task(name: str) -> Task:
    """The named task. Raises UsageError with the nearest name for an unknown one."""
    if name not in TASKS:
        raise unknown("task", name, TASKS, "`hardattn list` shows them all; your own is given as module:NAME")
    return TASKS[name]


def find_task(name: str) -> Task:
    """The task behind what a user types: a name in TASKS, or "module:NAME" for a Task in a module of the current folder.

    Raises UsageError if there is none, or if it is no Task that can have a run folder of its own.
    """
    if ":" not in name:
        return get_task(name)
    task = import_object(name, Task)
    if not isinstance(task, Task):
        raise UsageError(f"task {name}: it is a {type(task).__name__}, wanted a hardattn.envs.tasks.Task")
    if not re.fullmatch(r"\w[\w.-]*", str(task.name)):
        raise UsageError(f"task {name}: its name is '{task.name}'; wanted letters, digits and dashes, as it names the run's folder")
    if task.name in TASKS:
        raise UsageError(f"task {name}: its name is '{task.name}', as one of hardattn's own; wanted another, for its runs' folder")
    return task
