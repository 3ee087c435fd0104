"""What a policy decides from: the observation as it is, or the state of an LSTM that has read all observations so far.

The LSTM is the upper core r2 of the Deep Recurrent Attention Model (Ba et al. 2015, section 3): where the world shows the whole
image made small, three convolutions read it (the context network) and make the LSTM's first state.
"""

import math
from typing import Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn

from hardattn.envs.observation import Observation

Memory = tuple[Tensor, Tensor] | None  # of the LSTM: h and c, each [B, width]
Kind = Literal["mlp", "lstm"]


class Memoryless(nn.Module):
    """The observation as it is; the world's own core remembers."""

    recurrent = False

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        self.features = int(space.shape[0])

    def step(self, observation: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """One step of an episode: the observation [B, D] as it is, and no memory."""
        return observation, None

    def unroll(self, observations: Tensor) -> Tensor:
        """The observations [B, T, D]."""
        return observations


class Recurrent(nn.Module):
    """An LSTM over the observations; what it has remembered is forgotten where an episode begins."""

    recurrent = True

    def __init__(self, space: spaces.Box, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.space = space if isinstance(space, Observation) and "context" in space.parts else None
        shape = self.space.parts["context"] if self.space else ()
        if self.space and list(self.space.parts)[-1] != "context":
            raise ValueError(f"observation: its parts are {list(self.space.parts)}, wanted the context last")
        self.inputs = int(space.shape[0]) - (math.prod(shape) if shape else 0)
        self.features = width
        self.lstm = nn.LSTM(self.inputs, width, batch_first=True)
        self.context = context_network(shape, 2 * width) if shape else None
        for module in self.modules():
            _draw(module, generator)

    def step(self, observation: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """One step: [B, D] -> h [B, width] and the memory after it; a memory of None begins the episode."""
        h, c = self._first(observation) if memory is None else memory
        # The cell alone: quicker for one step, and counted by torch's FLOP counter, which passes a whole LSTM over.
        h, c = torch.lstm_cell(observation[:, : self.inputs], (h, c), *self.lstm.all_weights[0])
        return h, (h, c)

    def unroll(self, observations: Tensor) -> Tensor:
        """Whole episodes: [B, T, D] -> h [B, T, width]."""
        h, c = self._first(observations[:, 0])
        features: Tensor = self.lstm(observations[..., : self.inputs], (h[None].contiguous(), c[None].contiguous()))[0]
        return features

    def _first(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """The state before the first step: zeros, or what the context network makes of the context."""
        if self.context is None or self.space is None:
            zeros = observation.new_zeros(len(observation), self.features)
            return zeros, zeros
        h, c = self.context(self.space.split(observation)["context"]).chunk(2, dim=1)
        return torch.tanh(h), c


def context_network(shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Three convolutions over the small image [B, C, s, s], then one layer: [B, outputs] (Ba et al. 2015, section 3)."""
    channels, size, _ = shape
    quarter = ((size + 1) // 2 + 1) // 2
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * quarter * quarter, outputs),
    )


def make_body(kind: Kind, space: spaces.Box, width: int, generator: torch.Generator) -> Memoryless | Recurrent:
    """The body of this kind; `width` is the LSTM's."""
    return Recurrent(space, width, generator) if kind == "lstm" else Memoryless(space)


def _draw(module: nn.Module, generator: torch.Generator) -> None:
    """First weights from a generator of our own: torch's global one belongs to the perception."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LSTM):
        for weight in module.parameters():
            nn.init.uniform_(weight, -1 / math.sqrt(module.hidden_size), 1 / math.sqrt(module.hidden_size), generator=generator)
