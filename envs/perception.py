"""Networks that see: each look turns a glimpse and its location into a new state; the state is read as class logits.

A perception is any `nn.Module` with `look`, `read` and `observe` (see `Perception`). Whether it learns is the world's business.
"""

import hashlib
from typing import Protocol

import torch
from torch import Tensor, nn

from hardattn.envs.cells import LSTMCell, ReluCell, State
from hardattn.envs.tasks import PerceptionConfig


class Perception(Protocol):
    """What a world asks of its network."""

    features: int

    def look(self, state: State | None, glimpse: Tensor, location: Tensor) -> State:
        """The state after a glimpse [B, S, C, g, g] at a location [B, 2] in [-1, 1]; before the first look there is none."""

    def read(self, state: State) -> Tensor:
        """Class logits [B, K]."""

    def observe(self, state: State) -> Tensor:
        """What the agent is told of the state: [B, features]."""


class RamPerception(nn.Module):
    """The glimpse network, core and classifier of the Recurrent Attention Model (Mnih et al. 2014, section 4 and figure 1).

    `glimpse_shape` is (S, C, g, g) and `classes` is K. The state is (h,) for the paper's core, or (h, c) for the LSTM;
    the agent observes h.
    """

    def __init__(self, config: PerceptionConfig, glimpse_shape: tuple[int, int, int, int], classes: int) -> None:
        super().__init__()
        scales, channels, size, _ = glimpse_shape
        width, glimpse, core = config.encoder_width, config.glimpse_width, config.core_width
        self.features = core
        self.encode_pixels = _pixel_encoder(config, scales * channels, size)
        self.encode_location = nn.Sequential(nn.Linear(2, width))  # a sequence of one, as saved weights name it
        self.combine = nn.Linear(2 * width, glimpse)  # the paper's Lin(h_g) + Lin(h_l), as one product
        self.core = LSTMCell(glimpse, core) if config.core == "lstm" else ReluCell(glimpse, core)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(core, classes)

    def look(self, state: State | None, glimpse: Tensor, location: Tensor) -> State:
        """The state after a glimpse [B, S, C, g, g] at a location [B, 2]."""
        what, where = self.encode_pixels(glimpse.flatten(1, 2)), self.encode_location(location)
        both = torch.cat([what, where], dim=1).relu_()  # in place: memory is what a processor waits for
        seen = self.combine(both).relu_()  # [B, glimpse_width]
        after: State = self.core(seen, state)
        return after

    def read(self, state: State) -> Tensor:
        """Class logits [B, K]."""
        logits: Tensor = self.classify(self.dropout(state[0]))
        return logits

    def observe(self, state: State) -> Tensor:
        """The core's output h [B, core_width]."""
        return state[0]


def _pixel_encoder(config: PerceptionConfig, channels: int, size: int) -> nn.Sequential:
    """[B, S*C, g, g] -> [B, encoder_width], before its ReLU."""
    if config.encoder == "fc":
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, config.encoder_width))
    half = (size + 1) // 2
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * half * half, config.encoder_width),
    )


def weights_sha256(module: nn.Module) -> str:
    """A fingerprint of a network's weights: names, shapes and values, in order of name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
