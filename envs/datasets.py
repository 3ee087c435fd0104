"""Images with labels: MNIST, which ships inside the package, any pair of arrays, and a user's own by name.

A dataset stays uint8 on its device; the world cuts glimpses from it and never copies it.
"""

import functools
import hashlib
import importlib
import lzma
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hardattn.envs.augment import random_affine
from hardattn.envs.errors import HardattnError, UsageError, unknown

SPLITS = ("train", "validation", "test")

# SHA-256 of the raw IDX files, so that any distributor's compression is accepted.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MNIST_VALIDATION = 5000
NOISE_SEED = 6  # of the labels that are changed on purpose: part of what a share means, never to be changed
MNIST_SPLIT_SEED = 0  # fixes which 5,000 training digits are validation, for every run of everybody


class Shown(NamedTuple):
    """A batch of examples."""

    images: Tensor  # [B, C, H, W] uint8, or float32 in [0, 1]
    labels: Tensor  # [B] int64
    boxes: Tensor | None  # [B, D, 4] float32, where what counts lies, if that is known


@dataclass(frozen=True)
class Dataset:
    """Images and what they show.

    Raises UsageError at construction for anything but uint8 images [N, C, H, W] with one label in 0..classes-1 each, or with a row
    of labels [N, L] to be told in turn; a shorter row is filled up with -1.
    """

    name: str
    images: Tensor  # [N, C, H, W] uint8
    labels: Tensor  # [N] int64, or [N, L]
    classes: int
    boxes: Tensor | None = None  # [N, D, 4] float32 (left, top, right, bottom) in pixels: where what counts lies, if that is known
    text: bool = False  # letters or digits, whose mirror images are others or none
    in_place: bool = False  # where things lie says something: such images are never moved, mirrored or distorted

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise UsageError(
                f"dataset {self.name}: images are {images.dtype} {list(images.shape)}, wanted uint8 [N, C, H, W]; "
                "scale them to 0..255 and convert, e.g. (images * 255).astype('uint8')"
            )
        if len(images) < 2:
            raise UsageError(f"dataset {self.name}: {len(images)} image(s), wanted at least 2")
        if (
            labels.ndim not in (1, 2)
            or (labels.ndim == 2 and labels.shape[1] < 2)
            or len(labels) != len(images)
            or labels.dtype != torch.int64
        ):
            raise UsageError(
                f"dataset {self.name}: labels are {labels.dtype} {list(labels.shape)}, wanted int64 [{len(images)}], one an image"
            )
        if self.classes < 2:
            raise UsageError(f"dataset {self.name}: {self.classes} class(es), wanted at least 2")
        low, high = int(labels.min()), int(labels.max())
        if low < (0 if labels.ndim == 1 else -1) or high >= self.classes:
            raise UsageError(f"dataset {self.name}: labels run from {low} to {high}, wanted 0 to {self.classes - 1}")
        if labels.ndim == 2 and bool((labels[:, 0] < 0).any() or ((labels[:, :-1] < 0) & (labels[:, 1:] >= 0)).any()):
            raise UsageError(f"dataset {self.name}: a row of labels is empty or goes on after a -1; wanted -1 at its end alone")

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "Dataset":
        """The same dataset on another device."""
        boxes = None if self.boxes is None else self.boxes.to(device)
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), boxes=boxes)

    def take(self, indices: Tensor) -> "Dataset":
        """The examples at `indices` [n], as a dataset of their own."""
        boxes = None if self.boxes is None else self.boxes[indices]
        return replace(self, images=self.images[indices], labels=self.labels[indices], boxes=boxes)

    def mislabelled(self, share: float) -> "Dataset":
        """The same with a share of the labels changed into other classes, each as likely; which ones is the same every time.

        Raises UsageError where an image has several labels.
        """
        if self.labels.ndim > 1:
            raise UsageError(f"label_noise={share}: images of {self.name} have several labels each; wanted 0")
        random = torch.Generator().manual_seed(NOISE_SEED)
        spoiled = torch.rand(len(self), generator=random) < share
        others = torch.randint(1, self.classes, (len(self),), generator=random)
        labels = (self.labels.cpu() + spoiled * others) % self.classes
        return replace(self, labels=labels.to(self.labels.device))

    def show(self, indices: Tensor, generator: torch.Generator, augment: float = 0.0) -> "Shown":
        """The examples at `indices` [B], unless `in_place` distorted at random with strength `augment` (then floats in [0, 1])."""
        images = self.images.index_select(0, indices)  # copies rows whole, several times quicker than images[indices]
        boxes = None if self.boxes is None else self.boxes[indices]
        if augment and not self.in_place:
            images = random_affine(images.float() / 255, augment, generator)
        return Shown(images, self.labels[indices], boxes)

    @property
    def channels(self) -> int:
        """Colours of an image (C)."""
        return int(self.images.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        return int(self.images.shape[2]), int(self.images.shape[3])

    @property
    def photographs(self) -> bool:
        """Whether mirror images may be shown: of colour images but `text` and `in_place`. The grey sets are digits and clothes."""
        return self.channels == 3 and not self.text and not self.in_place

    @property
    def device(self) -> torch.device:
        """Where the images live."""
        return self.images.device

    def sha256(self) -> str:
        """A fingerprint of every image and label, in order."""
        digest = hashlib.sha256(self.images.cpu().numpy().tobytes())
        digest.update(self.labels.cpu().numpy().tobytes())
        return digest.hexdigest()


def from_arrays(images: Any, labels: Any, classes: int | None = None, name: str = "arrays") -> Dataset:
    """A dataset from numpy arrays or tensors: images [N, H, W], [N, H, W, C] or [N, C, H, W] of uint8, labels [N] of integers.

    A trailing axis of 1 or 3 is taken for colour. Raises UsageError for another shape or dtype.
    """
    pixels = torch.as_tensor(images)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.ndim == 4 and pixels.shape[-1] in (1, 3) and pixels.shape[1] not in (1, 3):
        pixels = pixels.movedim(-1, 1)
    if pixels.ndim == 4 and pixels.shape[1] not in (1, 3):
        raise UsageError(
            f"dataset {name}: images are {list(pixels.shape)}, wanted 1 or 3 channels, as [N, H, W, C] or [N, C, H, W]; "
            "of colour with transparency (RGBA) take images[..., :3]"
        )
    targets = torch.as_tensor(labels)
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise UsageError(f"dataset {name}: labels are {targets.dtype}, wanted integers 0..classes-1")
    targets = targets.long()
    count = classes if classes is not None else int(targets.max()) + 1 if len(targets) else 0
    return Dataset(name, pixels.contiguous(), targets, count)


def mnist(split: str) -> Dataset:
    """MNIST [N, 1, 28, 28]: "train" (55,000), "validation" (5,000 of the training digits) or "test" (10,000).

    Raises HardattnError if a shipped file is damaged.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    images, labels = _mnist_files("t10k" if split == "test" else "train")
    if split != "test":
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(MNIST_SPLIT_SEED))
        chosen = order[:MNIST_VALIDATION] if split == "validation" else order[MNIST_VALIDATION:]
        images, labels = images[chosen], labels[chosen]
    return Dataset("mnist", images, labels, 10)


@functools.lru_cache(maxsize=2)  # training and validation digits lie in the same file, which takes half a second to unpack
def _mnist_files(prefix: str) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(read_mnist(f"{prefix}-images-idx3-ubyte"))[:, None]
    return images, torch.from_numpy(read_mnist(f"{prefix}-labels-idx1-ubyte")).long()


def read_mnist(name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """One of the four shipped IDX files, checked by hash. Raises HardattnError naming the file if it is missing or damaged."""
    path = resources.files("hardattn.envs") / "mnist" / f"{name}.xz"
    remedy = "reinstall hardattn to restore it"
    try:
        raw = lzma.decompress(path.read_bytes())
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise HardattnError(f"cannot read the MNIST file {path}: {error}; {remedy}") from error
    found = hashlib.sha256(raw).hexdigest()
    if found != MNIST_SHA256[name]:
        raise HardattnError(f"the MNIST file {path} is damaged: SHA-256 {found}, wanted {MNIST_SHA256[name]}; {remedy}")
    return parse_idx(raw)


def parse_idx(raw: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The uint8 array in an IDX file: two zero bytes, type 8, the rank, the sizes (big-endian), then the values.

    Raises ValueError if the bytes are not such a file.
    """
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"not an IDX file of uint8: it starts with {raw[:4].hex()}, wanted 000008 and a rank")
    rank = raw[3]
    shape = tuple(int(n) for n in np.frombuffer(raw, ">i4", rank, 4))
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank)
    if values.size != np.prod(shape):
        raise ValueError(f"IDX file holds {values.size} values, its header says {shape}")
    return values.reshape(shape).copy()


def _elsewhere(module: str, function: str, split: str) -> Dataset:
    """A loader of a module that builds on this one, imported when it is asked."""
    loader: Callable[[str], Dataset] = getattr(importlib.import_module(f"hardattn.envs.{module}"), function)
    return loader(split)


LOADERS: dict[str, Callable[[str], Dataset]] = {
    "mnist": mnist,
    "cifar10": functools.partial(_elsewhere, "cifar10", "cifar10"),
    "fashion": functools.partial(_elsewhere, "fashion", "fashion"),
    "svhn": functools.partial(_elsewhere, "svhn", "numbers"),
    "svhn-extra": functools.partial(_elsewhere, "svhn", "numbers_and_extra"),
    "svhn-digits": functools.partial(_elsewhere, "svhn", "digits"),
    "mnist-cue": functools.partial(_elsewhere, "cue", "mnist_cue"),
}


def load(name: str, split: str) -> Dataset:
    """The named data set's split: one of LOADERS, an image folder as "folder:PATH", or a user's function as "module:function".

    Raises UsageError for an unknown name, and what `hardattn.envs.own_data` says of a user's own.
    """
    if ":" in name:
        from hardattn.envs import own_data  # here, because it builds on this module

        return own_data.load(name, split)
    if name not in LOADERS:
        raise unknown("dataset", name, LOADERS, "your own is given as folder:PATH or module:function")
    return LOADERS[name](split)
