"""The perception part of the Deep Recurrent Attention Model (Ba et al. 2015, section 3): glimpse network, lower core, classifier.

The upper core, the context network and the emission network choose the looks: they are the agent's (hardattn.agents.recurrent).
The classifier reads the lower core alone, which starts from zeros and hears of the image only through glimpses; so what the
agent learns of the image from its context can steer the looks, but cannot tell the class.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hardattn.envs.cells import LSTMCell, State
from hardattn.envs.tasks import PerceptionConfig

ROWS = 500  # glimpses that a processor reads at once: what more of them are on the way leaves its caches


class DramPerception(nn.Module):
    """Three convolutions without pooling read the pixels, times a layer that reads the location; an LSTM; a hidden layer; classes.

    `glimpse_shape` is (S, C, g, g) and `classes` is K. The second convolution takes every other pixel and the filters are fewer
    than in the paper (64, 64 and 128 for house numbers), so that a processor can train it. The state is (h, c) of the LSTM r1;
    the agent observes h.
    """

    def __init__(self, config: PerceptionConfig, glimpse_shape: tuple[int, int, int, int], classes: int) -> None:
        super().__init__()
        scales, channels, size, _ = glimpse_shape
        width, half = config.glimpse_width, (size + 1) // 2
        self.features = config.core_width
        few, many = config.filters, 2 * config.filters
        self.encode_pixels = nn.Sequential(
            nn.Conv2d(scales * channels, few, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(few, many, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(many, many, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(many * half * half, width),
            nn.ReLU(),
        )
        self.encode_location = nn.Linear(2, width)
        nn.init.ones_(self.encode_location.bias)  # a product passes the pixels on from the start only if its other side is near 1
        self.core = LSTMCell(width, config.core_width)
        self.hidden = nn.Linear(config.core_width, config.core_width)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(config.core_width, classes)

    def look(self, state: State | None, glimpse: Tensor, location: Tensor) -> State:
        """The state after a glimpse [B, S, C, g, g] at a location [B, 2]."""
        pixels = glimpse.flatten(1, 2)
        at_once = len(pixels) if pixels.is_cuda else ROWS
        what = torch.cat([self.encode_pixels(part) for part in pixels.split(at_once)])
        after: State = self.core(what * self.encode_location(location), state)
        return after

    def read(self, state: State) -> Tensor:
        """Class logits [B, K]."""
        logits: Tensor = self.classify(self.dropout(F.relu(self.hidden(state[0]))))
        return logits

    def observe(self, state: State) -> Tensor:
        """The output h of the lower core r1, [B, core_width]."""
        return state[0]
