"""The soft twin: the policy of REINFORCE, taught by the gradient of the world's loss through a bilinear retina.

Where a patch is cut by interpolation, the loss has a derivative with respect to where it was cut. So nothing need be sampled to
learn from: play a batch of episodes with their graph, differentiate, step (Jaderberg et al. 2015 differentiate a crop this way).
The world must be built with attention="soft"; the study does so for every agent that says so.
"""

from dataclasses import dataclass
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.func import functional_call

from hardattn.agents import losses
from hardattn.agents.networks import START, GaussianPolicy
from hardattn.agents.rates import set_rate
from hardattn.envs.errors import UsageError, at_least, more_than_zero
from hardattn.envs.shuffle import restore
from hardattn.envs.world import World


@dataclass(frozen=True)
class PathwiseConfig:
    """Settings of the pathwise agent."""

    std: float = 0.1
    """Standard deviation of a look around the policy's mean, in units of the action space; 0 always looks at the mean."""
    learning_rate: float = 1e-3
    """Adam's step size at the start; it falls to 0 along a cosine over the training budget."""
    hidden: int = 128
    """Units in the hidden layer of the policy."""
    start: float = START
    """Gain of the policy's last layer at first; 0 begins with the middle of the action space everywhere."""
    static: bool = False
    """Choose the same for every observation: the policy sees zeros."""
    clip_norm: float = 1.0
    """The gradient's norm is clipped to this."""

    def __post_init__(self) -> None:
        at_least(self, 0, "std")
        more_than_zero(self, "learning_rate", "hidden", "clip_norm")


class Pathwise:
    """Chooses looks by a policy of the observation and learns it by differentiating through the looks."""

    Config = PathwiseConfig
    attention = "soft"
    recordable = True

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Space[Any],
        *,
        config: PathwiseConfig | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        if not isinstance(action_space, spaces.Box):
            raise UsageError(f"pathwise: got the action space {action_space}, wanted a Box: a choice among few has no derivative")
        self.config = config or PathwiseConfig()
        init = torch.Generator().manual_seed(seed)
        self.generator = torch.Generator(device).manual_seed(seed)
        policy = GaussianPolicy(
            int(observation_space.shape[0]), action_space, self.config.hidden, self.config.std or 1.0, init, self.config.start
        )
        self.policy = policy.to(device)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=self.config.learning_rate, fused=True)

    def begin(self, batch_size: int) -> None:
        """Nothing to remember: the world's observation carries the history."""

    def act(self, observation: Tensor, memory: None, greedy: bool = False) -> tuple[Tensor, None]:
        """The policy's mean, or a draw around it."""
        with torch.no_grad():
            mean = self.policy.mean(self._seen(observation))
        return mean if greedy else self._around(mean), None

    def update(self, world: World) -> dict[str, Tensor]:
        """Play one batch of episodes with its graph and take one gradient step. ValueError if the world keeps no graph."""
        if world.attention != "soft":
            raise ValueError(f'pathwise: got a world with attention="{world.attention}", wanted attention="soft"')
        # Copies, because perception may go back through this graph after the step has changed the originals in place.
        weights = {name: weight.detach().clone().requires_grad_() for name, weight in self.policy.named_parameters()}
        observation, rewards = world.reset(), []
        for _ in range(world.horizon):
            step = world.step(self._around(functional_call(self.policy, weights, self._seen(observation))))
            observation = step.observation
            rewards.append(step.reward)
        gradients = torch.autograd.grad(world.loss(), list(weights.values()), retain_graph=True)
        for parameter, gradient in zip(self.policy.parameters(), gradients, strict=True):
            parameter.grad = gradient
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.clip_norm)
        self.schedule(world.progress)
        self.optimizer.step()
        return {"policy_gradient_norm": norm.detach(), "return": torch.stack(rewards).sum(dim=0).mean().detach()}

    def _seen(self, observation: Tensor) -> Tensor:
        return torch.zeros_like(observation) if self.config.static else observation

    def _around(self, mean: Tensor) -> Tensor:
        """A draw around the mean [B, A] that keeps the mean's graph."""
        return mean + self.config.std * torch.randn(mean.shape, generator=self.generator, device=mean.device)

    def schedule(self, progress: float) -> None:
        """Set the step size for this share of the budget spent, 0 to 1. `update()` does so, but not where it is replayed."""
        set_rate(self.optimizer, self.config.learning_rate * losses.cosine(progress))

    def state_dict(self) -> dict[str, Any]:
        """Policy, optimiser and random generator."""
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`; with the policy alone it can act but not learn on."""
        self.policy.load_state_dict(state["policy"])
        if "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])
            restore(self.generator, state["generator"])
