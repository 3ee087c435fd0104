"""MNIST with a cue: three digits in three colours, and a corner that says which of them is asked.

Each colour channel shows another digit, one on top of the other, at the bottom right of a larger field. In a patch at its top left
only the channel that is asked is lit, and its digit is the label. Who does not see the cue is right once in three; and a unit that
sees 14x14 pixels has cue and digit before it at few places, there but their edges (docs/cue.md), so something must carry the cue
across the image. The mechanism test of channel attention (squeeze-and-excitation, dasNet) is whether a gate does. On 28x28 pixels
the cue would lie so close that such units see it along with the upper left of a digit, and a network without gates learns most of
the task.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hardattn.envs.datasets import Dataset, mnist

CUE = 6  # width of the patch in pixels
MARGIN = 8  # pixels above the digits and to their left
LIT = 255
CHANNELS = 3
# Which digits lie over one another, for everybody: part of the task, never to be changed.
SEEDS = {"train": 7, "validation": 8, "test": 9}


def mnist_cue(split: str) -> Dataset:
    """Cued digits [N, 3, 36, 36], as many as MNIST's split has and of that split's digits alone. Raises as `mnist`."""
    source = mnist(split)
    return cued(source, torch.Generator().manual_seed(SEEDS[split]))


def cued(source: Dataset, generator: torch.Generator) -> Dataset:
    """Example i asks for image i of a grey data set, in a channel drawn evenly; the two others hold images of other classes.

    The three classes differ, so that no answer is right by two of the digits; classes that are equally frequent are so among the
    others too. Labels are the source's.
    """
    count = len(source)
    asked = torch.randint(CHANNELS, (count,), generator=generator)
    trio = others(source.labels, generator)  # [N, 3], the image that is asked first
    place = (torch.arange(CHANNELS) - asked[:, None]) % CHANNELS  # [N, 3]: the asked channel takes place 0 of the trio
    digits = source.images[trio.gather(1, place), 0]  # [N, 3, h, w]
    images = F.pad(digits, (MARGIN, 0, MARGIN, 0))
    return Dataset("mnist-cue", with_cue(images, asked), source.labels, source.classes, in_place=True)


def others(labels: Tensor, generator: torch.Generator) -> Tensor:
    """For each example [N] itself and two more, of three different classes: [N, 3] indices. There must be three classes."""
    count = len(labels)
    trio = torch.arange(count)[:, None].repeat(1, CHANNELS)
    again = torch.arange(count)
    while len(again):  # a dozen rounds: of the rows drawn, a quarter has two of a class
        trio[again, 1:] = torch.randint(count, (len(again), CHANNELS - 1), generator=generator)
        first, second, third = labels[trio[again]].unbind(dim=1)
        again = again[(first == second) | (first == third) | (second == third)]
    return trio


def with_cue(images: Tensor, asked: Tensor) -> Tensor:
    """Images [N, 3, H, W] uint8 with a patch at the top left that is lit in the channel asked [N] and dark in the others."""
    marked = images.clone()
    lit = torch.arange(images.shape[1]) == asked[:, None]  # [N, 3]
    marked[:, :, :CUE, :CUE] = (lit * LIT).to(images.dtype)[:, :, None, None]
    return marked


def channel_asked(images: Tensor) -> Tensor:
    """The channel whose corner is lit, [N]."""
    return images[:, :, 0, 0].argmax(dim=1)
