"""The policy-gradient estimate against exact enumeration of a two-look world, and what must and must not change in an update."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from hardattn.agents import losses, networks
from hardattn.agents.base import collect
from hardattn.agents.reinforce import Reinforce, ReinforceConfig
from hardattn.envs.errors import UsageError
from hardattn.envs.products import layer
from hardattn.envs.world import Counts, Step
from hardattn.testing import small_world

PAYS = torch.tensor([[0.0, 1.0], [7.0, -2.0]])  # by first and second choice; the second should depend on the first


class TwoLooks:
    """Two choices out of two, one after the other; the pair's pay comes at the end, half of it also for the first choice alone."""

    observation_space = spaces.Box(0, 1, (4,), np.float32)
    action_space = spaces.Discrete(2)
    horizon, device, progress = 2, torch.device("cpu"), 0.0
    counts = Counts()

    def __init__(self, batch_size: int, repeats: int = 1) -> None:
        self.batch_size, self.repeats = batch_size, repeats

    def reset(self, indices: Tensor | None = None) -> Tensor:
        self.actions: list[Tensor] = []
        return self.observe()

    def observe(self) -> Tensor:
        observation = torch.zeros(self.batch_size, 4)
        observation[:, min(len(self.actions), 1)] = 1
        if self.actions:
            observation[:, 2:] = torch.nn.functional.one_hot(self.actions[0], 2)
        return observation

    def step(self, action: Tensor) -> Step:
        self.actions.append(action)
        last = len(self.actions) == 2
        reward = PAYS[self.actions[0], action] if last else 0.5 * action.float()
        return Step(self.observe(), reward, torch.full((self.batch_size,), last), torch.zeros(self.batch_size, 2))

    def loss(self) -> Tensor:
        return torch.zeros(())


def new_agent(**settings: Any) -> Reinforce:
    return Reinforce(
        TwoLooks.observation_space, TwoLooks.action_space, config=ReinforceConfig(hidden=8, standardise=False, **settings), seed=1
    )


def exact_gradient(agent: Reinforce) -> Tensor:
    """Minus the gradient of the expected return, by summing over the four paths."""
    value = torch.zeros(())
    for first, second in itertools.product(range(2), repeat=2):
        world = TwoLooks(1)
        one, log_prob, pay = world.reset(), torch.zeros(1), torch.zeros(1)
        for choice in (first, second):
            action = torch.tensor([choice])
            log_prob = log_prob + agent.policy.log_prob(one, action)
            step = world.step(action)
            one, pay = step.observation, pay + step.reward
        value = value + (log_prob.exp() * pay).sum()
    return flat(torch.autograd.grad(-value, list(agent.policy.parameters())))


def estimate(agent: Reinforce, repeats: int = 1, sign: float = 1.0) -> Tensor:
    world = TwoLooks(200_000, repeats)
    rollout = collect(agent, world)
    returns = losses.discounted_returns(rollout.rewards, 1.0)
    advantages = returns - agent._expected(returns, agent.critic(rollout.observations), repeats)
    return flat(
        torch.autograd.grad(
            agent.policy_loss(rollout.observations, rollout.actions, sign * advantages), list(agent.policy.parameters())
        )
    )


def flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


def off(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("baseline", "repeats"), [("none", 1), ("critic", 1), ("leave-one-out", 4)])
def test_the_estimate_is_the_exact_gradient_under_every_baseline(baseline: str, repeats: int) -> None:
    agent = new_agent(baseline=baseline)
    with torch.no_grad():
        agent.critic.weight.copy_(torch.tensor([0.3, -0.2, 0.8, -0.5]))  # any function of the observation leaves the mean alone
    assert off(estimate(agent, repeats), exact_gradient(agent)) < 0.03


def test_negative_controls_are_far_off() -> None:
    agent = new_agent(baseline="none")
    wanted = exact_gradient(agent)
    assert off(estimate(agent, sign=-1.0), wanted) > 1.5
    rollout = collect(agent, TwoLooks(200_000))
    own_reward_only = agent.policy_loss(
        rollout.observations, rollout.actions, rollout.rewards
    )  # forgets what the first look leads to
    assert off(flat(torch.autograd.grad(own_reward_only, list(agent.policy.parameters()))), wanted) > 0.2


def test_a_baseline_lowers_the_variance() -> None:
    def spread(baseline: str, repeats: int) -> float:
        agent = new_agent(baseline=baseline)
        estimates = []
        for _ in range(200):
            world = TwoLooks(64, repeats)
            rollout = collect(agent, world)
            returns = losses.discounted_returns(rollout.rewards, 1.0) + 50  # a constant that a baseline must take away
            advantages = returns - agent._expected(returns, agent.critic(rollout.observations), repeats)
            estimates.append(
                flat(
                    torch.autograd.grad(
                        agent.policy_loss(rollout.observations, rollout.actions, advantages), list(agent.policy.parameters())
                    )
                )
            )
        return float(torch.stack(estimates).var(dim=0).sum())

    assert spread("leave-one-out", 4) < 0.1 * spread("none", 4)


def test_an_update_moves_the_policy_and_without_advantage_does_not() -> None:
    agent = Reinforce(small_world().observation_space, small_world().action_space, seed=0)
    before = [weight.clone() for weight in agent.policy.parameters()]
    agent.update(small_world())
    assert all(not torch.equal(old, new) for old, new in zip(before, agent.policy.parameters(), strict=True))
    rollout = collect(agent, small_world())
    nothing = agent.policy_loss(rollout.observations, rollout.actions, torch.zeros_like(rollout.rewards))
    assert not any(gradient.any() for gradient in torch.autograd.grad(nothing, list(agent.policy.parameters())))


def test_a_look_that_earned_more_becomes_likelier() -> None:
    agent = new_agent(learning_rate=1e-2)
    observation = torch.tensor([[[1.0, 0, 0, 0]], [[1.0, 0, 0, 0]]])
    before = agent.policy.log_prob(observation[0], torch.tensor([1])).detach()
    agent.optimizer.zero_grad()
    agent.policy_loss(observation, torch.tensor([[0], [1]]), torch.tensor([[-1.0], [1.0]])).backward()
    agent.optimizer.step()
    assert agent.policy.log_prob(observation[0], torch.tensor([1])) > before


def test_the_learning_rate_follows_the_budget() -> None:
    agent, world = new_agent(learning_rate=1e-2), TwoLooks(16)
    for progress, rate in ((0.0, 1e-2), (0.5, 5e-3), (1.0, 0.0)):
        world.progress = progress
        agent.update(world)
        assert agent.optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="std=0: wanted more than 0"):
        ReinforceConfig(std=0)
    with pytest.raises(UsageError, match="discount=2"):
        ReinforceConfig(discount=2)


def test_it_learns_from_observations_in_bf16() -> None:
    world = small_world(precision="bf16", observes_bf16=True)
    agent = Reinforce(world.observation_space, world.action_space)
    assert agent.takes_bf16
    assert not Reinforce(world.observation_space, world.action_space, config=ReinforceConfig(policy="lstm")).takes_bf16
    before = [weight.detach().clone() for weight in agent.parameters]
    rollout = collect(agent, world)
    assert rollout.observations.dtype == torch.bfloat16 and rollout.actions.dtype == torch.float32
    told = agent.update(world)
    assert all(bool(number.isfinite()) for number in told.values())
    changed = [not torch.equal(old, new) for old, new in zip(before, agent.parameters, strict=True)]
    assert sum(changed) >= len(changed) - 1  # a critic's bias may be right as it is


class Twice(Reinforce):
    """Shows its policy something else, before it shows it what there is."""

    def act(self, observation: Tensor, memory: Any, greedy: bool = False) -> tuple[Tensor, Any]:
        super().act(observation * 0, memory, greedy)
        return super().act(observation, memory, greedy)


class Otherwise(Reinforce):
    """Has a policy of its own."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.policy.__class__ = type("Policy", (networks.GaussianPolicy,), {})


def test_what_chose_a_look_is_kept_for_its_gradient_unless_a_subclass_acts_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[bool] = []

    def noting(*arguments: Any, **settings: Any) -> Tensor:
        known.append(settings["known"] is not None)
        return layer(*arguments, **settings)

    monkeypatch.setattr(networks, "layer", noting)
    world = small_world(precision="bf16", observes_bf16=True)
    for kind, kept in ((Reinforce, True), (Twice, False), (Otherwise, False)):
        known.clear()
        kind(world.observation_space, world.action_space).update(world)
        assert known == [kept, kept]
