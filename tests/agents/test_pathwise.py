"""The pathwise gradient against finite differences, and what an update must leave alone."""

from typing import Any

import pytest
import torch
from gymnasium import spaces

from hardattn.agents.pathwise import Pathwise, PathwiseConfig
from hardattn.envs.errors import UsageError
from hardattn.testing import small_world


def new_agent(world: Any, **settings: Any) -> Pathwise:
    config = PathwiseConfig(**{"hidden": 8, "clip_norm": 1e9, **settings})
    return Pathwise(world.observation_space, world.action_space, config=config, seed=1)


def sharp_world(**changes: Any) -> Any:
    """A world whose untrained perception answers strongly to what it sees, so that float32 can measure the slope."""
    world = small_world(batch_size=32, attention="soft", **changes)
    with torch.no_grad():
        for weight in world.network.parameters():
            weight.mul_(4)
    return world


def loss_at(agent: Pathwise, world: Any) -> float:
    """The loss of the batch that comes first after reseeding, with looks at the mean."""
    world.reseed(7)
    observation = world.reset()
    for _ in range(world.horizon):
        observation = world.step(agent.policy.mean(observation)).observation
    return float(world.loss().detach())


def test_the_gradient_is_that_of_finite_differences() -> None:
    world = sharp_world()
    agent = new_agent(world, std=0.0, learning_rate=1e-30)  # a step too small to move anything
    world.reseed(7)
    agent.update(world)
    parameters = list(agent.policy.parameters())
    gradient = [weight.grad.clone() for weight in parameters if weight.grad is not None]
    length = float(torch.stack([part.square().sum() for part in gradient]).sum().sqrt())
    assert len(gradient) == len(parameters) and length > 1e-3

    def shifted(by: float) -> float:
        with torch.no_grad():
            for weight, part in zip(parameters, gradient, strict=True):
                weight.add_(part, alpha=by / length)
        found = loss_at(agent, world)
        with torch.no_grad():
            for weight, part in zip(parameters, gradient, strict=True):
                weight.sub_(part, alpha=by / length)
        return found

    step = 3e-4  # a bilinear retina bends where a patch crosses a pixel: stay close
    assert (shifted(step) - shifted(-step)) / (2 * step) == pytest.approx(length, rel=0.03)


def test_a_step_lowers_the_loss_of_its_batch_and_its_opposite_raises_it() -> None:
    changes = []
    for sign in (1, -1):
        world = sharp_world()
        agent = new_agent(world, std=0.0, learning_rate=1e-3)
        before = loss_at(agent, world)
        for group in agent.optimizer.param_groups:
            group["maximize"] = sign < 0
        world.reseed(7)
        agent.update(world)
        changes.append(loss_at(agent, world) - before)
    assert changes[0] < 0 < changes[1]


def test_perception_can_learn_from_the_same_episodes() -> None:
    """Its gradient is that of an agent which did not learn: the agent's step must not reach back into the graph."""
    found = []
    for learning_rate in (1e-30, 0.5):
        world = small_world(attention="soft", learning=True)
        new_agent(world, learning_rate=learning_rate).update(world)
        assert all(weight.grad is None for weight in world.network.parameters())
        world.loss().backward()
        found.append(torch.cat([weight.grad.flatten() for weight in world.network.parameters() if weight.grad is not None]))
    assert torch.equal(*found) and found[0].abs().sum() > 0


def test_mistakes_are_named() -> None:
    world = small_world()
    with pytest.raises(ValueError, match='got a world with attention="hard", wanted attention="soft"'):
        new_agent(world).update(world)
    with pytest.raises(UsageError, match=r"action space Discrete\(4\), wanted a Box"):
        Pathwise(world.observation_space, spaces.Discrete(4))
