"""The data of a task: its images as they are, or strewn on canvases."""

from hardattn.envs import datasets
from hardattn.envs.canvases import Canvases
from hardattn.envs.datasets import Dataset
from hardattn.envs.dram_perception import DramPerception
from hardattn.envs.perception import RamPerception
from hardattn.envs.tasks import Task

# Seeds and sizes of the fixed canvases on which everybody measures. They are part of the task: never to be changed.
FIXED = {"train": (1, 10_000), "validation": (2, 5_000), "test": (3, 10_000)}


Network = RamPerception | DramPerception


def new_network(task: Task, data: Dataset | Canvases) -> Network:
    """An untrained perception for a task's glimpses of these data; its weights come from torch's global random state."""
    network: type[Network] = DramPerception if task.perception.network == "dram" else RamPerception
    return network(task.perception, (task.scales, data.channels, task.size, task.size), data.classes)


def training_data(task: Task) -> Dataset | Canvases:
    """What a task shows in training: its images, or new canvases of them each time. HardattnError if data are missing."""
    digits = datasets.load(task.dataset, "train")
    return digits if task.canvas is None else Canvases(digits, task.canvas)


def fixed_data(task: Task, split: str) -> Dataset:
    """What a task is measured on, the same for everybody: "train", "validation" or "test".

    The canvases of a split are made of that split's images alone, digits and clutter. Raises HardattnError if data are missing.
    """
    images = datasets.load(task.dataset, split)
    return images if task.canvas is None else Canvases(images, task.canvas).fixed(*FIXED[split])
