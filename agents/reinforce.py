"""REINFORCE (Williams 1992) as in Recurrent Models of Visual Attention (Mnih et al. 2014, equation 2).

Play a batch of episodes, weigh the log-probability of each look by how much better its return was than expected, step. What was
expected comes from a critic of each step's observation, or, when an image is shown M > 1 times, from its other episodes.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from gymnasium import spaces
from torch import Tensor, nn

from hardattn.agents import losses
from hardattn.agents.base import collect
from hardattn.agents.networks import START, Critic, Policy, make_policy
from hardattn.agents.rates import set_rate
from hardattn.agents.recurrent import Memory, make_body
from hardattn.envs.errors import UsageError, more_than_zero, zero_to_one
from hardattn.envs.shuffle import restore
from hardattn.envs.world import World


@dataclass(frozen=True)
class ReinforceConfig:
    """Settings of REINFORCE."""

    std: float = 0.1
    """Standard deviation of a look around the policy's mean, in units of the action space."""
    learning_rate: float = 1e-3
    """Adam's step size for policy and critic at the start; it falls to 0 along a cosine over the training budget."""
    hidden: int = 128
    """Units in the hidden layer of the policy."""
    start: float = START
    """Gain of the policy's last layer at first; 0 begins with the middle of the action space everywhere."""
    policy: Literal["mlp", "lstm"] = "mlp"
    """What decides: a layer on the observation, or an LSTM over all observations that begins from the context, if there is one."""
    lstm_width: int = 128
    """Units of that LSTM."""
    discount: float = 1.0
    """Weight of the next step's reward against this one's, 0 to 1."""
    baseline: Literal["auto", "critic", "leave-one-out", "none"] = "auto"
    """What is expected of an episode: the critic's value of each step, the mean of the image's other episodes, or nothing; auto
    takes the other episodes when there are any."""
    standardise: bool = True
    """Bring each batch's advantages to mean 0 and standard deviation 1."""
    clip_norm: float = 1.0
    """The gradient's norm is clipped to this."""

    def __post_init__(self) -> None:
        more_than_zero(self, "std", "learning_rate", "hidden", "lstm_width", "clip_norm")
        zero_to_one(self, "discount")

    def check_population(self, repeats: int) -> None:
        """Raise UsageError for a baseline that wants other episodes of an image where there are none."""
        if self.baseline == "leave-one-out" and repeats < 2:
            raise UsageError(f"baseline=leave-one-out with repeats={repeats}: wanted 2 or more, e.g. --set repeats=4")


class Reinforce:
    """Chooses looks by a stochastic policy of the observation and learns it by policy gradient."""

    Config = ReinforceConfig
    recordable = True

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Space[Any],
        *,
        config: ReinforceConfig | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        self.config = config or ReinforceConfig()
        init = torch.Generator().manual_seed(seed)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.body = make_body(self.config.policy, observation_space, self.config.lstm_width, init).to(device)
        self.policy = make_policy(
            self.body.features, action_space, self.config.hidden, self.config.std, init, self.config.start
        ).to(device)
        self.critic = Critic(self.body.features).to(device)
        self.parameters = [*self.policy.parameters(), *self.critic.parameters(), *self.body.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.config.learning_rate, fused=True)

    @property
    def takes_bf16(self) -> bool:
        """So it does where the policy's first layer reads the observation; an LSTM works in float32."""
        return not self.body.recurrent

    def begin(self, batch_size: int) -> Memory:
        """Nothing remembered: an LSTM starts from zeros or from the context, and a plain policy needs no memory."""
        return None

    def act(self, observation: Tensor, memory: Memory, greedy: bool = False) -> tuple[Tensor, Memory]:
        """Sample the next look, or take the policy's mean if `greedy`."""
        with torch.no_grad():
            seen, memory = self.body.step(observation, memory)
            return (self.policy.mean(seen) if greedy else self.policy.sample(seen, self.generator)), memory

    def update(self, world: World) -> dict[str, Tensor]:
        """Play one batch of episodes and take one gradient step. What it tells stays on the device."""
        with self._keeping():
            rollout = collect(self, world)
            returns = losses.discounted_returns(rollout.rewards, self.config.discount)
            seen = self.body.unroll(rollout.observations)  # [B, T, F]
            values = self.critic(seen.detach())  # [B, T]; what the policy remembers is for choosing looks, not for guessing returns
            advantages = returns - self._expected(returns, values, world.repeats)
            if self.config.standardise:
                advantages = losses.standardise(advantages)
            policy_loss = self.policy_loss(seen, rollout.actions, advantages)
        value_loss = losses.value_loss(values, returns)
        self.schedule(world.progress)
        self.optimizer.zero_grad()
        (policy_loss + value_loss).backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        self.optimizer.step()
        return {
            "policy_loss": policy_loss.detach(),
            "value_loss": value_loss.detach(),
            "policy_gradient_norm": norm.detach(),
            "return": returns[:, 0].mean(),
        }

    def policy_loss(self, seen: Tensor, actions: Tensor, advantages: Tensor) -> Tensor:
        """The surrogate whose gradient is minus the policy gradient: features [B, T, F], actions [B, T, ...], advantages [B, T]."""
        return losses.policy_gradient_loss(self.policy.log_prob(seen, actions), advantages)

    def _keeping(self) -> AbstractContextManager[None]:
        """The passes that choose looks, kept for their gradient: where `act` shows the policy what `update` shows it."""
        ours = type(self).act is Reinforce.act and type(self.policy) in get_args(Policy)
        same = ours and not self.body.recurrent  # an LSTM rounds otherwise step by step
        return self.policy.net.keeping() if same else nullcontext()

    def _expected(self, returns: Tensor, values: Tensor, repeats: int) -> Tensor:
        choice = self.config.baseline
        if choice == "none":
            return torch.zeros_like(returns)
        if choice == "leave-one-out" or (choice == "auto" and repeats > 1):
            return losses.leave_one_out(returns, repeats)
        return values.detach()

    def schedule(self, progress: float) -> None:
        """Set the step size for this share of the budget spent, 0 to 1. `update()` does so, but not where it is replayed."""
        set_rate(self.optimizer, self.config.learning_rate * losses.cosine(progress))

    def state_dict(self) -> dict[str, Any]:
        """Policy, LSTM, critic, optimiser and random generator."""
        return {
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict(),
            "body": self.body.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`; with the policy alone it can act but not learn on."""
        self.policy.load_state_dict(state["policy"])
        self.body.load_state_dict(state.get("body", {}))  # a plain policy has none, nor had any before version 0.2
        if "optimizer" in state:
            self.critic.load_state_dict(state["critic"])
            self.optimizer.load_state_dict(state["optimizer"])
            restore(self.generator, state["generator"])
