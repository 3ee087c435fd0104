"""Corruptions: no strength is none, each does what it says, JPEG agrees with a file's."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hardattn.envs import corruptions
from hardattn.envs.augment import shifted
from hardattn.envs.corruptions import KINDS, add_noise, blur, compress, corrupt, lower_contrast
from hardattn.envs.datasets import Dataset
from hardattn.envs.errors import UsageError
from hardattn.envs.pictures import Pictures


def smooth(count: int = 4) -> Tensor:
    """Pictures that change slowly, in [0, 1]."""
    wave = torch.linspace(0, 3, 32)
    waves = torch.stack([torch.sin(wave[:, None] * (k + 1) + wave * c) for k in range(count) for c in range(3)])
    return (waves.view(count, 3, 32, 32) + 1) / 2


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_noise_has_its_deviation() -> None:
    found = add_noise(torch.full((2, 3, 64, 64), 0.5), torch.tensor([0.1, 0.02]), seeded()) - 0.5
    assert found.std(dim=(1, 2, 3)).tolist() == pytest.approx([0.1, 0.02], rel=0.05)


def test_a_blur_spreads_a_point_as_its_gaussian() -> None:
    point = torch.zeros(1, 1, 16, 16)
    point[0, 0, 8, 8] = 1
    found = blur(point, torch.tensor([1.0]))[0, 0]
    assert float(found.sum()) == pytest.approx(1, abs=1e-4)
    assert float(found[8, 9] / found[8, 8]) == pytest.approx(np.exp(-0.5), rel=1e-4)
    assert float(found[9, 9] / found[8, 8]) == pytest.approx(np.exp(-1), rel=1e-4)


def test_contrast_keeps_the_mean_colour() -> None:
    images = smooth()
    found = lower_contrast(images, torch.tensor([0.5, 0.5, 0.5, 0.15]))
    assert torch.allclose(found.mean(dim=(2, 3)), images.mean(dim=(2, 3)), atol=1e-6)
    assert (found.std(dim=(2, 3)) / images.std(dim=(2, 3)))[:, 0].tolist() == pytest.approx([0.5, 0.5, 0.5, 0.15], rel=1e-4)


def test_jpeg_agrees_with_that_of_a_file() -> None:
    images = (smooth() * 255).round()
    for quality in (80, 40):
        found = compress(images / 255, torch.full((4,), float(quality))) * 255
        for image, mine in zip(images, found, strict=True):
            file = io.BytesIO()
            Image.fromarray(image.permute(1, 2, 0).to(torch.uint8).numpy()).save(file, "JPEG", quality=quality, subsampling=0)
            theirs = torch.from_numpy(np.asarray(Image.open(file)).astype(np.float32)).permute(2, 0, 1)
            assert float((mine - theirs).abs().mean()) < 1.0


def test_stronger_spoils_more() -> None:
    noisy = (smooth() + 0.1 * torch.randn(4, 3, 32, 32, generator=seeded())).clamp(0, 1)
    for kind in KINDS:
        change = [float((corrupt(noisy, kind, strength, seeded()) - noisy).square().mean()) for strength in (1, 3, 5)]
        assert 0 < change[0] < change[1] < change[2], kind


def test_all_takes_the_kinds_by_quarters_and_zero_takes_every_strength() -> None:
    images = smooth(8)
    found = corrupt(images, "all", 5, seeded())
    assert torch.equal(found[4:6], lower_contrast(images[4:6], torch.tensor([0.15, 0.15])))
    many = images.repeat(50, 1, 1, 1)
    left = corrupt(many, "contrast", 0, seeded()).std(dim=(2, 3))[:, 0] / many.std(dim=(2, 3))[:, 0]
    assert sorted({round(float(one), 2) for one in left}) == sorted(corruptions.CONTRAST)
    assert corrupt(images, "none", 0, seeded()) is images


def test_a_few_images_meet_every_kind_in_time() -> None:
    random, image = seeded(), (smooth(1) * 0.9 + 0.05 * torch.rand(1, 3, 32, 32, generator=seeded(1)))
    found = {round(float((corrupt(image, "all", 5, random) - image).square().mean()), 4) for _ in range(40)}
    kinds = {kind: float((corrupt(image, kind, 5, seeded()) - image).square().mean()) for kind in KINDS}
    for change in kinds.values():
        assert any(abs(one - change) < 0.1 * change + 1e-4 for one in found)


def test_shifting_moves_and_mirrors_each_picture() -> None:
    images = torch.arange(25, dtype=torch.uint8).view(1, 1, 5, 5).repeat(400, 1, 1, 1)
    places = {tuple(image.flatten().tolist()) for image in shifted(images, 1, False, seeded())}
    assert len(places) == 9 and tuple(images[0].flatten().tolist()) in places
    assert len({tuple(image.flatten().tolist()) for image in shifted(images, 1, True, seeded())}) == 18
    assert torch.equal(shifted(images, 0, False, seeded()), images)
    every_other = torch.arange(len(images)) % 2 == 1
    mirrored = shifted(images, 0, every_other, seeded())
    assert torch.equal(mirrored[~every_other], images[~every_other])
    assert torch.equal(mirrored[every_other], images[every_other].flip(3))


def test_fixed_pictures_are_fixed_and_every_picture_keeps_its_label() -> None:
    source = Dataset("smooth", (smooth(40) * 255).to(torch.uint8), torch.arange(40) % 10, 10)
    spoiled = Pictures(source, "contrast", 5)
    one, other = spoiled.fixed(), spoiled.fixed()
    assert torch.equal(one.images, other.images) and torch.equal(one.labels, source.labels)
    means = (one.images.float().mean(dim=(2, 3)) - source.images.float().mean(dim=(2, 3))).abs()
    assert float(means.max()) < 1  # each is still itself
    assert Pictures(source).fixed().images.equal(source.images)
    assert Pictures(source).sha256() != spoiled.sha256()
    shown = Pictures(source, "noise", 1).show(torch.arange(4), seeded(), augment=0.5)
    assert shown.images.dtype == torch.uint8 and not torch.equal(shown.images, source.images[:4])


def test_jpeg_of_odd_sizes_is_refused() -> None:
    with pytest.raises(UsageError, match="28 x 28, wanted multiples of 8"):
        Pictures(Dataset("odd", torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.arange(4), 4), "all")
