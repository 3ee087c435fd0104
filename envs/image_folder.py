"""Images in class folders on the disk: how they lie there, how they are split, how they are read."""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from hardattn.envs.datasets import SPLITS, Dataset
from hardattn.envs.errors import HardattnError, UsageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
KINDS = f"files that end in {', '.join(SUFFIXES)}"
GRAY_MODES = ("1", "L", "LA")  # Pillow's names for what a file holds
COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
SPLIT_SEED = 0  # fixes which images are validation and test, for every run of everybody
FEWEST = 20  # images to split: a tenth of them is two, the least that a data set may hold

Files = list[tuple[Path, int]]  # each with its label


class Listed(NamedTuple):
    """What lies in an image folder: the files of each split with their labels, and what all images have in common."""

    files: dict[str, Files]  # by split
    classes: list[str]
    size: tuple[int, int]  # width, height, as Pillow says it
    mode: str  # "L" if all files are gray, else "RGB"


def load_folder(name: str, path: str, split: str) -> Dataset:
    """The data set `name` in the folder `path`, images [N, C, H, W].

    They lie in path/<class>/*.png, or in path/train/<class>/*.png and path/test/<class>/*.png. Without a train folder a fixed tenth
    of the images is validation and another one test. With it a fixed tenth of train is validation, unless path/validation/<class>
    is there. The labels count the class folders in alphabetical order. C is 1 if all files are gray, else 3. Raises UsageError for
    another layout or for images of several sizes, HardattnError naming a file that cannot be read.
    """
    try:
        root = Path(path).expanduser().resolve()
    except RuntimeError as error:  # ~nobody
        raise UsageError(f"dataset {name}: {error}; wanted folder:PATH") from error
    if not path or not root.is_dir():
        raise UsageError(f"dataset {name}: there is no folder {root if path else '(none is named)'}; wanted folder:PATH")
    listed = _list(root)
    files, (width, height) = listed.files[split], listed.size
    pixels = np.empty((len(files), height, width, len(listed.mode)), np.uint8)
    for row, (file, _) in enumerate(files):
        pixels[row] = _pixels(file, listed.mode)
    labels = torch.tensor([label for _, label in files])
    images = torch.from_numpy(pixels).movedim(-1, 1).contiguous()
    return Dataset(name, images, labels, len(listed.classes))


@functools.lru_cache(maxsize=1)  # it opens every file of every split, and a run asks for three splits
def _list(root: Path) -> Listed:
    """What lies in an image folder. Looks at the head of every file, of whichever split."""
    divided = bool((root / "train").is_dir() and _folders(root / "train"))  # else "train" is a class, of photographs of trains
    base = root / "train" if divided else root
    classes = [folder.name for folder in _folders(base)]
    if not classes:
        raise UsageError(
            f"{root} has no class folders; wanted {root.name}/<class>/*.png, "
            f"or {root.name}/train/<class>/*.png and {root.name}/test/<class>/*.png"
        )
    if len(classes) < 2:
        raise UsageError(f"{base} has 1 class folder, {classes[0]}; wanted at least 2")
    given = _images(base, classes)
    files = _split_train_test(root, given, classes) if divided else _split_all(root, given)
    trained = {label for _, label in files["train"]}
    for label, class_name in enumerate(classes):
        if label not in trained:
            count = sum(other == label for _, other in given)
            raise UsageError(f"{count} image(s) in {base / class_name}, none of which is left to train on; wanted more {KINDS}")
    size, mode = _common(sorted(file for split in SPLITS for file, _ in files[split]))
    return Listed(files, classes, size, mode)


def _split_all(root: Path, given: Files) -> dict[str, Files]:
    """80, 10 and 10 percent."""
    shuffled, tenth = _shuffle(root, given), len(given) // 10
    return {"validation": shuffled[:tenth], "test": shuffled[tenth : 2 * tenth], "train": shuffled[2 * tenth :]}


def _split_train_test(root: Path, given: Files, classes: list[str]) -> dict[str, Files]:
    """Test as it lies there; validation too, if it does, else a tenth of train."""
    files = {"train": given}
    for split in ("validation", "test"):
        folder = root / split
        if not folder.is_dir():
            continue
        strange = [found.name for found in _folders(folder) if found.name not in classes]
        if strange:
            raise UsageError(f"class {strange[0]} is in {folder}, but not in {root / 'train'}; wanted the classes of train only")
        files[split] = _images(folder, classes)
        if len(files[split]) < 2:
            raise UsageError(f"{len(files[split])} image(s) in {folder}/<class>; wanted at least 2 {KINDS}")
    if "test" not in files:
        raise UsageError(f"{root} has a folder train, but none named test; wanted both, or the class folders alone")
    if "validation" not in files:
        shuffled, tenth = _shuffle(root, given), len(given) // 10
        files |= {"validation": shuffled[:tenth], "train": shuffled[tenth:]}
    return files


def _shuffle(root: Path, given: Files) -> Files:
    """In an order that the number of files fixes."""
    if len(given) < FEWEST:
        raise UsageError(f"{len(given)} images to split in {root}/<class>; wanted at least {FEWEST} {KINDS}")
    order = torch.randperm(len(given), generator=torch.Generator().manual_seed(SPLIT_SEED))
    return [given[k] for k in order.tolist()]


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder by name, hidden ones left out."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path, classes: list[str]) -> Files:
    """The image files in the class folders with their labels, by class and name; a class folder may be missing."""
    return [
        (file, label)
        for label, class_name in enumerate(classes)
        if (folder / class_name).is_dir()
        for file in sorted((folder / class_name).iterdir())
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    ]


def _common(files: list[Path]) -> tuple[tuple[int, int], str]:
    """The one size (width, height) of all files, and "L" if all are gray, else "RGB"."""
    first, size, gray = files[0], None, True
    for file in files:
        with _opened(file) as image:
            size = size or image.size
            if image.size != size:
                sizes = [f"{width} x {height}" for width, height in (image.size, size)]
                raise UsageError(
                    f"{file} is {sizes[0]} pixels, {first} is {sizes[1]}; wanted one size, so scale or crop them first"
                )
            if image.mode not in GRAY_MODES + COLOUR_MODES:
                raise UsageError(f"{file} holds values of kind {image.mode}; wanted 8 bits a channel, so convert it first")
            gray = gray and image.mode in GRAY_MODES
    assert size is not None
    return size, "L" if gray else "RGB"


def _pixels(file: Path, mode: str) -> NDArray[np.uint8]:
    """[H, W, 1] for mode "L", [H, W, 3] for "RGB"."""
    with _opened(file) as image:
        try:
            if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
                # What lies under a transparent pixel is anything, most often black: no picture of what a person sees.
                raise UsageError(f"{file} has transparent pixels; wanted opaque ones, so put it on a background first")
            values = np.asarray(image.convert(mode))
        except (OSError, SyntaxError, ValueError) as error:
            raise _unreadable(file, error) from error
    return values.reshape(*values.shape[:2], -1)


def _opened(file: Path) -> Image.Image:
    try:
        return Image.open(file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> HardattnError:
    return HardattnError(f"cannot read the image {file}: {error}; replace it or take it out of the folder")
