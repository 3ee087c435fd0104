"""Canvas tasks as worlds: fresh canvases in training, fixed ones for measuring, true boxes for both."""

import dataclasses
from typing import Any

import pytest
import torch

from hardattn import evaluate, plugins, train_baseline
from hardattn.envs import datasets, task_data
from hardattn.envs.canvases import Canvases
from hardattn.envs.datasets import Dataset
from hardattn.envs.errors import UsageError
from hardattn.envs.glimpse import on_target, to_locations
from hardattn.envs.glimpse_world import GlimpseWorld
from hardattn.envs.perception import RamPerception
from hardattn.envs.tasks import TASKS, CanvasConfig
from hardattn.experiment import build, from_json, to_json
from hardattn.train import Trainer

# SHA-256 of the fixed test canvases, as docs/canvases.md has them.
SHA256 = {
    "ram-translated60": "6014403fcf2483e85a214a95d2a66e64bed31fdeec55e381eb265e0a926b3229",
    "ram-cluttered60": "34aeb59a93c14bf51754c50547cb88824a2ab3f48b6d2add7696a8f463706808",
    "ram-cluttered100": "448235a7e4906965d629e420fe919117b00c5a37dfb55c3f2303c708f53fad63",
    "dram-pairs": "c0ae0ed14b2909d6cbe0bc232a1efdec8f5ab17f531d85751879c889c31aa936",
    "dram-addition": "83096870e943bc79a31a8e67eea02e10cfc7cd5bf19be71085a24999fa75203a",
    "catch": "2db523d273442abba61d172b6cf910ffa5b2074c5146beca98178bbcf762b093",
}


def small(task: str = "ram-cluttered60", batch_size: int = 16, fixed: bool = False, **changes: object) -> GlimpseWorld:
    """A world of a canvas task over 200 digits with a small perception."""
    setup = TASKS[task]
    assert setup.canvas is not None
    config = dataclasses.replace(setup.perception, core_width=16, glimpse_width=16, encoder_width=16)
    digits = datasets.load("mnist", "validation").take(torch.arange(200))
    data: Dataset | Canvases = Canvases(digits, setup.canvas)
    if fixed:
        data = Canvases(digits, setup.canvas).fixed(7, 100)
    network = RamPerception(config, (setup.scales, 1, setup.size, setup.size), data.classes)
    return GlimpseWorld(setup, data, network, batch_size=batch_size, precision="fp32", **changes)  # type: ignore[arg-type]


def test_training_draws_afresh_and_measuring_does_not() -> None:
    world, examples = small(), torch.arange(16)
    world.reset(examples)
    first = world.images
    world.reset(examples)
    assert first.shape == (16, 1, 60, 60) and not torch.equal(first, world.images)
    fixed = small(fixed=True)
    fixed.reset(examples)
    first = fixed.images
    fixed.reset(examples)
    assert torch.equal(first, fixed.images)


def test_digits_move_out_while_the_budget_is_spent() -> None:
    world, farthest = small("ram-translated60", spread=0.5), []
    for world.progress in (0.0, 0.25, 0.5, 1.0):
        world.reset()
        assert world.boxes is not None
        farthest.append(float((world.boxes[:, 0, :2] - 16).abs().max()))  # from the middle, of 16 pixels at most
    assert farthest[0] <= 5 < farthest[1] <= 11 < farthest[2] and farthest[3] > 11
    with pytest.raises(UsageError, match=r"spread=0\.5: ram-cluttered60 shows no canvases"):
        small(fixed=True, spread=0.5)


def test_repeats_show_the_same_canvas() -> None:
    world = small(repeats=4, augment=0.5)
    world.reset()
    groups = world.images.unflatten(0, (4, 4))
    assert torch.equal(groups, groups[:, :1].expand_as(groups)) and not torch.equal(groups[0, 0], groups[1, 0])
    assert world.boxes is not None and torch.equal(world.boxes[0], world.boxes[3])


def test_augmented_digits_stay_in_their_boxes() -> None:
    world = small("ram-translated60", augment=1.0)
    world.reset()
    assert world.boxes is not None and world.images.dtype == torch.uint8
    for image, box in zip(world.images[:, 0], world.boxes[:, 0].long().tolist(), strict=True):
        left, top, right, bottom = box
        assert int(image[top:bottom, left:right].sum()) == int(image.sum()) > 0


def test_on_target_is_the_box_to_the_pixel() -> None:
    boxes = torch.tensor([[[10.0, 20.0, 38.0, 48.0], [0.0, 0.0, 5.0, 5.0]]])
    for pixel, inside in (
        ((10, 20), [True, False]),
        ((37, 47), [True, False]),
        ((38, 47), [False, False]),
        ((4, 0), [False, True]),
    ):
        location = to_locations(torch.tensor([pixel], dtype=torch.float32), 60, 60)
        assert on_target(location, boxes, 60, 60)[0].tolist() == inside, pixel


def test_the_oracle_looks_on_the_digit_and_the_world_counts_it() -> None:
    world = small(fixed=True)
    oracle = evaluate.measure(plugins.make_agent("oracle", world), world)
    assert oracle.on_target_by_look == (100.0,) * 8
    assert world.counts.on_target == world.counts.steps == 800
    random = evaluate.measure(plugins.make_agent("random", world), world)
    share = (28 / 60) ** 2  # of the canvas
    assert sum(random.on_target_by_look) / 800 == pytest.approx(share, abs=0.05)
    plain = GlimpseWorld(TASKS["ram-mnist"], datasets.load("mnist", "validation"), world.network, batch_size=8, precision="fp32")
    with pytest.raises(UsageError, match="agent oracle: this task's true boxes are unknown"):
        evaluate.measure(plugins.make_agent("oracle", plain), plain)


def test_settings_reach_the_canvas_and_come_back_from_a_file() -> None:
    setup = build("ram-cluttered60", "reinforce", sets=["canvas.size=80", "clutter=9"], device="cpu")
    assert setup.task.canvas == CanvasConfig(80, clutter=9)
    assert from_json(to_json(setup)) == setup
    with pytest.raises(UsageError, match="size=20: images of mnist are 28 x 28; wanted a canvas of at least 28"):
        task_data.fixed_data(build("ram-cluttered60", "reinforce", sets=["canvas.size=20"]).task, "validation")


def test_train_and_test_canvases_share_no_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    load = datasets.load
    monkeypatch.setattr(datasets, "load", lambda name, split: (asked.append(split), load(name, split))[1])
    task_data.training_data(TASKS["ram-translated60"])
    task_data.fixed_data(TASKS["ram-translated60"], "test")
    assert asked == ["train", "test"]  # the splits of mnist itself are disjoint


@pytest.mark.parametrize("task", SHA256)
def test_the_fixed_test_sets_are_the_documented_ones(task: str) -> None:
    assert task_data.fixed_data(TASKS[task], "test").sha256() == SHA256[task]


def test_a_canvas_task_trains(tmp_path: object) -> None:
    sets = ["episodes=60", "batch_size=20", "core_width=16", "glimpse_width=16", "encoder_width=16", "evaluations=1"]
    trainer = Trainer(build("ram-cluttered60", "reinforce", sets=sets, device="cpu"), tmp_path)  # type: ignore[arg-type]
    trainer._one_update()
    trainer._evaluate({})
    assert trainer.validation_error is not None and 70 < trainer.validation_error < 100


@pytest.mark.parametrize("data_of", [task_data.training_data, lambda task, *rest: train_baseline.images_of(task, "train", *rest)])
def test_clutter_stays_crisp_only_where_it_is_asked_to(data_of: Any) -> None:
    task = TASKS["ram-cluttered60"]
    assert not data_of(task).crisp_clutter and not data_of(task, 0.0, True).crisp_clutter
    assert data_of(task, 0.0, False).crisp_clutter
    world = small("ram-cluttered60", augment=0.5)
    world.dataset = data_of(task, 0.0, False)
    assert world._source().crisp_clutter
