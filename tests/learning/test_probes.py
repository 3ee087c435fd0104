"""Learners solve probe worlds whose best value is known; broken ones must not."""

import pytest
import torch
from torch import Tensor

from hardattn.agents import losses
from hardattn.agents.base import collect
from hardattn.agents.pathwise import Pathwise, PathwiseConfig
from hardattn.agents.ppo import PPO, PPOConfig
from hardattn.agents.recurrent import Memory
from hardattn.agents.reinforce import Reinforce, ReinforceConfig
from hardattn.envs.probes import PROBES, ProbeWorld
from hardattn.testing import POLICY_PROBES, probe_return, solved_at


def make(world: ProbeWorld, **settings: object) -> Reinforce:
    return Reinforce(world.observation_space, world.action_space, config=ReinforceConfig(learning_rate=5e-3, **settings))  # type: ignore[arg-type]


class Flipped(Reinforce):
    """Runs from reward."""

    def policy_loss(self, seen: Tensor, actions: Tensor, advantages: Tensor) -> Tensor:
        return super().policy_loss(seen, actions, -advantages)


class Blind(Reinforce):
    """Never sees the observation."""

    def act(self, observation: Tensor, memory: Memory, greedy: bool = False) -> tuple[Tensor, Memory]:
        return super().act(torch.zeros_like(observation), memory, greedy)

    def policy_loss(self, seen: Tensor, actions: Tensor, advantages: Tensor) -> Tensor:
        return super().policy_loss(seen * 0, actions, advantages)


def broken(kind: type[Reinforce]) -> object:
    return lambda world: kind(world.observation_space, world.action_space, config=ReinforceConfig(learning_rate=5e-3))


def test_reinforce_solves_every_probe() -> None:
    for probe in POLICY_PROBES:
        for baseline in ("critic", "leave-one-out"):
            reached = probe_return(lambda world, baseline=baseline: make(world, baseline=baseline), probe)
            assert reached >= solved_at(probe), (probe, baseline)


def test_with_the_advantage_flipped_it_does_not() -> None:
    for probe in POLICY_PROBES:
        assert probe_return(broken(Flipped), probe) < 0.5 * PROBES[probe].best, probe


def test_without_the_observation_it_gets_the_blind_best_at_most() -> None:
    assert probe_return(broken(Blind), "left") >= solved_at("left")
    for probe in ("cue", "late"):
        assert probe_return(broken(Blind), probe) < solved_at(probe), probe


def test_without_the_future_the_late_reward_teaches_nothing() -> None:
    assert probe_return(lambda world: make(world, discount=0.0, standardise=False), "late") < solved_at("late")


def test_ppo_and_its_one_epoch_case_solve_every_probe() -> None:
    for probe in POLICY_PROBES:
        for epochs, minibatches in ((4, 4), (1, 1)):
            config = PPOConfig(learning_rate=5e-3, epochs=epochs, minibatches=minibatches)
            updates = 400 // epochs  # about as many gradient steps
            make_ppo = lambda world, c=config: PPO(world.observation_space, world.action_space, config=c)  # noqa: E731
            assert probe_return(make_ppo, probe, updates) >= solved_at(probe), (probe, epochs)


def test_ppo_with_the_advantage_flipped_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = losses.generalised_advantages
    monkeypatch.setattr(losses, "generalised_advantages", lambda *a: -honest(*a))
    config = PPOConfig(learning_rate=5e-3)
    for probe in POLICY_PROBES:
        reached = probe_return(lambda world: PPO(world.observation_space, world.action_space, config=config), probe, 100)
        assert reached < 0.5 * PROBES[probe].best, probe


def test_the_pathwise_agent_solves_every_probe_and_uphill_it_does_not() -> None:
    for probe in POLICY_PROBES:
        assert probe_return("pathwise", probe) >= solved_at(probe), probe
        world = ProbeWorld(probe, batch_size=64, attention="soft")
        agent = Pathwise(world.observation_space, world.action_space, config=PathwiseConfig(learning_rate=5e-3))
        agent.optimizer.param_groups[0]["maximize"] = True
        for _ in range(400):
            agent.update(world)
        rewards = collect(agent, ProbeWorld(probe, batch_size=64), greedy=True).rewards
        assert float(rewards.sum(dim=1).mean()) < solved_at(probe), probe


def test_the_critic_learns_a_constant_return() -> None:
    world = ProbeWorld("constant")
    agent = make(world, baseline="critic")
    for _ in range(400):
        agent.update(world)
    values = agent.critic(world.reset())
    torch.testing.assert_close(values, torch.ones_like(values), atol=0.05, rtol=0)
