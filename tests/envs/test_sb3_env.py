"""The stable-baselines3 face: the world's numbers, in its shapes."""

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from hardattn.envs.probes import ProbeWorld
from hardattn.envs.sb3_env import SB3VecEnv
from hardattn.testing import small_world


def test_it_is_the_world_in_numpy() -> None:
    world, env = small_world(seed=3), SB3VecEnv(small_world(seed=3))
    np.testing.assert_array_equal(env.reset(), world.reset().numpy())
    total = torch.zeros(8)
    for t in range(3):
        action = np.full((8, 2), 0.2 * t, np.float32)
        observation, reward, done, infos = env.step(action)
        step = world.step(torch.from_numpy(action))
        total += step.reward
        np.testing.assert_array_equal(reward, step.reward.numpy())
        assert done.tolist() == [t == 2] * 8 and len(infos) == 8
        if t < 2:
            np.testing.assert_array_equal(observation, step.observation.numpy())
            assert infos == [{}] * 8
    for b, info in enumerate(infos):
        np.testing.assert_array_equal(info["terminal_observation"], step.observation[b].numpy())
        assert info["TimeLimit.truncated"] is False and info["episode"]["l"] == 3
        assert info["episode"]["r"] == pytest.approx(float(total[b]))
    np.testing.assert_array_equal(observation, world.reset().numpy())  # the next episodes began within the step
    assert env.mean_return == pytest.approx(float(total.mean()))


def test_without_autoreset_the_world_is_left_where_it_ended() -> None:
    env = SB3VecEnv(small_world(learning=True), autoreset=False)
    env.reset()
    for _ in range(3):
        observation, *_, infos = env.step(np.zeros((8, 2), np.float32))
    np.testing.assert_array_equal(observation[0], infos[0]["terminal_observation"])
    assert float(env.world.loss().detach()) > 0  # perception can learn from what was played


def test_a_seed_starts_the_pass_afresh() -> None:
    env = SB3VecEnv(small_world())
    seen = []
    for seed in (5, 5, 6):
        env.seed(seed)
        env.reset()
        seen.append(env.world.examples.tolist())  # type: ignore[attr-defined]
    assert seen[0] == seen[1] != seen[2]


def test_rows_share_one_world() -> None:
    env = SB3VecEnv(small_world())
    assert env.get_attr("render_mode") == [None] * 8 and env.get_attr("num_envs", [0, 3]) == [8, 8]
    assert env.env_is_wrapped(object) == [False] * 8 and env.get_images() == [None] * 8
    for mistake in (lambda: env.set_attr("x", 1), lambda: env.env_method("reset")):
        with pytest.raises(NotImplementedError, match="the rows share one world"):
            mistake()


def test_plain_ppo_learns_a_probe_through_it() -> None:
    model = PPO(
        "MlpPolicy", SB3VecEnv(ProbeWorld("cue", seed=0)), n_steps=8, batch_size=128, learning_rate=3e-3, seed=0, device="cpu"
    )
    model.learn(40_000)
    world = ProbeWorld("cue", seed=1)
    action, _ = model.predict(world.reset().numpy(), deterministic=True)
    reward = world.step(torch.from_numpy(action)).reward
    assert float(reward.mean()) > 0.9  # the blind best is 0.5
