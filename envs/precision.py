"""Run a network in bf16 where that is faster, casting its weights once an episode instead of once a look."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


def set_mode(network: nn.Module, learning: bool) -> None:
    """Put a network in training mode or in evaluation mode."""
    if any(module.training != learning for module in network.modules()):  # asking is cheaper than setting
        network.train(learning)


class MixedPrecision:
    """A network's methods under bf16 autocast, with its weights cast once for each `refresh()`.

    Autocast alone casts every weight again at each look. This keeps a twin of the network whose weights are bf16 copies of the
    float32 originals; the copies keep their graph, so gradients reach the originals. Without `enabled` there is no twin and the
    methods run as they are.
    """

    def __init__(self, network: nn.Module, enabled: bool, device_type: str) -> None:
        self.network, self.enabled, self.device_type = network, enabled, device_type
        self.twin = copy.deepcopy(network) if enabled else network
        if enabled:
            for module in self.twin.modules():
                module._parameters.clear()  # so that refresh() may set a plain tensor, which has a graph, under the same name

    def refresh(self, learning: bool) -> None:
        """Take the network's present weights, and put it in training mode or in evaluation mode."""
        set_mode(self.network, learning)
        if not self.enabled:
            return
        self.twin.train(learning)
        for module, original in zip(self.twin.modules(), self.network.modules(), strict=True):
            module._buffers = original._buffers  # running statistics are one and the same
            for name, weight in original._parameters.items():
                object.__setattr__(module, name, None if weight is None else weight.to(torch.bfloat16))

    def connect(self, logits: list[Tensor]) -> list[Tensor]:
        """The logits as they are: they have their graph."""
        return logits

    def __call__(self, method: str, *arguments: Any) -> Any:
        """The method of this name on these arguments."""
        if not self.enabled:
            return getattr(self.network, method)(*arguments)
        with torch.autocast(self.device_type, torch.bfloat16):
            return getattr(self.twin, method)(*arguments)
