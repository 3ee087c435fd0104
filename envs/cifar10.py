"""CIFAR-10 (Krizhevsky 2009) in its official binary layout: records of 3,073 bytes, a label and 32x32 pixels of three colours.

The files lie in the data folder under cifar10/; `hardattn data fetch cifar10` puts them there. Nothing is unpickled.
"""

from pathlib import Path

import numpy as np
import torch

from hardattn.envs.data_folder import data_dir
from hardattn.envs.datasets import SPLITS, Dataset
from hardattn.envs.errors import HardattnError, unknown

RECORD = 1 + 3 * 32 * 32
TRAIN = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
TEST = ("test_batch.bin",)
VALIDATION = 5000  # the last training images: no network here is trained on them, so that a policy can be


def cifar10(split: str) -> Dataset:
    """CIFAR-10 [N, 3, 32, 32]: "train" (45,000), "validation" (the last 5,000 training images) or "test" (10,000).

    Raises HardattnError naming the file that is missing or damaged.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    parts = [read_records(data_dir() / "cifar10" / name) for name in (TEST if split == "test" else TRAIN)]
    images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    if split != "test":
        held = max(1, min(VALIDATION, len(images) // 10))  # fewer of a small part, as tests have it
        chosen = slice(-held, None) if split == "validation" else slice(None, -held)
        images, labels = images[chosen], labels[chosen]
    return Dataset("cifar10", torch.from_numpy(images), torch.from_numpy(labels).long(), 10)


def read_records(
    path: Path,
) -> tuple["np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]"]:
    """The images [n, 3, 32, 32] and labels [n] in one file, both uint8. HardattnError for a missing or foreign file."""
    remedy = "`hardattn data fetch cifar10` downloads it, `hardattn data path cifar10` says where it belongs"
    try:
        raw = np.fromfile(path, np.uint8)
    except OSError as error:
        raise HardattnError(f"cannot read {path}: {error.strerror}; {remedy}") from error
    if not len(raw) or len(raw) % RECORD:
        raise HardattnError(
            f"{path} holds {len(raw):,} bytes, wanted a multiple of {RECORD:,}: cut short, or another file; {remedy}"
        )
    if not raw.any():
        raise HardattnError(f"{path} holds nothing but zeros: a download that broke off; {remedy}")
    records = raw.reshape(-1, RECORD)
    labels = records[:, 0]
    if labels.max() > 9:
        raise HardattnError(f"{path}: a label is {labels.max()}, wanted 0 to 9: this is not CIFAR-10's binary layout; {remedy}")
    return records[:, 1:].reshape(-1, 3, 32, 32).copy(), labels.copy()
