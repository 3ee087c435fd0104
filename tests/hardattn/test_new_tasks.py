"""The commands on tasks that are no plain glimpse task: a game, DRAM, several labels in turn."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from hardattn import bench, evaluate, loading, plots, plugins, settings
from hardattn.agents.base import collect
from hardattn.envs.errors import UsageError
from hardattn.envs.tasks import TASKS, Task
from hardattn.experiment import build, from_json, to_json
from hardattn.listing import as_json, show
from hardattn.train import Trainer, train

TINY = {
    "catch": ["episodes=40", "batch_size=20", "evaluations=1", "lstm_width=8", "catch.size=8"],
    "dram-addition": ["episodes=40", "batch_size=20", "evaluations=1", "lstm_width=8", "core_width=8", "glimpse_width=8"],
}


def turns(split: str) -> tuple[Any, Any]:
    """Random images with two labels and an end, for tests."""
    random = np.random.default_rng(len(split))
    labels = np.stack([random.integers(3, size=40), random.integers(3, size=40), np.full(40, 3)], axis=1)
    return random.integers(256, size=(40, 12, 12), dtype=np.uint8), labels


def test_a_smaller_screen_makes_shorter_games() -> None:
    setup = build("catch", "ppo", sets=["catch.size=16"], device="cpu")
    assert setup.task.num_glimpses == 15
    assert build("catch", "ppo", sets=["catch.size=16", "num_glimpses=15"], device="cpu").task == setup.task
    assert from_json(to_json(setup)).task == setup.task
    with pytest.raises(UsageError, match="num_glimpses=9"):
        build("catch", "ppo", sets=["catch.size=16", "num_glimpses=9"], device="cpu")


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["mode=frozen"], "no perception to train or to freeze"),
        (["mode=staged"], "no perception to train or to freeze"),
        (["core_width=8"], "no setting has this name"),
        (["see_glimpse=true"], "a game of Catch has none"),
    ],
)
def test_what_a_game_has_not_is_refused(sets: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        build("catch", "ppo", sets=sets, device="cpu")


@pytest.mark.parametrize("task", TINY)
@pytest.mark.parametrize("agent", ["reinforce", "ppo"])
def test_a_run_trains_is_opened_and_drawn(task: str, agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardattn.envs.task_data.FIXED", {"train": (1, 40), "validation": (2, 30), "test": (3, 30)})
    final = train(build(task, agent, sets=TINY[task], device="cpu"), tmp_path)
    assert final["flops_per_image"] > 0 and ("paths10" in final["protocols"]) == (task != "catch")
    run = loading.open_run(str(tmp_path))
    assert len(final["protocols"]["mean"]["error_by_look"]) == (1 if task == "catch" else run.setup.task.num_glimpses)
    measured = evaluate.measure(run.agent, evaluate.test_world(run.world, run.dataset)())
    assert measured.error == final["protocols"]["mean"]["error"]
    paths = plots.Paths(run.agent, run.world(batch_size=2, repeats=1), torch.arange(2))
    assert paths.reading(0, 1)[1] is None if task == "catch" else paths.reading(0, 1)[0].startswith("reads")
    plots.draw_sheet(paths, tmp_path / "paths.png")
    assert (tmp_path / "paths.png").stat().st_size > 1000


@pytest.mark.parametrize("task", TINY)
def test_a_resumed_run_goes_on_to_the_bit(task: str, tmp_path: Path) -> None:
    setup = build(task, "ppo", sets=TINY[task], device="cpu")
    whole, first = Trainer(setup, tmp_path), Trainer(setup, tmp_path)
    whole._one_update()
    expected = whole._one_update()
    first._one_update()
    second = Trainer(setup, tmp_path)
    second.load_state_dict(first.state_dict())
    assert second._one_update() == expected


def test_several_labels_in_turn_train_and_are_drawn(tmp_path: Path) -> None:
    task = Task("turns", "s", dataset=f"{__name__}:turns", size=4, num_glimpses=6, targets=3, reward="correct")
    TASKS["turns"] = task
    try:
        sets = ["episodes=40", "batch_size=20", "evaluations=1", "core_width=8", "glimpse_width=8"]
        final = train(build("turns", "reinforce", sets=sets, device="cpu"), tmp_path)
        assert final["protocols"]["mean"]["error_by_look"][-1] == final["protocols"]["mean"]["error"]
        with pytest.raises(UsageError, match="one label an image"):
            bench.bench("turns", (16,), 0.1, "cpu")
    finally:
        del TASKS["turns"]


@pytest.mark.filterwarnings("ignore:.*Box observation space m.*imum value is.*infinity")
def test_gymnasium_takes_catch() -> None:
    env = gym.make("hardattn/Catch-v0", seed=0)
    check_env(env.unwrapped, skip_render_check=True)
    observation, _ = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape
    envs = gym.make_vec("hardattn/Catch-v0", num_envs=4)
    envs.reset(seed=0)
    for _ in range(23):
        *_, info = envs.step(envs.unwrapped.sample_actions())  # type: ignore[attr-defined]
    assert info["final_info"]["correct"].shape == (4,)


def test_what_cannot_be_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one label an image"):
        bench.bench("catch", (16,), 0.1, "cpu")
    with pytest.raises(UsageError, match="a move has no derivative"):
        Trainer(build("catch", "pathwise", sets=["batch_size=20"], device="cpu"), tmp_path)
    with pytest.raises(UsageError, match="true boxes are unknown"):
        train(build("catch", "oracle", sets=["episodes=20", "batch_size=20"], device="cpu"), tmp_path)


def test_every_task_is_listed_with_its_presets(capsys: pytest.CaptureFixture[str]) -> None:
    listed = {task["name"]: task["presets"] for task in as_json()["tasks"]}
    assert set(listed) == set(TASKS) and all({"default", "quick"} <= set(presets) for presets in listed.values())
    for name in TASKS:
        show(name)
    shown = " ".join(capsys.readouterr().out.split())
    assert "angle" in shown and "see_glimpse" in shown
    assert settings.PRESETS.keys() == TASKS.keys()


@pytest.mark.parametrize("task", ["ram-translated60", "ram-cluttered60", "ram-cluttered60-narrow", "dram-pairs", "catch"])
def test_shipped_policies_leave_half_the_error_of_random_looks(task: str) -> None:
    run, indices = loading.open_run(task), torch.arange(500)
    world = run.world(batch_size=500, repeats=1)
    errors = []
    for agent in (run.agent, plugins.make_agent("random", world)):
        collect(agent, world, greedy=True, indices=indices)
        errors.append(evaluate.percent(~world.right))
    assert 2 * errors[0] < errors[1]
