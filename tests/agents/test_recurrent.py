"""The LSTM policy: its memory, its context, and how reinforce and ppo learn through it."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from hardattn.agents.base import collect
from hardattn.agents.ppo import PPO, PPOConfig
from hardattn.agents.recurrent import Memoryless, Recurrent
from hardattn.agents.reinforce import Reinforce, ReinforceConfig
from hardattn.envs.observation import Observation
from hardattn.envs.world import Counts, Step
from hardattn.testing import small_world

SPACE = Observation({"core": (5,), "context": (1, 6, 6)})


def new_body(space: spaces.Box = SPACE) -> Recurrent:
    return Recurrent(space, 8, torch.Generator().manual_seed(0))


def test_an_observation_splits_into_its_parts() -> None:
    observation = torch.arange(2.0 * 3 * 41).view(2, 3, 41)
    parts = SPACE.split(observation)
    assert SPACE.shape == (41,) and list(parts) == ["core", "context"]
    assert parts["core"].shape == (2, 3, 5) and parts["context"].shape == (2, 3, 1, 6, 6)
    assert torch.equal(parts["context"].flatten(2), observation[..., 5:])


def test_step_by_step_is_as_unrolled() -> None:
    body, observations = new_body(), torch.randn(3, 4, 41)
    observations[..., 5:] = observations[:, :1, 5:]  # the context does not change in an episode
    memory, steps = None, []
    for t in range(4):
        features, memory = body.step(observations[:, t], memory)
        steps.append(features)
    torch.testing.assert_close(torch.stack(steps, dim=1), body.unroll(observations))


def test_memory_matters_within_an_episode_and_is_gone_in_the_next() -> None:
    body = new_body()
    observation = torch.randn(3, 41)
    first, memory = body.step(observation, None)
    second, _ = body.step(observation, memory)
    assert not torch.allclose(first, second)  # the negative control: with the memory kept, the same observation reads otherwise
    again, _ = body.step(observation, None)
    assert torch.equal(first, again)
    agent = Reinforce(SPACE, spaces.Box(-1, 1, (2,)), config=ReinforceConfig(policy="lstm", lstm_width=8), seed=0)
    before, memory = agent.act(observation, agent.begin(3), greedy=True)
    assert torch.equal(before, agent.act(observation, agent.begin(3), greedy=True)[0])
    assert not torch.allclose(before, agent.act(observation, memory, greedy=True)[0])


def test_the_context_makes_the_first_state_and_nothing_else() -> None:
    body = new_body()
    observation = torch.randn(2, 41)
    other = observation.clone()
    other[:, 5:] = torch.randn(2, 36)
    assert not torch.allclose(body.step(observation, None)[0], body.step(other, None)[0])
    memory = body.step(observation, None)[1]
    assert torch.equal(body.step(observation, memory)[0], body.step(other, memory)[0])


def test_without_a_context_it_starts_from_zeros() -> None:
    plain = Recurrent(spaces.Box(-1, 1, (5,), np.float32), 8, torch.Generator().manual_seed(0))
    assert plain.context is None and plain.inputs == 5
    zeros = (torch.zeros(2, 8), torch.zeros(2, 8))
    observation = torch.randn(2, 5)
    torch.testing.assert_close(plain.step(observation, None)[0], plain.step(observation, zeros)[0])
    assert Memoryless(SPACE).unroll(observation) is observation


def test_first_weights_come_from_the_generator_alone() -> None:
    torch.manual_seed(1)
    one = new_body().state_dict()
    torch.manual_seed(2)
    assert all(torch.equal(weight, new_body().state_dict()[name]) for name, weight in one.items())


class Recall:
    """Shown a sign in the first of three steps, say it in the last one: unlearnable without memory. The best return is 1."""

    observation_space = spaces.Box(-1, 1, (4,), np.float32)
    action_space = spaces.Discrete(2)
    horizon, device, progress, batch_size, repeats = 3, torch.device("cpu"), 0.0, 256, 1
    attention = "hard"
    counts = Counts()

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def reset(self, indices: Tensor | None = None) -> Tensor:
        self.sign, self.t = torch.randint(2, (self.batch_size,), generator=self.generator), 0
        return self._observe()

    def _observe(self) -> Tensor:
        observation = torch.zeros(self.batch_size, 4)
        observation[:, 1 + min(self.t, 2)] = 1
        if self.t == 0:
            observation[:, 0] = 2.0 * self.sign - 1
        return observation

    def step(self, action: Tensor) -> Step:
        self.t += 1
        last = self.t == 3
        reward = (action == self.sign).float() if last else torch.zeros(self.batch_size)
        return Step(self._observe(), reward, torch.full((self.batch_size,), last), torch.zeros(self.batch_size, 2))

    def loss(self) -> Tensor:
        return torch.zeros(())


def recalled(agent: Any) -> float:
    world = Recall()
    for update in range(60):
        world.progress = update / 60
        agent.update(world)
    return float(collect(agent, world, greedy=True).rewards.sum(dim=1).mean())


@pytest.mark.parametrize("kind", ["reinforce", "ppo"])
def test_an_lstm_learns_to_remember_and_a_plain_policy_cannot(kind: str) -> None:
    def agent(policy: str) -> Any:
        settings = {"policy": policy, "lstm_width": 16, "hidden": 16, "learning_rate": 2e-2}
        if kind == "ppo":
            return PPO(Recall.observation_space, Recall.action_space, config=PPOConfig(**settings), seed=0)  # type: ignore[arg-type]
        return Reinforce(Recall.observation_space, Recall.action_space, config=ReinforceConfig(**settings), seed=0)  # type: ignore[arg-type]

    assert recalled(agent("lstm")) > 0.95
    assert recalled(agent("mlp")) < 0.65  # the negative control


def test_the_policy_gradient_reaches_the_context_network() -> None:
    world = small_world(task={"context": 6})
    assert isinstance(world.observation_space, Observation)
    agent = Reinforce(world.observation_space, world.action_space, config=ReinforceConfig(policy="lstm", lstm_width=8), seed=0)
    before = {name: weight.clone() for name, weight in agent.body.named_parameters()}
    agent.update(world)
    assert all(not torch.equal(before[name], weight) for name, weight in agent.body.named_parameters())


def test_ppo_goes_over_whole_episodes() -> None:
    world = small_world()
    agent = PPO(world.observation_space, world.action_space, config=PPOConfig(policy="lstm", lstm_width=8, minibatches=2), seed=0)
    shapes: list[tuple[int, ...]] = []
    step = agent._step
    agent._step = lambda seen, *rest: (shapes.append(tuple(seen.shape)), step(seen, *rest))[1]  # type: ignore[method-assign]
    report = agent.update(world)
    assert shapes == [(4, world.horizon, 8)] * 8
    assert report["divergence"] >= 0


def test_an_lstm_agent_goes_on_to_the_bit() -> None:
    def new() -> tuple[Any, Any]:
        world = small_world()
        config = ReinforceConfig(policy="lstm", lstm_width=8)
        return world, Reinforce(world.observation_space, world.action_space, config=config, seed=0)

    world, agent = new()
    agent.update(world)
    other_world, other = new()
    other.load_state_dict(agent.state_dict())
    other_world.load_state_dict(world.state_dict())
    assert agent.update(world) == other.update(other_world)
