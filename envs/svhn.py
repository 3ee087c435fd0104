"""Street View House Numbers (Netzer et al. 2011): whole numbers with up to five digits, and single digits of 32x32.

Nothing is downloaded; docs/svhn.md says what to fetch and where to put it. Whole numbers are prepared as for DRAM (Ba et al. 2015,
section 4.2, after Goodfellow et al. 2013): the box around all digits, 30 % larger, is cut out, brought to 64x64 and made grey.
The labels are the digits in the order in which the data set lists them, from left to right, then an end symbol.
"""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hardattn.envs.data_folder import data_dir
from hardattn.envs.datasets import SPLITS, Dataset
from hardattn.envs.errors import HardattnError, unknown

LONGEST = 5  # digits; the training part has one number of six, which is left out, as everybody does
END = 10  # the symbol after the last digit
SIZE = 64  # width and height of a prepared number
MARGIN = 0.3  # by how much wider and higher than its digits a number is cut out
VALIDATION = 5000
SPLIT_SEED = 0  # fixes which numbers are validation, for every run of everybody
HELP = "docs/svhn.md says what to download and where to put it"

Boxes = list[tuple[float, float, float, float]]  # left, top, width, height


def numbers(split: str, extra: bool = False) -> Dataset:
    """House numbers [N, 1, 64, 64] with labels [N, 6]: up to five digits, the end symbol 10, then -1.

    5,000 of the training part are validation (fewer if the part is small); with `extra` the extra part is trained on too. What has
    been prepared is kept beside the images. Raises HardattnError naming the file that is missing or damaged.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    images, labels = _part("test" if split == "test" else "train")
    if split != "test":
        chosen = _half(len(images), split)
        images, labels = images[chosen], labels[chosen]
    if split == "train" and extra:
        more = _part("extra")
        images, labels = torch.cat([images, more[0]]), torch.cat([labels, more[1]])
    return Dataset("svhn-extra" if extra else "svhn", images, labels, END + 1)


def numbers_and_extra(split: str) -> Dataset:
    """`numbers` with the extra part."""
    return numbers(split, extra=True)


def digits(split: str) -> Dataset:
    """Single digits in colour [N, 3, 32, 32] from train_32x32.mat and test_32x32.mat, labels 0 to 9.

    5,000 of the training digits are validation (fewer if there are few). Raises HardattnError for a missing or damaged file.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    images, labels = read_digits(data_dir() / "svhn" / f"{'test' if split == 'test' else 'train'}_32x32.mat")
    if split != "test":
        chosen = _half(len(images), split)
        images, labels = images[chosen], labels[chosen]
    return Dataset("svhn-digits", images, labels, 10, text=True)


def _half(count: int, split: str) -> Tensor:
    """Which of the training part's examples are validation, or train."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED))
    held = min(VALIDATION, count // 5)
    return order[:held] if split == "validation" else order[held:]


def read_digits(path: Path) -> tuple[Tensor, Tensor]:
    """A 32x32 .mat file: images [N, 3, 32, 32] uint8 and labels [N] int64, with 10 read as 0. HardattnError if it is none."""
    from scipy.io import loadmat  # a second to import, and only wanted here

    if not path.exists():
        raise HardattnError(f"there is no {path}; {HELP}")
    try:
        held = loadmat(path)
        pixels, labels = held["X"], held["y"]
    except Exception as error:  # scipy says many things of a damaged file
        raise HardattnError(f"{path} is damaged or no SVHN file: {error}; fetch it again") from error
    if pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3) or pixels.dtype != np.uint8 or labels.size != pixels.shape[3]:
        raise HardattnError(f"{path} is no SVHN file: X is {pixels.dtype} {list(pixels.shape)}, wanted uint8 [32, 32, 3, N]")
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)))
    return images, torch.from_numpy(labels.astype(np.int64).reshape(-1) % 10)


def _part(part: str) -> tuple[Tensor, Tensor]:
    """The prepared images and labels of train, test or extra, read from the disk or made from its PNG files."""
    folder = data_dir() / "svhn" / part
    prepared = folder / f"prepared-{SIZE}.safetensors"
    if prepared.exists():
        try:
            kept = load_file(prepared)
            return kept["images"], kept["labels"]
        except (SafetensorError, KeyError, OSError) as error:
            raise HardattnError(f"{prepared} is damaged: {error}; delete it, and it is made again") from error
    images, labels = prepare(folder)
    with contextlib.suppress(OSError, SafetensorError):  # a folder that cannot be written to costs the same minutes next time
        save_file({"images": images, "labels": labels}, prepared)
    return images, labels


def prepare(folder: Path) -> tuple[Tensor, Tensor]:
    """Cut every number of a folder out of its PNG file: images [N, 1, 64, 64] uint8, labels [N, 6] int64."""
    listed = [(name, said, boxes) for name, said, boxes in read_struct(folder / "digitStruct.mat") if len(said) <= LONGEST]
    images = torch.empty(len(listed), 1, SIZE, SIZE, dtype=torch.uint8)
    labels = torch.full((len(listed), LONGEST + 1), -1)
    for n, (name, said, boxes) in enumerate(listed):
        images[n, 0] = torch.from_numpy(cut_out(folder / name, boxes))
        labels[n, : len(said) + 1] = torch.tensor([*said, END])
    return images, labels


def cut_out(path: Path, boxes: Boxes) -> NDArray[np.uint8]:
    """The number inside these boxes of an image file, with its margin, [64, 64] grey. HardattnError if the file cannot be read."""
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    dx, dy = (right - left) * MARGIN / 2, (bottom - top) * MARGIN / 2
    try:
        with Image.open(path) as picture:
            grey = picture.convert("L")
    except (OSError, UnidentifiedImageError) as error:
        raise HardattnError(f"cannot read {path}: {error}; {HELP}") from error
    inside = max(0, left - dx), max(0, top - dy), min(grey.width, right + dx), min(grey.height, bottom + dy)
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise HardattnError(
            f"{path}: its digits' boxes {boxes} lie outside its {grey.width} x {grey.height} pixels; fetch it again"
        )
    return np.array(grey.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=inside))


def read_struct(path: Path) -> list[tuple[str, list[int], Boxes]]:
    """What digitStruct.mat says of each image: file name, digits (0 to 9) and their boxes, in the file's order.

    Raises HardattnError if the file is missing or no such file, or if h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise HardattnError("reading SVHN's digitStruct.mat needs h5py: pip install 'hardattn[svhn]'") from error
    if not path.exists():
        raise HardattnError(f"there is no {path}; {HELP}")
    try:
        with h5py.File(path, "r") as file:
            names, boxes = file["digitStruct/name"], file["digitStruct/bbox"]
            return [_entry(file, name[0], box[0]) for name, box in zip(names[()], boxes[()], strict=True)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise HardattnError(f"{path} is damaged or no digitStruct.mat: {error}; fetch it again") from error


def _entry(file: Any, name: Any, box: Any) -> tuple[str, list[int], Boxes]:
    held = {key: _values(file, file[box][key]) for key in ("left", "top", "width", "height", "label")}
    digits = [int(label) % 10 for label in held["label"]]  # the file writes 10 for the digit 0
    boxes = list(zip(held["left"], held["top"], held["width"], held["height"], strict=True))
    return "".join(map(chr, file[name][()].flatten())), digits, boxes


def _values(file: Any, field: Any) -> list[float]:
    """A field of one digit holds its value, of several digits a reference each."""
    if len(field) == 1:
        return [float(field[0, 0])]
    return [float(file[reference][0, 0]) for reference in field[()][:, 0]]
