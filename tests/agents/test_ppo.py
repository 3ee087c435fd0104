"""PPO as a whole: what an update changes, and the special cases that it contains."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from gymnasium import spaces

from hardattn.agents.base import collect
from hardattn.agents.networks import StateCritic
from hardattn.agents.ppo import PPO, PPOConfig
from hardattn.envs.catch import draw_games
from hardattn.envs.catch_world import CatchWorld
from hardattn.envs.errors import UsageError
from hardattn.envs.tasks import CatchConfig, get_task
from hardattn.testing import small_world


def new_agent(world: Any, **settings: Any) -> PPO:
    return PPO(world.observation_space, world.action_space, config=PPOConfig(hidden=8, **settings), seed=1)


def test_one_epoch_of_one_minibatch_is_a2c() -> None:
    """At ratio 1 nothing is clipped: any clip gives the same step, and the probabilities have not moved when it is taken."""
    weights = []
    for clip in (0.01, 10.0):
        world = small_world()
        agent = new_agent(world, epochs=1, minibatches=1, clip=clip)
        assert agent.update(world)["divergence"] == 0
        weights.append(torch.cat([weight.flatten() for weight in agent.policy.parameters()]))
    assert torch.equal(*weights)


def test_a_tight_clip_holds_the_policy_back() -> None:
    moved = []
    for clip in (0.001, 10.0):
        world = small_world(batch_size=32)
        agent = new_agent(world, epochs=8, minibatches=1, clip=clip, learning_rate=1e-2, clip_norm=100.0)
        moved.append(agent.update(world)["divergence"])
    assert 0 < moved[0] < 0.5 * moved[1]


def test_every_look_is_gone_over_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    world = small_world()
    agent = new_agent(world, epochs=3, minibatches=5)  # 24 looks in 5 parts
    step = agent._step
    monkeypatch.setattr(agent, "_step", lambda seen, *rest: (sizes.append(len(seen)), step(seen, *rest))[1])
    agent.update(world)
    assert sizes == [5, 5, 5, 5, 4] * 3


def test_it_takes_discrete_choices_and_their_entropy() -> None:
    world = small_world()
    space = spaces.Discrete(3)
    agent = PPO(world.observation_space, space, config=PPOConfig(hidden=8, entropy_weight=1.0), seed=0)
    observation = world.reset()
    seen = observation.repeat(4, 1)
    action, _ = agent.act(seen, None)
    with torch.no_grad():
        agent.policy.net[-1].weight.mul_(30)  # type: ignore[operator]
        before = agent.policy.entropy(seen).mean()
        old = agent.policy.log_prob(seen, action)
    for _ in range(50):
        agent._step(seen, agent.policy.log_prob(seen, action), old, *torch.zeros(3, len(seen)))
    assert agent.policy.entropy(seen).mean() > before


def test_a_critic_of_the_state_learns_what_a_game_is_worth() -> None:
    game = CatchConfig(size=12)
    world = CatchWorld(replace(get_task("catch"), catch=game, num_glimpses=11), draw_games(game, 0, 4096), batch_size=512)
    agent = new_agent(world, critic="state", learning_rate=3e-2)
    assert isinstance(agent.critic, StateCritic) and not agent.critic(torch.rand(5, 24 + 11)).any()
    for _ in range(12):
        agent.update(world)
    last = torch.zeros(3, 24 + 11)
    last[:, -1] = 1  # the last move is still to come
    last[range(3), [12 + 0, 12 + 1, 12 + 6]] = 1  # staying catches; staying catches, too; nothing does
    here, near, far = agent.critic(last).tolist()
    assert min(here, near) > 0.4 and abs(far) < 0.1


def test_a_critic_of_the_state_wants_a_world_that_tells_one() -> None:
    with pytest.raises(UsageError, match="critic=state, but this task's world tells no state; wanted critic=features"):
        new_agent(small_world(), critic="state")


def test_perception_gets_no_gradient_from_it() -> None:
    world = small_world(learning=True)
    new_agent(world).update(world)
    assert all(weight.grad is None for weight in world.network.parameters())


def test_mistakes_are_named() -> None:
    for settings, says in (({"clip": 0}, "clip=0: wanted more than 0"), ({"decay": 1.5}, "decay=1.5: wanted 0 to 1")):
        with pytest.raises(UsageError, match=says):
            PPOConfig(**settings)  # type: ignore[arg-type]


def test_greedy_is_the_mean() -> None:
    world = small_world()
    agent = new_agent(world)
    rollout = collect(agent, world, greedy=True)
    torch.testing.assert_close(rollout.actions, agent.policy.mean(rollout.observations).detach())
