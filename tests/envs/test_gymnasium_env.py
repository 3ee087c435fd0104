"""The Gymnasium faces: the same numbers as the core, both environment checkers, and mistakes named."""

import json
import multiprocessing
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env as gymnasium_check
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as sb3_check
from torch import Tensor

import hardattn
from hardattn.envs.errors import HardattnError, UsageError
from hardattn.envs.gymnasium_env import EpisodeStatistics, GlimpseVectorEnv, SingleEnv
from hardattn.envs.perception import weights_sha256
from hardattn.loading import SHIPPED
from hardattn.testing import small_world

ID, RAW = "hardattn/RamMnist-v0", "hardattn/RamMnistRaw-v0"


@pytest.fixture
def rows() -> Iterator[Any]:
    env = gym.make_vec(ID, num_envs=37, device="cpu", split="validation")
    yield env
    env.close()


def test_row_b_is_the_single_environment_to_the_bit(rows: Any) -> None:
    observation, info = rows.reset(seed=5)
    actions = [rows.unwrapped.sample_actions() for _ in range(6)]
    steps = [rows.step(action) for action in actions]
    single = gym.make(ID, device="cpu", split="validation")
    for b in (0, 17, 36):
        seen, _ = single.reset(options={"example": int(info["example"][b])})
        np.testing.assert_array_equal(seen, observation[b].numpy())
        for t, action in enumerate(actions):
            seen, reward, terminated, truncated, told = single.step(action[b].numpy())
            many = steps[t]
            expected = many[4]["final_obs"] if t == 5 else many[0]
            np.testing.assert_array_equal(seen, expected[b].numpy())
            np.testing.assert_array_equal(told["logits"], (many[4]["final_info"] if t == 5 else many[4])["logits"][b].numpy())
            assert (reward, terminated, truncated) == (float(many[1][b]), t == 5, False)
        assert told["correct"] == bool(many[4]["final_info"]["correct"][b])


def test_the_vector_face_is_the_core() -> None:
    world, env = small_world(seed=3), GlimpseVectorEnv(small_world(seed=3))
    observation, _ = env.reset()
    assert torch.equal(observation, world.reset())
    for t in range(3):
        action = torch.full((8, 2), 0.1 * t)
        step = world.step(action)
        observation, reward, terminated, truncated, info = env.step(action)
        assert torch.equal(reward, step.reward) and torch.equal(terminated, step.done) and not truncated.any()
        assert torch.equal(info["final_obs"] if t == 2 else observation, step.observation)
    assert torch.equal(observation, world.reset())  # within the step that ended the batch, the next one began
    assert torch.equal(info["example"], world.examples)


@pytest.mark.filterwarnings("ignore:.*A Box observation space m..imum value is:UserWarning")  # features have no bounds
def test_both_checkers_accept_the_single_environment() -> None:
    gymnasium_check(gym.make(ID, device="cpu", render_mode="rgb_array").unwrapped)
    sb3_check(gym.make(ID, device="cpu"))


def test_the_raw_variant_passes_gymnasiums_checker() -> None:
    gymnasium_check(gym.make(RAW, device="cpu", render_mode="rgb_array").unwrapped)


@pytest.mark.filterwarnings("ignore:Your observation glimpse has an unconventional shape:UserWarning")
def test_sb3s_checker_accepts_the_raw_variant_but_for_its_dict_action() -> None:
    with pytest.warns(UserWarning, match="either a Dict or Tuple space"):  # no algorithm of stable-baselines3 takes one
        sb3_check(gym.make(RAW, device="cpu"))


def test_the_same_seed_repeats(rows: Any) -> None:
    first, one = rows.reset(seed=9)
    rows.step(rows.unwrapped.sample_actions())
    again, two = rows.reset(seed=9)
    assert torch.equal(one["example"], two["example"]) and torch.equal(first, again)
    _, other = rows.reset(seed=10)
    assert not torch.equal(one["example"], other["example"])


def test_what_gymnasium_asks_of_a_vector_environment(rows: Any) -> None:
    assert rows.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP and rows.unwrapped.autoreset_mode is AutoresetMode.SAME_STEP
    observation, info = rows.reset(seed=0)
    assert tuple(observation.shape) == rows.observation_space.shape and observation.dtype == torch.float32
    for _ in range(7):
        observation, reward, terminated, truncated, info = rows.step(rows.unwrapped.sample_actions())
        assert all(isinstance(part, Tensor) for part in (observation, reward, terminated, truncated, *_leaves(info)))
        assert terminated.dtype == truncated.dtype == torch.bool and not truncated.any()
    assert "final_obs" not in info


def _leaves(tree: Any) -> list[Any]:
    return [leaf for value in tree.values() for leaf in _leaves(value)] if isinstance(tree, dict) else [tree]


def test_episode_statistics_are_tensors() -> None:
    env = EpisodeStatistics(GlimpseVectorEnv(small_world()))
    env.reset(seed=0)
    for _ in range(2):
        total = torch.zeros(8)
        for _ in range(3):
            *_, info = (step := env.step(torch.zeros(8, 2)))
            total += step[1]
        assert torch.equal(info["episode"]["r"], total) and info["episode"]["l"].tolist() == [3] * 8 and info["_episode"].all()


def test_rendering_shows_the_image_and_the_looks() -> None:
    env = gym.make(ID, device="cpu", render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    env.step(np.array([0.0, 0.0], np.float32))
    env.step(np.array([0.5, -0.5], np.float32))
    after = env.render()
    assert isinstance(before, np.ndarray) and isinstance(after, np.ndarray)
    assert before.shape == after.shape == (280, 280, 3) and before.dtype == np.uint8
    assert (before[..., 0] == before[..., 2]).all()  # gray: nothing is drawn yet
    changed = (before != after).any(axis=2)
    # The first square covers pixels 10 to 17 of 28 (a tie goes right and down), ten screen pixels each.
    assert changed[100:180, 100].all() and changed[100, 100:180].all() and not changed[:30, :].any()
    assert len(GlimpseVectorEnv(small_world(), "rgb_array").reset()) == 2
    with pytest.raises(UsageError, match="render_mode='human'"):
        GlimpseVectorEnv(small_world(), "human")


def test_the_last_frame_shows_the_last_look_of_its_own_image() -> None:
    for env_id, action in ((ID, np.zeros(2, np.float32)), (RAW, {"location": np.zeros(2, np.float32), "guess": 3})):
        env = gym.make(env_id, device="cpu", render_mode="rgb_array")
        env.reset(seed=0)
        frames = [(env.step(action), env.render())[1] for _ in range(6)]
        assert np.array_equal(frames[-1], frames[-2])  # the same look once more at the same image
        env.reset()
        assert not np.array_equal(env.render(), frames[-1])


def test_environments_without_a_seed_go_their_own_ways() -> None:
    def first() -> int:
        return int(gym.make(ID, device="cpu").reset()[1]["example"])

    assert len({first() for _ in range(5)}) > 1
    assert gym.make(ID, device="cpu", seed=4).reset()[1]["example"] == gym.make(ID, device="cpu", seed=4).reset()[1]["example"]


def test_another_tasks_perception_is_refused_and_a_new_one_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it was trained on ram-mnist, this environment is ram-cluttered60"):
        gym.make("hardattn/RamCluttered60-v0", device="cpu", perception="ram-mnist")
    hashes = []
    for weights in ("ram-mnist", "ram-mnist-pretrained"):
        shutil.copytree(SHIPPED / weights, tmp_path / "run", dirs_exist_ok=True)
        env: Any = gym.make_vec(ID, num_envs=1, device="cpu", perception=str(tmp_path / "run"))
        hashes.append(weights_sha256(env.unwrapped.world.network))
    assert hashes[0] != hashes[1]


def test_specs_travel() -> None:
    env = gym.make(ID, device="cpu", split="validation")
    assert env.spec is not None
    for spec in (pickle.loads(pickle.dumps(env.spec)), gym.envs.registration.EnvSpec.from_json(env.spec.to_json())):
        np.testing.assert_array_equal(gym.make(spec).reset(seed=1)[0], env.reset(seed=1)[0])
    json.loads(env.spec.to_json())


def _example_of_seed_1(queue: Any) -> None:
    queue.put(gym.make("hardattn:" + ID, device="cpu", split="validation").reset(seed=1)[1]["example"])


def test_a_spawned_process_makes_the_same_environment() -> None:
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    process = context.Process(target=_example_of_seed_1, args=(queue,))
    process.start()
    found = queue.get(timeout=120)
    process.join()
    assert found == gym.make(ID, device="cpu", split="validation").reset(seed=1)[1]["example"]


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (torch.zeros(37, 3), r"action: got torch.float32 \[37, 3\], wanted floating point \[37, 2\]"),
        (torch.zeros(36, 2), r"\[36, 2\], wanted floating point \[37, 2\]"),
        (np.zeros((37, 2), np.int64), r"action: got torch.int64 \[37, 2\], wanted floating point"),
        (torch.full((37, 2), float("nan")), "action: got NaN or infinity, wanted locations"),
        (torch.zeros(37, 2, device="meta"), "action: got a tensor on meta, wanted one on cpu"),
    ],
)
def test_a_wrong_action_is_named(rows: Any, action: Any, says: str) -> None:
    rows.reset(seed=0)
    with pytest.raises(ValueError, match=says):
        rows.step(action)


def test_order_mistakes_are_named() -> None:
    env = GlimpseVectorEnv(small_world())
    with pytest.raises(ValueError, match=r"step\(\) before reset\(\)"):
        env.step(torch.zeros(8, 2))
    with pytest.raises(ValueError, match=r"options: got the key 'example', wanted 'examples'"):
        env.reset(options={"example": 3})
    with pytest.raises(ValueError, match=r"options\['examples'\]: got torch.int64 \[1\], wanted integers \[8\]"):
        env.reset(options={"examples": [3]})
    for examples, says in (
        ([0] * 7 + [64], "got 0 to 64, wanted 0 to 63"),
        ([0] * 7 + [-1], "got -1 to 0"),
        ([True] * 8, "torch.bool"),
    ):
        with pytest.raises(ValueError, match=says):
            env.reset(options={"examples": examples})
    env.close()
    env.close()  # twice does no harm, as everywhere in Gymnasium
    with pytest.raises(ValueError, match=r"step\(\) after close\(\)"):
        env.step(torch.zeros(8, 2))
    single = SingleEnv(GlimpseVectorEnv(small_world(1)))
    single.reset()
    for _ in range(3):
        single.step(np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="after the episode's last look"):
        single.step(np.zeros(2, np.float32))


def test_outside_locations_are_clipped_and_counted() -> None:
    world = small_world()
    env = GlimpseVectorEnv(world)
    env.reset(seed=0)
    for _ in range(3):
        env.step(torch.full((8, 2), 1.5))
    assert world.counts.clipped == 24


def test_other_weights_are_refused_by_name() -> None:
    with pytest.raises(HardattnError, match=r"ram-mnist-pretrained: its perception has SHA-256 [0-9a-f]{64}, wanted feed"):
        gym.make(ID, device="cpu", perception_sha256="feed")
    with pytest.raises(UsageError, match=r"there is no folder \./nowhere"):
        gym.make(ID, device="cpu", perception="./nowhere")


def test_raw_glimpses_reward_the_right_guess_at_the_end() -> None:
    env: Any = gym.make_vec(RAW, num_envs=5, device="cpu", split="validation")
    observation, info = env.reset(seed=2)
    label = info["label"]
    assert observation["glimpse"].shape == (5, 1, 1, 8, 8) and float(observation["glimpse"].max()) <= 1
    guess = torch.stack([label[0], (label[1] + 1) % 10, label[2], label[3], (label[4] + 1) % 10])
    for t in range(6):
        where = torch.full((5, 2), 0.1 * t)
        observation, reward, terminated, _, info = env.step({"location": where, "guess": guess})
        assert terminated.all() == (t == 5)
        if t < 5:
            assert torch.equal(observation["location"], where) and not reward.any()
    assert reward.tolist() == [1, 0, 1, 1, 0] and info["final_info"]["correct"].tolist() == [True, False, True, True, False]


def test_raw_mistakes_are_named() -> None:
    env: Any = gym.make_vec(RAW, num_envs=2, device="cpu", split="validation").unwrapped
    where, guess = torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"step\(\) before reset\(\)"):
        env.step({"location": where, "guess": guess})
    env.reset(seed=0)
    for action, says in (
        (where, "action: got Tensor, wanted a dict with 'location' and 'guess'"),
        ({"location": where}, r"action: got \['location'\], wanted a dict"),
        ({"location": where[:1], "guess": guess}, r"action\['location'\]: got \[1, 2\], wanted \[2, 2\]"),
        ({"location": where, "guess": guess.float()}, r"action\['guess'\]: got torch.float32 \[2\], wanted integers \[2\]"),
        ({"location": where * float("nan"), "guess": guess}, r"action\['location'\]: got NaN"),
    ):
        with pytest.raises(ValueError, match=says):
            env.step(action)


def test_importing_the_package_registers_every_task_without_torch() -> None:
    import subprocess
    import sys

    code = "import sys, hardattn, gymnasium; print('torch' in sys.modules, *[i for i in gymnasium.registry if 'hardattn' in i])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert printed[0] == "False" and {ID, RAW} <= set(printed[1:])
    assert hardattn.__version__
