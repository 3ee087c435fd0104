"""Proximal policy optimisation (Schulman et al. 2017) for episodes that all end together; A2C is its one-epoch case.

Play a batch of episodes, weigh each look by its generalised advantage, then go over the batch several times in shuffled
minibatches, with the change of each look's probability clipped. For A2C: epochs=1, minibatches=1.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn

from hardattn.agents import losses
from hardattn.agents.base import collect
from hardattn.agents.networks import START, Critic, StateCritic, make_policy
from hardattn.agents.rates import set_rate
from hardattn.agents.recurrent import Memory, make_body
from hardattn.envs.errors import UsageError, more_than_zero, zero_to_one
from hardattn.envs.observation import Observation
from hardattn.envs.shuffle import restore
from hardattn.envs.world import World


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO."""

    std: float = 0.1
    """Standard deviation of a look around the policy's mean, in units of the action space."""
    learning_rate: float = 1e-3
    """Adam's step size at the start; it falls to 0 along a cosine over the training budget."""
    hidden: int = 128
    """Units in the hidden layer of the policy."""
    start: float = START
    """Gain of the policy's last layer at first; 0 begins with the middle of the action space everywhere."""
    policy: Literal["mlp", "lstm"] = "mlp"
    """What decides: a layer on the observation, or an LSTM over all observations that begins from the context, if there is one."""
    lstm_width: int = 128
    """Units of that LSTM."""
    critic: Literal["features", "state"] = "features"
    """What the critic reads: what the policy has made of its observations, or the world's own state, where it tells one (`catch`).
    The policy never sees that, and it plays without the critic (Pinto et al. 2017)."""
    epochs: int = 4
    """How often each batch of episodes is gone over."""
    minibatches: int = 4
    """Parts that the batch's looks (whole episodes, for an LSTM) are shuffled into; each part is one gradient step."""
    clip: float = 0.2
    """How far from 1 the ratio of a look's new and old probability still earns."""
    discount: float = 1.0
    """Weight of the next step's reward against this one's, 0 to 1."""
    decay: float = 0.95
    """Lambda of the generalised advantage: 0 trusts the critic from the next step on, 1 waits for the episode's end."""
    value_weight: float = 0.5
    """Weight of the critic's squared error against the policy's loss."""
    entropy_weight: float = 0.0
    """What a nat of the policy's entropy is worth; of use for discrete choices only, since `std` is fixed."""
    clip_norm: float = 1.0
    """The gradient's norm is clipped to this."""

    def __post_init__(self) -> None:
        more_than_zero(self, "std", "learning_rate", "hidden", "lstm_width", "epochs", "minibatches", "clip", "clip_norm")
        zero_to_one(self, "discount", "decay")


class PPO:
    """Chooses looks by a stochastic policy of the observation and learns it by clipped policy gradient."""

    Config = PPOConfig
    recordable = True  # but not takes_bf16: a ratio of probabilities asks for more digits

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Space[Any],
        *,
        config: PPOConfig | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        self.config = config or PPOConfig()
        init = torch.Generator().manual_seed(seed)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.body = make_body(self.config.policy, observation_space, self.config.lstm_width, init).to(device)
        self.policy = make_policy(
            self.body.features, action_space, self.config.hidden, self.config.std, init, self.config.start
        ).to(device)
        self.critic = self._new_critic(observation_space, init).to(device)
        self.parameters = [*self.policy.parameters(), *self.critic.parameters(), *self.body.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.config.learning_rate, fused=True)

    def _new_critic(self, space: spaces.Box, generator: torch.Generator) -> Critic | StateCritic:
        if self.config.critic == "features":
            return Critic(self.body.features)
        if not isinstance(space, Observation) or not space.state:
            raise UsageError("ppo: critic=state, but this task's world tells no state; wanted critic=features")
        return StateCritic(space.state, self.config.hidden, generator)

    def begin(self, batch_size: int) -> Memory:
        """Nothing remembered: an LSTM starts from zeros or from the context, and a plain policy needs no memory."""
        return None

    def act(self, observation: Tensor, memory: Memory, greedy: bool = False) -> tuple[Tensor, Memory]:
        """Sample the next look, or take the policy's mean if `greedy`."""
        with torch.no_grad():
            seen, memory = self.body.step(observation, memory)
            return (self.policy.mean(seen) if greedy else self.policy.sample(seen, self.generator)), memory

    def update(self, world: World) -> dict[str, Tensor]:
        """Play one batch of episodes and take epochs x minibatches gradient steps. What it tells stays on the device."""
        rollout = collect(self, world)
        observations, actions = rollout.observations, rollout.actions
        states = rollout.states if self.config.critic == "state" else None
        with torch.no_grad():
            seen = self.body.unroll(observations)
            values = self.critic(seen if states is None else states)  # [B, T]
            old_log_probs = self.policy.log_prob(seen, actions)
        advantages = losses.generalised_advantages(rollout.rewards, values, self.config.discount, self.config.decay)
        returns, advantages = advantages + values, losses.standardise(advantages)
        if not self.body.recurrent:  # then each look stands for itself: [B*T, ...]
            returns, advantages, old_log_probs = returns.flatten(), advantages.flatten(), old_log_probs.flatten()
            observations, actions = observations.flatten(0, 1), actions.flatten(0, 1)
            states = None if states is None else states.flatten(0, 1)
        self.schedule(world.progress)
        history = []
        for _ in range(self.config.epochs):
            order = torch.randperm(len(returns), generator=self.generator, device=returns.device)
            for part in order.tensor_split(min(self.config.minibatches, len(order))):
                seen = self.body.unroll(observations[part])
                log_probs = self.policy.log_prob(seen, actions[part])
                values = self.critic(seen.detach() if states is None else states[part])
                history.append(self._step(seen, log_probs, old_log_probs[part], advantages[part], values, returns[part]))
        policy_loss, value_loss, norm, divergence = torch.stack(history).mean(dim=0).unbind()
        return {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "policy_gradient_norm": norm,
            "divergence": divergence,
            "return": rollout.rewards.sum(dim=1).mean(),
        }

    def _step(
        self, seen: Tensor, log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, values: Tensor, returns: Tensor
    ) -> Tensor:
        """One gradient step on a minibatch: [N] looks, or [N, T] of whole episodes.

        Returns policy loss, value loss, gradient norm and divergence [4].
        """
        config = self.config
        policy_loss = losses.clipped_surrogate_loss(log_probs, old_log_probs, advantages, config.clip)
        value_loss = losses.value_loss(values, returns)
        loss = policy_loss + config.value_weight * value_loss
        if config.entropy_weight:
            loss = loss - config.entropy_weight * self.policy.entropy(seen).mean()
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, config.clip_norm)
        self.optimizer.step()
        change = (log_probs - old_log_probs).detach().clamp(-losses.FAR, losses.FAR)
        divergence = (change.exp() - 1 - change).mean()  # estimates KL(old, new), never below 0 (Schulman 2020)
        return torch.stack([policy_loss.detach(), value_loss.detach(), norm.detach(), divergence])

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
