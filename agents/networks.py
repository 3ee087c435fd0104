"""Policies and critics: small networks on the world's observation.

A policy's `log_prob` is that of the unclipped sample; the world clips where it looks. The mean keeps its gradient inside
`log_prob`, the sample has none: the other way round leaves the policy untrained for ever.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from hardattn.agents.base import action_width
from hardattn.envs.action import Action, indicators
from hardattn.envs.products import affine, by_onednn, layer


class Rows(nn.Sequential):
    """Two layers on the last dimension, a ReLU between them: what comes before it is laid flat, so that the ReLU works in place.

    Rows in bf16 are multiplied in bf16. What comes out is float32.
    """

    def __init__(self, first: nn.Linear, last: nn.Linear) -> None:
        super().__init__(first, nn.ReLU(inplace=True), last)
        self._kept: list[tuple[Tensor, Tensor]] | None = None  # of each pass, hidden units [B, H] and outputs [B, O]

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Keep what passes without a graph put out: a pass with a graph, over all that they read [B, T, D], takes it from there.

        The caller sees to it that these are the same rows and that the weights stand. Where torch's own layers multiply, as on a
        GPU, it is computed again.
        """
        self._kept = []
        try:
            yield
        finally:
            self._kept = None

    def forward(self, input: Tensor) -> Tensor:
        """[..., D] -> [..., outputs]."""
        rows = input.reshape(-1, input.shape[-1])
        first, _, last = self
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        if rows.dtype == torch.bfloat16 or (rows.dtype == first.weight.dtype and by_onednn(rows)):
            w, b, v, c = (weight.to(rows.dtype) for weight in (first.weight, first.bias, last.weight, last.bias))
            if torch.is_grad_enabled():
                hidden, outputs = self._known(input)
                rows = layer(layer(rows, w, b, relu=True, known=hidden), v, c, known=outputs).float()
            else:
                hidden = affine(rows, w, b).relu_()
                outputs = affine(hidden, v, c)
                if self._kept is not None:
                    self._kept.append((hidden, outputs))
                rows = outputs.float()
        else:
            rows = super().forward(rows)  # type: ignore[no-untyped-call]
        return rows.view(*input.shape[:-1], rows.shape[-1])

    def _known(self, input: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """What was kept of the rows of an input [B, T, D], if it was kept of as many."""
        if not self._kept or input.shape[:-1] != (len(self._kept[0][0]), len(self._kept)):
            return None, None
        hidden, outputs = (torch.stack(part, dim=1).flatten(0, 1) for part in zip(*self._kept, strict=True))
        return hidden, outputs


def mlp(inputs: int, hidden: int, outputs: int, scale: float, generator: torch.Generator) -> Rows:
    """One hidden layer of ReLU units, orthogonal weights drawn from `generator`; `scale` is the gain of the last layer."""
    first, last = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
    for linear, gain in ((first, math.sqrt(2)), (last, scale)):
        nn.init.orthogonal_(linear.weight, gain, generator=generator)
        nn.init.zeros_(linear.bias)
    return Rows(first, last)


def gaussian_log_prob(value: Tensor, mean: Tensor, std: float) -> Tensor:
    """Log N(value; mean, std^2), summed over coordinates: [..., A], [..., A] -> [...]."""
    z = (value - mean) / std
    constant = math.log(std) + 0.5 * math.log(2 * math.pi)
    return -(0.5 * z.square() + constant).sum(dim=-1)


def draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Choices that follow softmax(logits): [..., K] -> [...] int64."""
    drawn = torch.multinomial(logits.softmax(dim=-1).flatten(0, -2), 1, generator=generator)
    return drawn.view(logits.shape[:-1])


def softmax_log_prob(logits: Tensor, choice: Tensor) -> Tensor:
    """Log softmax(logits) at a choice: [..., K], [...] -> [...]."""
    return F.log_softmax(logits, dim=-1).gather(-1, choice[..., None])[..., 0]


def softmax_entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) in nats: [..., K] -> [...]."""
    log_probs = F.log_softmax(logits, dim=-1)
    return -(log_probs.exp() * log_probs).sum(dim=-1)


START = 0.1  # the gain of a policy's last layer: begin near the middle of the action space, but not with the same action everywhere


class GaussianPolicy(nn.Module):
    """pi(a | o) = N(mean(o), std^2) in the units of the action space, with the mean squashed into the space's bounds by tanh."""

    def __init__(
        self, observation: int, space: spaces.Box, hidden: int, std: float, generator: torch.Generator, start: float = START
    ) -> None:
        super().__init__()
        self.std = std
        self.net = mlp(observation, hidden, action_width(space), start, generator)
        low, high = np.asarray(space.low), np.asarray(space.high)
        self.register_buffer("middle", torch.as_tensor((high + low) / 2), persistent=False)
        self.register_buffer("reach", torch.as_tensor((high - low) / 2), persistent=False)
        self.middle: Tensor
        self.reach: Tensor

    def forward(self, observation: Tensor) -> Tensor:
        """The mean."""
        return self.mean(observation)

    def mean(self, observation: Tensor) -> Tensor:
        """[..., D] -> the middle of the Gaussian [..., A]; also the greedy action."""
        return self.middle + self.reach * torch.tanh(self.net(observation))

    def sample(self, observation: Tensor, generator: torch.Generator) -> Tensor:
        """[..., D] -> a draw [..., A], without gradient and not clipped to the bounds."""
        with torch.no_grad():
            mean = self.mean(observation)
            return mean + self.std * torch.randn(mean.shape, generator=generator, device=mean.device)

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log pi(action | observation), summed over coordinates: [..., D], [..., A] -> [...]."""
        return gaussian_log_prob(action.detach(), self.mean(observation), self.std)

    def entropy(self, observation: Tensor) -> Tensor:
        """Entropy of the Gaussian in nats: [..., D] -> [...]; the same everywhere, as `std` is."""
        each = 0.5 + 0.5 * math.log(2 * math.pi) + math.log(self.std)
        return self.middle.new_full(observation.shape[:-1], each * len(self.middle))


class CategoricalPolicy(nn.Module):
    """pi(a | o) = softmax over the choices of a Discrete space."""

    def __init__(
        self, observation: int, space: spaces.Discrete, hidden: int, generator: torch.Generator, start: float = START
    ) -> None:
        super().__init__()
        self.net = mlp(observation, hidden, action_width(space), start, generator)

    def mean(self, observation: Tensor) -> Tensor:
        """[..., D] -> the most likely choice [...] int64: the greedy action."""
        choice: Tensor = self.net(observation).argmax(dim=-1)
        return choice

    def sample(self, observation: Tensor, generator: torch.Generator) -> Tensor:
        """[..., D] -> a draw [...] int64."""
        with torch.no_grad():
            return draw(self.net(observation), generator)

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log pi(action | observation): [..., D], [...] -> [...]."""
        return softmax_log_prob(self.net(observation), action)

    def entropy(self, observation: Tensor) -> Tensor:
        """Entropy of the choice in nats: [..., D] -> [...]."""
        return softmax_entropy(self.net(observation))


class MixedPolicy(nn.Module):
    """Of an action that ends in scores of choices: pi(a | o) = N(places; mean(o), std^2) softmax(logits(o))[choice].

    An action holds the places, then 1 for the choice and 0 for each other. Noise on scores would explore choices too, but most of
    it changes none.
    """

    def __init__(
        self, observation: int, space: Action, hidden: int, std: float, generator: torch.Generator, start: float = START
    ) -> None:
        super().__init__()
        self.std, self.choices = std, space.choices
        self.net = mlp(observation, hidden, action_width(space), start, generator)
        self.register_buffer("reach", torch.as_tensor(space.high[: -space.choices]), persistent=False)
        self.reach: Tensor

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """The Gaussian's mean and the choices' logits."""
        places, logits = self.net(observation).tensor_split([-self.choices], dim=-1)
        return self.reach * torch.tanh(places), logits

    def mean(self, observation: Tensor) -> Tensor:
        """[..., D] -> the middle of the Gaussian and the most likely choice [..., A]: the greedy action."""
        places, logits = self(observation)
        return self._joined(places, logits.argmax(dim=-1))

    def sample(self, observation: Tensor, generator: torch.Generator) -> Tensor:
        """[..., D] -> a draw [..., A], without gradient, its places not clipped to the bounds."""
        with torch.no_grad():
            places, logits = self(observation)
            choice = draw(logits, generator)
            noise = torch.randn(places.shape, generator=generator, device=places.device)
            return self._joined(places + self.std * noise, choice)

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """Log pi(action | observation): [..., D], [..., A] -> [...]."""
        places, logits = self(observation)
        looked, scores = action.detach().tensor_split([-self.choices], dim=-1)
        return gaussian_log_prob(looked, places, self.std) + softmax_log_prob(logits, scores.argmax(dim=-1))

    def entropy(self, observation: Tensor) -> Tensor:
        """Entropy of the choice in nats: [..., D] -> [...]; that of the places is the same everywhere, as `std` is."""
        return softmax_entropy(self(observation)[1])

    def _joined(self, places: Tensor, choice: Tensor) -> Tensor:
        return torch.cat([places, indicators(choice, self.choices).to(places.dtype)], dim=-1)


class Critic(nn.Module):
    """b_t, what is expected from here on: a linear function of the observation, zero at the start (Mnih et al. 2014, section 3)."""

    def __init__(self, observation: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(observation))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, observation: Tensor) -> Tensor:
        """[..., D] -> [...]. A matrix-vector product, several times quicker on a CPU than a layer with one output."""
        if observation.dtype == torch.bfloat16:
            return F.linear(observation, self.weight.to(torch.bfloat16)[None])[..., 0].float() + self.bias
        return observation.to(self.weight.dtype) @ self.weight + self.bias


class StateCritic(nn.Module):
    """What is expected from here on, judged by the world's own state with a hidden layer; zero at the start."""

    def __init__(self, state: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.net = mlp(state, hidden, 1, 0.0, generator)

    def forward(self, state: Tensor) -> Tensor:
        """[..., S] -> [...]."""
        value: Tensor = self.net(state)[..., 0]
        return value


Policy = GaussianPolicy | CategoricalPolicy | MixedPolicy


def make_policy(
    width: int, action: spaces.Space[Any], hidden: int, std: float, generator: torch.Generator, start: float = START
) -> Policy:
    """The policy of `width` features for an action space.

    Gaussian with fixed `std` for a Box, categorical for a Discrete, both for an Action.

    `start` is the gain of its last layer; 0 begins in the middle of a Box whatever is seen.

    Raises ValueError for another space.
    """
    if isinstance(action, spaces.Discrete):
        return CategoricalPolicy(width, action, hidden, generator, start)
    if isinstance(action, Action):
        return MixedPolicy(width, action, hidden, std, generator, start)
    if isinstance(action, spaces.Box):
        return GaussianPolicy(width, action, hidden, std, generator, start)
    raise ValueError(f"action space: got {action}, wanted a flat Box or a Discrete")
