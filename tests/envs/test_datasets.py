from pathlib import Path

import numpy as np
import pytest
import torch

from hardattn.envs import datasets, task_data
from hardattn.envs.errors import HardattnError, UsageError
from hardattn.envs.tasks import TASKS


def test_mnist_ships_whole_and_split() -> None:
    train, validation, test = (datasets.mnist(split) for split in datasets.SPLITS)
    assert [len(part) for part in (train, validation, test)] == [55_000, 5_000, 10_000]
    assert train.images.shape[1:] == (1, 28, 28)
    assert train.labels.bincount(minlength=10).min() > 4_900
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_validation_digits_are_not_trained_on() -> None:
    train, validation = datasets.mnist("train"), datasets.mnist("validation")
    seen = {image.numpy().tobytes() for image in train.images}
    assert sum(image.numpy().tobytes() in seen for image in validation.images) == 0


def test_a_damaged_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.xz").write_bytes(b"not xz")
    monkeypatch.setattr(datasets.resources, "files", lambda package: tmp_path)
    with pytest.raises(HardattnError, match=r"t10k-labels-idx1-ubyte\.xz"):
        datasets.read_mnist("t10k-labels-idx1-ubyte")


def test_a_changed_file_fails_its_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(datasets.MNIST_SHA256, "t10k-labels-idx1-ubyte", "0" * 64)
    with pytest.raises(HardattnError, match=r"t10k-labels-idx1-ubyte\.xz is damaged: SHA-256"):
        datasets.read_mnist("t10k-labels-idx1-ubyte")


def test_idx_is_read_by_its_header() -> None:
    raw = b"\x00\x00\x08\x02" + np.array([2, 3], ">i4").tobytes() + bytes(range(6))
    assert datasets.parse_idx(raw).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="5 values"):
        datasets.parse_idx(raw[:-1])
    with pytest.raises(ValueError, match="not an IDX file"):
        datasets.parse_idx(b"PNG?")


def test_arrays_become_a_dataset_in_every_usual_layout() -> None:
    labels = np.array([0, 1, 2])
    for shape in ((3, 8, 8), (3, 8, 8, 1), (3, 1, 8, 8)):
        assert datasets.from_arrays(np.zeros(shape, np.uint8), labels).images.shape == (3, 1, 8, 8)
    assert datasets.from_arrays(np.zeros((3, 8, 9, 3), np.uint8), labels).images.shape == (3, 3, 8, 9)


@pytest.mark.parametrize(
    ("images", "labels", "classes", "message"),
    [
        (np.zeros((4, 8, 8)), [0, 1, 0, 1], None, "float64.*wanted uint8"),
        (np.zeros((1, 8, 8), np.uint8), [0], 2, "1 image"),
        (np.zeros((4, 8, 8), np.uint8), [0, 1, 0], 2, "one an image"),
        (np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 5], 3, "labels run from 0 to 5, wanted 0 to 2"),
        (np.zeros((4, 8, 8), np.uint8), [0, 0, 0, 0], 0, "0 class"),
        (np.zeros((4, 8, 8), np.uint8), [0.0, 1.0, 0.0, 1.0], None, "wanted integers"),
    ],
)
def test_what_is_no_dataset_is_refused_at_construction(
    images: np.ndarray, labels: list[float], classes: int | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        datasets.from_arrays(images, labels, classes)


def test_labels_are_changed_in_the_share_that_is_asked_and_always_the_same_ones() -> None:
    """Of 10,000 labels 3,000 are changed, within four standard errors (183), each to every other class about as often."""
    labels = np.arange(10_000) % 5
    whole = datasets.from_arrays(np.zeros((10_000, 1, 2), np.uint8), labels)
    spoiled = whole.mislabelled(0.3)
    changed = spoiled.labels != whole.labels
    assert abs(int(changed.sum()) - 3000) < 183 and torch.equal(spoiled.labels, whole.mislabelled(0.3).labels)
    counts = torch.bincount((spoiled.labels - whole.labels)[changed] % 5, minlength=5)
    assert counts[0] == 0 and counts[1:].min() > 600
    assert torch.equal(whole.mislabelled(0.0).labels, whole.labels) and torch.equal(whole.images, spoiled.images)


def test_what_has_no_label_of_its_own_cannot_be_mislabelled() -> None:
    several = datasets.Dataset("rows", torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([[1, -1], [0, 1]]), 2)
    with pytest.raises(UsageError, match=r"label_noise=0\.5: images of rows have several labels"):
        several.mislabelled(0.5)
    for task in ("catch", "dasnet-cifar10"):
        with pytest.raises(UsageError, match=r"label_noise=0\.5.*wanted 0"):
            task_data.training_data(TASKS[task], 0.5)
    noisy = task_data.training_data(TASKS["ram-mnist"], 0.5)
    assert isinstance(noisy, datasets.Dataset)
    assert 0.45 < float((noisy.labels != datasets.load("mnist", "train").labels).float().mean()) < 0.55


def test_fingerprint_tells_datasets_apart() -> None:
    one = datasets.from_arrays(np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1])
    same = datasets.from_arrays(np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1])
    other = datasets.from_arrays(np.zeros((4, 8, 8), np.uint8), [1, 1, 0, 1])
    assert one.sha256() == same.sha256() != other.sha256()
    assert torch.equal(one.take(torch.tensor([3, 1])).labels, torch.tensor([1, 1]))
