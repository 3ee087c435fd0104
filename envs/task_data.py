"""The data of a task: its images as they are, or strewn on canvases, or the starts of its games; and its network and world."""

from typing import Any

import torch
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
from hardattn.envs.filter_world import FilterWorld
from hardattn.envs.glimpse_world import GlimpseWorld
from hardattn.envs.perception import RamPerception
from hardattn.envs.pictures import Pictures
from hardattn.envs.tasks import Task

# Seeds and sizes of the fixed canvases on which everybody measures. They are part of the task: never to be changed.
FIXED = {"train": (1, 10_000), "validation": (2, 5_000), "test": (3, 10_000)}


CATCH_GAMES = 2**19  # starts of games to train on; ten passes over them are a hundred million frames
CATCH_SEED = 4

Data = Dataset | Canvases | Crops | Games | Pictures
Network = RamPerception | DramPerception | Unseeing | Cnn
AnyWorld = GlimpseWorld | CatchWorld | FilterWorld


def new_world(task: Task, data: Any, perception: nn.Module, **arguments: Any) -> Any:
    """The world in which a task is done; `arguments` are those of GlimpseWorld, of which Catch takes what it has a use for."""
    if task.gating:
        if arguments.get("stop") or arguments.get("spread"):
            raise UsageError(f"{task.name}: all passes are made, and no digit moves on a canvas; wanted stop and spread left out")
        assert isinstance(perception, Cnn)
        filtered = ("batch_size", "repeats", "attention", "augment", "precision", "device", "seed")
        return FilterWorld(task, data, perception, **{key: arguments[key] for key in filtered if key in arguments})
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
        assert isinstance(data, Dataset | Pictures)
        gated = new_cnn(task.gating.cnn, data)
        gated.fold()  # as it stands after its training
        return gated
    network: type[RamPerception | DramPerception] = DramPerception if task.perception.network == "dram" else RamPerception
    return network(task.perception, (task.scales, data.channels, task.size, task.size), data.classes)


def new_cnn(kind: str, data: Dataset | Pictures) -> Cnn:
    """An untrained network of a gating task, as its training begins; its weights come from torch's global random state."""
    if kind == "small":
        return cnn.small(data.channels, data.classes)
    if kind == "narrow":
        return cnn.narrow(data.channels, data.classes)
    if kind == "cue":
        return cnn.cue(data.channels, data.classes)
    images = data.source.images if isinstance(data, Pictures) else data.images
    height, width = images.shape[2:]
    return cnn.maxout(data.channels, data.classes, (height, width))


def one_label(data: Data, who: str) -> None:
    """Raise UsageError if images bear several labels, of which `who` can tell but one."""
    labels = getattr(data, "labels", None)
    if labels is not None and labels.ndim > 1:
        raise UsageError(f"{who}: the data set has {labels.shape[1]} labels an image; wanted one, labels of shape [N]")


@torch.no_grad()
def fits(model: nn.Module, shape: tuple[int, ...], who: str) -> None:
    """Raise UsageError if a network cannot read images [C, H, W]: too small or too narrow for its layers."""
    training, device = model.training, next(model.parameters()).device
    try:
        model.eval()(torch.zeros(2, *shape, device=device))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{who}: images of {shape[1]} x {shape[2]} pixels do not fit it ({reason}); wanted larger ones") from error
    finally:
        model.train(training)


def training_data(task: Task, label_noise: float = 0.0, augment_clutter: bool = True) -> Data:
    """What a task shows in training: its images, new canvases of them each time, or games. HardattnError if data are missing.

    With `label_noise` that share of the images has another class's label. Without `augment_clutter` a canvas's clutter stays crisp
    where its digits are distorted. Raises UsageError where a task cannot have noise.
    """
    if task.catch or task.gating:
        if label_noise:
            raise UsageError(f"label_noise={label_noise}: {task.name} has no labels that perception learns from; wanted 0")
        return draw_games(task.catch, CATCH_SEED, CATCH_GAMES) if task.catch else _gated(task, "train")
    images = datasets.load(task.dataset, "train")
    images = images.mislabelled(label_noise) if label_noise else images
    if task.crop:
        return Crops(images, task.crop)
    return images if task.canvas is None else Canvases(images, task.canvas, crisp_clutter=not augment_clutter)


def _gated(task: Task, split: str) -> Pictures:
    """What a task of gains shows: of the images that its CNN has not seen, four fifths are "train", the rest "validation".

    With `learns_from=training`, "train" is what the CNN has learned from instead.
    """
    assert task.gating is not None
    if split not in datasets.SPLITS:
        raise unknown("split", split, datasets.SPLITS)
    if split == "test" or (split == "train" and task.gating.learns_from == "training"):
        images = datasets.load(task.dataset, split)
    else:
        held = datasets.load(task.dataset, "validation")
        count = len(held) * 4 // 5
        images = held.take(torch.arange(count) if split == "train" else torch.arange(count, len(held)))
    return Pictures(images, task.gating.corruption, task.gating.strength)


def fixed_data(task: Task, split: str) -> Dataset | Games:
    """What a task is measured on, the same for everybody: "train", "validation" or "test".

    The canvases of a split are made of that split's images alone, digits and clutter. Raises HardattnError if data are missing.
    """
    if task.catch:
        if split not in FIXED:
            raise unknown("split", split, FIXED)
        return draw_games(task.catch, *FIXED[split])
    if task.gating:
        return _gated(task, split).fixed()
    images = datasets.load(task.dataset, split)
    if task.crop:
        return Crops(images, task.crop).fixed()
    return images if task.canvas is None else Canvases(images, task.canvas).fixed(*FIXED[split])
