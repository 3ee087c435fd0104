"""Algorithms of stable-baselines3 as agents: settings, resuming, mistakes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3 import A2C, PPO

from hardattn import plugins, results
from hardattn.agents.base import collect
from hardattn.agents.sb3 import config_of, wrap
from hardattn.envs.errors import UsageError
from hardattn.experiment import build
from hardattn.listing import field_docs
from hardattn.testing import check_agent, small_world
from hardattn.train import train

SMALL = ["episodes=64", "train.batch_size=16", "evaluations=2", "num_glimpses=2", "core_width=32", "glimpse_width=32"]


@pytest.mark.parametrize("name", ["sb3:A2C", "sb3:PPO", "sb3:SAC"])
def test_they_keep_the_contract(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardattn.testing.POLICY_PROBES", ())  # learning is tested once, in tests/envs/test_sb3_env.py
    findings = check_agent(name)
    assert not [finding for finding in findings if not finding.passed]


def test_keyword_arguments_are_settings_with_sentences() -> None:
    config: Any = config_of(PPO)
    assert config().n_epochs == 10 and config().batch_size is None and not hasattr(config(), "n_steps")
    assert field_docs(config)["gamma"] == "Discount factor" and "standard deviation" in field_docs(config)["std"]
    setup = build("ram-mnist", "sb3:PPO", sets=["n_epochs=3", "agent.learning_rate=1e-3", "net_arch=32,16", "std=0.1"])
    assert setup.agent_config.n_epochs == 3 and setup.agent_config.std == 0.1
    world = small_world()
    agent = plugins.make_agent("sb3:PPO", world, config=setup.agent_config)
    agent.update(world)
    assert agent.model.n_epochs == 3 and agent.model.n_steps == world.horizon and agent.model.batch_size == 64
    assert [layer.out_features for layer in agent.model.policy.mlp_extractor.policy_net if hasattr(layer, "out_features")] == [
        32,
        16,
    ]
    with pytest.raises(UsageError, match="n_epoch: no setting has this name; did you mean 'n_epochs'"):
        build("ram-mnist", "sb3:PPO", sets=["n_epoch=3"])


def test_a_class_of_its_style_is_an_agent_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_style.py").write_text("from stable_baselines3 import A2C\nclass Mine(A2C):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    for name in ("my_style:Mine", "sb3:my_style.Mine"):
        assert plugins.agent_class(name).algorithm.__name__ == "Mine"
    assert wrap(A2C) is plugins.agent_class("sb3:stable_baselines3.A2C")
    with pytest.raises(UsageError, match=r"no algorithm of stable-baselines3 is called 'POP'; did you mean 'PPO'"):
        plugins.agent_class("sb3:POP")


@pytest.mark.parametrize("name", ["sb3:A2C", "sb3:SAC"])
def test_a_run_resumes_to_the_bit(name: str, tmp_path: Path) -> None:
    sets = [*SMALL, "learning_starts=10"] if name == "sb3:SAC" else SMALL
    setup = build("ram-mnist", name, sets=sets, device="cpu")
    whole = train(setup, tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.episodes == 48:
            raise Stop

    with pytest.raises(Stop):
        train(setup, tmp_path / "part", watch=stop)
    resumed = train(setup, tmp_path / "part", resume=True)
    assert resumed["perception_sha256"] == whole["perception_sha256"] and resumed["protocols"] == whole["protocols"]
    final = [results.read_state(tmp_path / part / results.CHECKPOINT)["agent"]["policy"] for part in ("whole", "part")]
    assert all(torch.equal(final[0][key], final[1][key]) for key in final[0])


def test_global_random_states_are_left_alone() -> None:
    import numpy as np

    world = small_world()
    agent = plugins.make_agent("sb3:A2C", world)
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(1)
    np.random.seed(1)
    agent.update(world)
    collect(agent, world)
    assert torch.equal(torch.rand(3), expected[0]) and (np.random.rand(3) == expected[1]).all()


def test_settings_that_the_algorithm_refuses_are_a_users_mistake() -> None:
    config: Any = plugins.agent_class("sb3:SAC").Config  # type: ignore[attr-defined]
    world = small_world()
    with pytest.raises(UsageError, match=r"sb3:DQN refuses these settings or spaces: .*Discrete"):
        plugins.make_agent("sb3:DQN", world)
    with pytest.raises(UsageError, match=r"sb3:PPO: std=-1\.0, wanted more than 0"):
        plugins.make_agent("sb3:PPO", world, config=plugins.agent_class("sb3:PPO").Config(std=-1.0))
    read = build("ram-mnist", "sb3:PPO", sets=["clip_range_vf=none", "target_kl=0.1"]).agent_config
    assert read.clip_range_vf is None and read.target_kl == 0.1
    agent = plugins.make_agent("sb3:SAC", world, config=config(train_freq=2))
    with pytest.raises(UsageError, match="train_freq=2: wanted a divisor of the horizon, 3"):
        agent.update(world)
