"""A user's own images: what is read, how it is split, and the line for each thing that is wrong with it."""

import re
import textwrap
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hardattn.envs import datasets
from hardattn.envs.errors import HardattnError, UsageError

SIZE = (7, 5)  # width, height


def paint(folder: Path, count: int, *, mode: str = "L", size: tuple[int, int] = SIZE, seed: int = 0) -> None:
    """Write `count` images of noise, no two of which are the same."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng([seed, *folder.as_posix().encode()])
    for number in range(count):
        values = random.integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(values).convert(mode).save(folder / f"{number:03}.png")


def load(root: Path, split: str) -> datasets.Dataset:
    return datasets.load(f"folder:{root}", split)


def rows(dataset: datasets.Dataset) -> set[bytes]:
    return {image.numpy().tobytes() for image in dataset.images}


def test_class_folders_are_split_80_10_10_the_same_way_every_time(tmp_path: Path) -> None:
    paint(tmp_path / "dog", 30)
    paint(tmp_path / "cat", 20)
    paint(tmp_path / ".thumbnails", 3)  # hidden: no class
    (tmp_path / "notes.txt").write_text("no folder, so no class")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    parts = [load(tmp_path, split) for split in datasets.SPLITS]
    assert [len(part) for part in parts] == [40, 5, 5]
    assert all(part.images.shape[1:] == (1, 5, 7) and part.classes == 2 for part in parts)
    assert len(set.union(*map(rows, parts))) == 50  # all images, each in one split only
    assert sum(int((part.labels == 0).sum()) for part in parts) == 20  # cat comes before dog
    again = [load(tmp_path, split) for split in datasets.SPLITS]
    assert [part.sha256() for part in again] == [part.sha256() for part in parts]


def test_the_values_and_labels_are_those_of_the_files(tmp_path: Path) -> None:
    for folder in ("train/a", "train/b", "test/b"):
        paint(tmp_path / folder, 12)
    test, train = load(tmp_path, "test"), load(tmp_path, "train")
    wanted = [np.asarray(Image.open(file)) for file in sorted((tmp_path / "test" / "b").iterdir())]
    assert np.array_equal(test.images[:, 0].numpy(), np.stack(wanted)) and test.labels.tolist() == [1] * 12
    of_class_b = {np.asarray(Image.open(file)).tobytes() for file in (tmp_path / "train" / "b").iterdir()}
    assert [int(image.numpy().tobytes() in of_class_b) for image in train.images] == train.labels.tolist()


def test_with_train_and_test_folders_a_tenth_of_train_is_validation(tmp_path: Path) -> None:
    for split, count in (("train", 20), ("test", 4)):
        for name in ("a", "b"):
            paint(tmp_path / split / name, count)
    parts = [load(tmp_path, split) for split in datasets.SPLITS]
    assert [len(part) for part in parts] == [36, 4, 8] and len(set.union(*map(rows, parts))) == 48


def test_a_validation_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    for split in datasets.SPLITS:
        for name in ("a", "b"):
            paint(tmp_path / split / name, 3)
    parts = [load(tmp_path, split) for split in datasets.SPLITS]
    assert [len(part) for part in parts] == [6, 6, 6] and len(set.union(*map(rows, parts))) == 18


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    paint(tmp_path / "train", 20)
    paint(tmp_path / "boat", 20)
    assert load(tmp_path, "train").classes == 2 and len(load(tmp_path, "train")) == 32


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("P", 3), ("RGBA", 3)])
def test_gray_files_have_one_channel_and_one_file_in_colour_makes_it_three(tmp_path: Path, mode: str, channels: int) -> None:
    paint(tmp_path / "a", 15)
    paint(tmp_path / "b", 15)
    paint(tmp_path / "b", 1, mode=mode)
    for split in datasets.SPLITS:
        assert load(tmp_path, split).images.shape[1:] == (channels, 5, 7)


def test_colours_come_in_the_order_red_green_blue(tmp_path: Path) -> None:
    for name, colour in (("a", (250, 100, 10)), ("b", (10, 100, 250))):
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.new("RGB", SIZE, colour).save(tmp_path / name / f"{number}.bmp")
    train = load(tmp_path, "train")
    assert train.images[train.labels == 0][0, :, 0, 0].tolist() == [250, 100, 10]


def damage(root: Path, what: str) -> None:
    """An image folder in which one thing is wrong."""
    for name in ("ring", "star"):
        paint(root / name, 0 if what == "empty" else 15)
    odd = root / "ring" / "004.png"
    if what == "size":
        Image.new("L", (9, 9)).save(odd)
    elif what == "16 bit":
        Image.fromarray(np.full((5, 7), 999, np.uint16)).save(odd)
    elif what == "clear":
        Image.new("RGBA", SIZE, (0, 0, 0, 0)).save(odd)
    elif what == "text":
        odd.write_text("not a picture")
    elif what == "cut":
        paint(root / "ring", 5, size=(200, 200))
        odd.write_bytes(odd.read_bytes()[:3000])
        for file in [*root.glob("*/*.png")]:
            if file != odd:
                Image.new("L", (200, 200)).save(file)
    elif what == "one class":
        for file in (root / "star").iterdir():
            file.unlink()
        (root / "star").rmdir()
    elif what == "no classes":
        for file in root.glob("*/*"):
            file.rename(root / f"{file.parent.name}-{file.name}")
        for name in ("ring", "star"):
            (root / name).rmdir()
    elif what == "empty class":
        (root / "moon").mkdir()
    elif what == "few":
        for file in root.glob("*/00[0-9].png"):
            file.unlink()
    elif what == "no test":
        for name in ("ring", "star"):
            (root / "train").mkdir(exist_ok=True)
            (root / name).rename(root / "train" / name)
    elif what in ("strange class", "short test"):
        damage(root, "no test")
        paint(root / "test" / ("rnig" if what == "strange class" else "ring"), 1)


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("size", UsageError, r"{root}/ring/004\.png is 9 x 9 pixels, {root}/ring/000\.png is 7 x 5; wanted one size"),
        ("16 bit", UsageError, r"ring/004\.png holds values of kind I;16; wanted 8 bits a channel"),
        ("clear", UsageError, r"ring/004\.png has transparent pixels; wanted opaque ones"),
        ("text", HardattnError, r"cannot read the image {root}/ring/004\.png: .*; replace it or take it out"),
        ("cut", HardattnError, r"cannot read the image {root}/ring/004\.png: .*; replace it or take it out"),
        ("one class", UsageError, r"has 1 class folder, ring; wanted at least 2"),
        ("no classes", UsageError, r"has no class folders; wanted shapes/<class>/\*\.png, or shapes/train/<class>"),
        ("empty class", UsageError, r"0 image\(s\) in {root}/moon, none of which is left to train on; .* end in \.png, \.jpg"),
        ("empty", UsageError, r"0 images to split in {root}/<class>; wanted at least 20 files that end in \.png"),
        ("few", UsageError, r"10 images to split in {root}/<class>; wanted at least 20"),
        ("no test", UsageError, r"{root} has a folder train, but none named test; wanted both, or the class folders alone"),
        ("strange class", UsageError, r"class rnig is in {root}/test, but not in {root}/train"),
        ("short test", UsageError, r"1 image\(s\) in {root}/test/<class>; wanted at least 2"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_line(tmp_path: Path, what: str, kind: type[Exception], message: str) -> None:
    root = tmp_path / "shapes"
    damage(root, what)
    with pytest.raises(kind, match=message.replace("{root}", re.escape(str(root)))) as caught:
        for split in datasets.SPLITS:  # a broken file may lie in any
            load(root, split)
    assert type(caught.value) is kind


def test_a_folder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"dataset folder:nowhere: there is no folder {re.escape(str(tmp_path))}/nowhere"):
        datasets.load("folder:nowhere", "train")
    with pytest.raises(UsageError, match=r"dataset folder:: there is no folder \(none is named\); wanted folder:PATH"):
        datasets.load("folder:", "train")
    with pytest.raises(UsageError, match="no split is called 'tset'; did you mean 'test'"):
        datasets.load("folder:.", "tset")


# A function that returns arrays


def module(folder: Path, source: str) -> str:
    """The source as a module of its own in a folder."""
    name = f"own_{uuid.uuid4().hex}"
    (folder / f"{name}.py").write_text("import numpy as np\n" + textwrap.dedent(source))
    return name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_function_is_asked_for_each_split_and_train_says_how_many_classes(here: Path) -> None:
    name = module(
        here,
        """
        calls = []

        def images(split):
            calls.append(split)
            labels = [0, 1, 2, 0] if split == "train" else [0, 1]
            return np.full((len(labels), 6, 8, 3), len(calls), np.uint8), labels
        """,
    )
    test, train = (datasets.load(f"{name}:images", split) for split in ("test", "train"))
    assert test.classes == train.classes == 3 and test.labels.tolist() == [0, 1]
    assert train.images.shape == (4, 3, 6, 8) and int(train.images.max()) == 1  # made once, for test already
    assert datasets.load(f"{name}:images", "validation").images.shape == (2, 3, 6, 8)


FOUR = "np.zeros((4, 6, 6), np.uint8)"


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("1 / 0", HardattnError, r"images\('train'\) failed: ZeroDivisionError: division by zero; see where with: python -c"),
        ("return 5", UsageError, r"images\('train'\) returned a int, wanted two arrays \(images, labels\)"),
        ("return np.zeros((4, 6, 6)), [0, 1, 0, 1]", UsageError, "float64.*wanted uint8"),
        (f"return {FOUR}, ['a', 'b', 'a', 'b']", UsageError, r"images\('train'\) returned no arrays: .*; wanted uint8 images"),
        (f"return {FOUR}[:0], np.zeros(0, int)", UsageError, r"\(train\): 0 image\(s\), wanted at least 2"),
        (f"return {FOUR}, [0, 0, 0, 0]", UsageError, r"\(train\): 1 class\(es\), wanted at least 2"),
        (f"return {FOUR}, [0, 1, 0, 1 if split == 'train' else 2]", UsageError, r"\(test\): labels run from 0 to 2, wanted 0 to 1"),
        (
            f"return {FOUR}[:, :, : 6 if split == 'train' else 5], [0, 1, 0, 1]",
            UsageError,
            r"an image of test is \[1, 6, 5\], one of train \[1, 6, 6\] \[C, H, W\]; wanted one shape",
        ),
    ],
)
def test_what_is_wrong_with_a_function_is_one_line(here: Path, body: str, kind: type[Exception], message: str) -> None:
    name = f"{module(here, f'def images(split): {body}')}:images"
    with pytest.raises(kind, match=f"dataset {name}.*{message}") as caught:
        datasets.load(name, "test")
    assert type(caught.value) is kind


def test_a_name_that_is_no_function(here: Path) -> None:
    name = module(here, "table = {}\ndef images(split): ...")
    with pytest.raises(UsageError, match=f"dataset {name}:table: it is a dict, wanted a function of a split"):
        datasets.load(f"{name}:table", "train")
    with pytest.raises(UsageError, match="is called 'imags'; did you mean 'images'"):
        datasets.load(f"{name}:imags", "train")
    with pytest.raises(UsageError, match="there is no module 'nowhere'"):
        datasets.load("nowhere:images", "train")
    with pytest.raises(UsageError, match=r"or among the installed packages; write it without \.py"):
        datasets.load(f"{name}.py:images", "train")
    with pytest.raises(UsageError, match=f"{name}:: wanted module:name"):
        datasets.load(f"{name}:", "train")
    with pytest.raises(UsageError, match=r"did you mean 'mnist'\? your own is given as folder:PATH or module:function"):
        datasets.load("mnits", "train")
