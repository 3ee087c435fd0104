"""The SVHN loaders on small files of the same layout, made here."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from hardattn.envs import datasets, svhn
from hardattn.envs.crops import Crops
from hardattn.envs.errors import HardattnError, UsageError
from hardattn.envs.glimpse_world import GlimpseWorld
from hardattn.envs.task_data import fixed_data, new_network, training_data
from hardattn.envs.tasks import get_task

NUMBERS = [[1], [2, 10], [3, 4, 5], [6, 7, 8, 9, 10], [1, 2, 3, 4, 5, 6]]  # as the file writes them: 10 is the digit 0


def write_part(folder: Path, numbers: list[list[int]]) -> None:
    """Images with a grey level for each digit, and the digitStruct.mat that lists them."""
    folder.mkdir(parents=True)
    with h5py.File(folder / "digitStruct.mat", "w") as file:
        names, boxes = [], []
        for n, digits in enumerate(numbers, start=1):
            pixels = np.zeros((40, 100, 3), np.uint8)
            for k, digit in enumerate(digits):
                pixels[10:30, 10 + 12 * k : 22 + 12 * k] = 20 * digit
            Image.fromarray(pixels).save(folder / f"{n}.png")
            name = file.create_dataset(f"#refs#/name{n}", data=np.array([[ord(c)] for c in f"{n}.png"], np.uint16))
            box = file.create_group(f"#refs#/box{n}")
            fields = {"left": [10 + 12 * k for k in range(len(digits))], "label": digits}
            fields |= {key: [value] * len(digits) for key, value in (("top", 10), ("width", 12), ("height", 20))}
            for key, values in fields.items():
                if len(values) == 1:
                    box.create_dataset(key, data=np.array([[float(values[0])]]))
                    continue
                held = [file.create_dataset(f"#refs#/{key}{n}-{k}", data=np.array([[float(v)]])) for k, v in enumerate(values)]
                box.create_dataset(key, data=np.array([[one.ref] for one in held], h5py.ref_dtype), dtype=h5py.ref_dtype)
            names.append([name.ref])
            boxes.append([box.ref])
        file.create_dataset("digitStruct/name", data=np.array(names, h5py.ref_dtype), dtype=h5py.ref_dtype)
        file.create_dataset("digitStruct/bbox", data=np.array(boxes, h5py.ref_dtype), dtype=h5py.ref_dtype)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARDATTN_DATA_DIR", str(tmp_path))
    for part, repeats in (("train", 4), ("test", 1), ("extra", 2)):
        write_part(tmp_path / "svhn" / part, NUMBERS * repeats)
    return tmp_path / "svhn"


def test_numbers_are_listed_with_their_digits_and_boxes(folder: Path) -> None:
    listed = svhn.read_struct(folder / "test" / "digitStruct.mat")
    assert [(name, digits) for name, digits, _ in listed[:2]] == [("1.png", [1]), ("2.png", [2, 0])]
    assert listed[1][2] == [(10, 10, 12, 20), (22, 10, 12, 20)]


def test_a_number_is_cut_out_with_its_margin(folder: Path) -> None:
    patch = svhn.cut_out(folder / "test" / "1.png", [(10, 10, 12, 20)])
    assert patch.shape == (64, 64) and patch.dtype == np.uint8
    # 12 columns and a margin of 1.8 on both sides: 15.6 columns in all, of which 12 / 15.6 are ink.
    assert (patch > 10).mean() == pytest.approx((12 / 15.6) * (20 / 26), abs=0.03)


def test_labels_end_with_the_symbol_and_numbers_of_six_are_left_out(folder: Path) -> None:
    test = svhn.numbers("test")
    assert test.images.shape == (4, 1, 64, 64) and test.classes == 11
    assert test.labels.tolist() == [
        [1, 10, -1, -1, -1, -1],
        [2, 0, 10, -1, -1, -1],
        [3, 4, 5, 10, -1, -1],
        [6, 7, 8, 9, 0, 10],
    ]


def test_validation_is_part_of_train_and_extra_is_added_on_demand(folder: Path) -> None:
    train, validation = svhn.numbers("train"), svhn.numbers("validation")
    assert (len(train), len(validation)) == (13, 3)
    assert len(svhn.numbers_and_extra("train")) == 13 + 8
    assert svhn.numbers_and_extra("test").sha256() == svhn.numbers("test").sha256()


def test_what_was_prepared_is_kept(folder: Path) -> None:
    before = svhn.numbers("test")
    for file in (folder / "test").glob("*.png"):
        file.unlink()
    assert svhn.numbers("test").sha256() == before.sha256()
    (folder / "test" / "prepared-64.safetensors").write_bytes(b"broken")
    with pytest.raises(HardattnError, match="delete it, and it is made again"):
        svhn.numbers("test")


def test_missing_and_damaged_files_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "test" / "3.png").unlink()
    with pytest.raises(HardattnError, match=r"3\.png"):
        svhn.numbers("test")
    (folder / "test" / "digitStruct.mat").write_bytes(b"no such file")
    with pytest.raises(HardattnError, match=r"damaged or no digitStruct\.mat"):
        svhn.numbers("test")
    (folder / "test" / "digitStruct.mat").unlink()
    with pytest.raises(HardattnError, match=r"docs/svhn\.md says what to download"):
        svhn.numbers("test")
    with pytest.raises(UsageError, match="did you mean 'test'"):
        svhn.numbers("tset")
    with pytest.raises(HardattnError, match="outside its 100 x 40 pixels"):
        svhn.cut_out(folder / "train" / "1.png", [(200, 10, 5, 5)])


def test_digits_of_32x32(folder: Path) -> None:
    random = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 10)):
        pixels = random.integers(256, size=(32, 32, 3, count), dtype=np.uint8)
        labels = np.arange(count)[:, None] % 10 + 1  # the file writes 10 for the digit 0
        savemat(folder / f"{part}_32x32.mat", {"X": pixels, "y": labels.astype(np.uint8)})
    test = datasets.load("svhn-digits", "test")
    assert test.images.shape == (10, 3, 32, 32) and test.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert torch.equal(test.images[3, 2], torch.from_numpy(pixels[:, :, 2, 3]))
    assert (len(datasets.load("svhn-digits", "train")), len(datasets.load("svhn-digits", "validation"))) == (16, 4)
    savemat(folder / "test_32x32.mat", {"X": np.zeros((8, 8, 3, 2), np.uint8), "y": np.ones((2, 1))})
    with pytest.raises(HardattnError, match="wanted uint8 \\[32, 32, 3, N\\]"):
        datasets.load("svhn-digits", "test")
    (folder / "test_32x32.mat").write_bytes(b"no such file")
    with pytest.raises(HardattnError, match="damaged or no SVHN file"):
        datasets.load("svhn-digits", "test")
    (folder / "test_32x32.mat").unlink()
    with pytest.raises(HardattnError, match="there is no"):
        datasets.load("svhn-digits", "test")


def test_crops_lie_anywhere_in_training_and_in_the_middle_for_measuring(folder: Path) -> None:
    source = svhn.numbers("train")
    crops, random = Crops(source, 54), torch.Generator().manual_seed(0)
    indices = torch.zeros(200, dtype=torch.int64)
    shown = crops.show(indices, random)
    assert shown.images.shape == (200, 1, 54, 54)
    windows = source.images[0].unfold(1, 54, 1).unfold(2, 54, 1)  # [1, 11, 11, 54, 54]: every window there is
    found = {
        next(k for k, window in enumerate(windows[0].flatten(0, 1)) if torch.equal(window, image[0])) for image in shown.images
    }
    assert len(found) > 20
    assert torch.equal(crops.fixed().images[0, 0], windows[0, 5, 5])
    with pytest.raises(UsageError, match="crop=65"):
        Crops(source, 65)


def test_dram_svhn_plays(folder: Path) -> None:
    task = get_task("dram-svhn")
    data = training_data(task)
    world = GlimpseWorld(task, data, new_network(task, data), batch_size=4, learning=True, precision="fp32")  # type: ignore[arg-type]
    world.reset()
    for _ in range(18):
        step = world.step(torch.zeros(4, 2))
    assert step.logits.shape == (4, 11) and float(world.loss().detach()) > 0
    assert fixed_data(task, "test").images.shape == (4, 1, 54, 54)  # type: ignore[union-attr]
