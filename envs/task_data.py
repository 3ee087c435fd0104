"""The data of a task: its images as they are, or strewn on canvases, or the starts of its games; and its network and world."""

from typing import Any

from torch import nn

from hardattn.envs import cnn, datasets
from hardattn.envs.canvases import Canvases
from hardattn.envs.catch import Games, draw_games
from hardattn.envs.catch_world import CatchWorld, Unseeing
from hardattn.envs.cnn import Cnn
from hardattn.envs.crops import Crops
from hardattn.envs.datasets import Dataset
from hardattn.envs.dram_perception import DramPerception
from hardattn.envs.errors import UsageError, unknown
from hardattn.envs.glimpse_world import GlimpseWorld
from hardattn.envs.perception import RamPerception
from hardattn.envs.tasks import Task

# Seeds and sizes of the fixed canvases on which everybody measures. They are part of the task: never to be changed.
FIXED = {"train": (1, 10_000), "validation": (2, 5_000), "test": (3, 10_000)}


CATCH_GAMES = 2**19  # starts of games to train on; ten passes over them are a hundred million frames
CATCH_SEED = 4

Data = Dataset | Canvases | Crops | Games
Network = RamPerception | DramPerception | Unseeing | Cnn
AnyWorld = GlimpseWorld | CatchWorld


def new_world(task: Task, data: Any, perception: nn.Module, **arguments: Any) -> Any:
    """The world in which a task is done; `arguments` are those of GlimpseWorld, of which Catch takes what it has a use for."""
    if task.catch is None:
        return GlimpseWorld(task, data, perception, **arguments)
    if arguments.get("attention", "hard") == "soft" or arguments.get("stop"):
        raise UsageError("catch: a move has no derivative, and a game no early end; wanted an agent that learns by trial")
    if arguments.get("spread"):
        raise UsageError(f"spread={arguments['spread']}: a game of Catch has no canvas; wanted 0")
    taken = ("batch_size", "repeats", "device", "seed")
    return CatchWorld(task, data, **{key: arguments[key] for key in taken if key in arguments})


def new_network(task: Task, data: Data) -> Network:
    """An untrained perception for a task's glimpses of these data; its weights come from torch's global random state."""
    if isinstance(data, Games):
        return Unseeing()
    if task.gating:
        gated = new_cnn(task.gating.cnn, data)
        gated.fold()  # as it stands after its training
        return gated
    network: type[RamPerception | DramPerception] = DramPerception if task.perception.network == "dram" else RamPerception
    return network(task.perception, (task.scales, data.channels, task.size, task.size), data.classes)


def new_cnn(kind: str, data: Dataset | Canvases | Crops) -> Cnn:
    """An untrained network of a gating task, as its training begins; its weights come from torch's global random state."""
    if kind == "small":
        return cnn.small(data.channels, data.classes)
    assert isinstance(data, Dataset)
    return cnn.maxout(data.channels, data.classes, int(data.images.shape[-1]))


def training_data(task: Task) -> Data:
    """What a task shows in training: its images, new canvases of them each time, or games. HardattnError if data are missing."""
    if task.catch:
        return draw_games(task.catch, CATCH_SEED, CATCH_GAMES)
    images = datasets.load(task.dataset, "train")
    if task.crop:
        return Crops(images, task.crop)
    return images if task.canvas is None else Canvases(images, task.canvas)


def fixed_data(task: Task, split: str) -> Dataset | Games:
    """What a task is measured on, the same for everybody: "train", "validation" or "test".

    The canvases of a split are made of that split's images alone, digits and clutter. Raises HardattnError if data are missing.
    """
    if task.catch:
        if split not in FIXED:
            raise unknown("split", split, FIXED)
        return draw_games(task.catch, *FIXED[split])
    images = datasets.load(task.dataset, split)
    if task.crop:
        return Crops(images, task.crop).fixed()
    return images if task.canvas is None else Canvases(images, task.canvas).fixed(*FIXED[split])
