"""TorchRL takes the vector environment through its own wrapper."""

import gymnasium as gym
import pytest
import torch

import hardattn  # noqa: F401  # registers the ids


def test_its_gym_wrapper_rolls_the_vector_environment_out() -> None:
    torchrl = pytest.importorskip("torchrl.envs")
    rows = gym.make_vec("hardattn/RamMnist-v0", num_envs=4, device="cpu", split="validation")
    env = torchrl.GymWrapper(rows, convert_actions_to_numpy=False)
    env.set_seed(0)
    rollout = env.rollout(6, break_when_any_done=False)
    assert rollout.batch_size == torch.Size([4, 6])
    done = rollout["next", "done"].squeeze(-1)
    assert done[:, -1].all() and not done[:, :-1].any() and not rollout["next", "truncated"].any()
