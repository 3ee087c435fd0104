"""A user's own images: a function that returns arrays, as "module:function", or an image folder, as "folder:PATH"."""

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

from hardattn.envs.datasets import SPLITS, Dataset, from_arrays
from hardattn.envs.errors import HardattnError, UsageError, unknown
from hardattn.envs.image_folder import load_folder
from hardattn.envs.importing import import_object

FOLDER = "folder:"

Function = Callable[[str], Any]


def is_code(name: str) -> bool:
    """Whether a data set's name is "module:function", so that loading it runs a user's code."""
    return ":" in name and not name.startswith(FOLDER)


def load(name: str, split: str) -> Dataset:
    """One split of "folder:PATH" or "module:function". Raises UsageError or HardattnError saying what is wrong with it."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    return load_function(name, split) if is_code(name) else load_folder(name, name.removeprefix(FOLDER), split)


def load_function(name: str, split: str) -> Dataset:
    """What the user's `function(split)` returns: (images, labels), as `from_arrays` takes them.

    The train split says how many classes there are and what shape an image has. Raises UsageError for another thing than a
    function or arrays, HardattnError if the function fails.
    """
    function = import_object(name, FunctionType)
    if not callable(function):
        raise UsageError(f"dataset {name}: it is a {type(function).__name__}, wanted a function of a split: (images, labels)")
    train = _train_split(function, name)
    if split == "train":
        return train
    dataset = _call(function, name, split, train.classes)
    if dataset.images.shape[1:] != train.images.shape[1:]:
        shapes = [list(images.shape[1:]) for images in (dataset.images, train.images)]
        raise UsageError(
            f"dataset {name}: an image of {split} is {shapes[0]}, one of train {shapes[1]} [C, H, W]; wanted one shape"
        )
    return dataset


@functools.lru_cache(maxsize=1)  # every split needs it; a user's function may take a while
def _train_split(function: Function, name: str) -> Dataset:
    return _call(function, name, "train", None)


def _call(function: Function, name: str, split: str, classes: int | None) -> Dataset:
    module_name, _, attribute = name.partition(":")
    call = f"{attribute}('{split}')"
    try:
        found = function(split)
    except HardattnError:
        raise
    except Exception as error:  # whatever a user's function does
        raise HardattnError(
            f"dataset {name}: {call} failed: {type(error).__name__}: {error}; "
            f'see where with: python -c "import {module_name}; {module_name}.{call}"'
        ) from error
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise UsageError(f"dataset {name}: {call} returned a {type(found).__name__}, wanted two arrays (images, labels)")
    images, labels = found
    try:
        return from_arrays(images, labels, classes=classes, name=f"{name} ({split})")
    except (TypeError, ValueError, RuntimeError) as error:  # torch's words for what is no array
        raise UsageError(
            f"dataset {name}: {call} returned no arrays: {error}; wanted uint8 images [N, H, W] and integer labels [N]"
        ) from error
