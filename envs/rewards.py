"""What a look is worth: reward formulas over the class probabilities that the world holds before and after each look."""

import torch
from torch import Tensor


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """1 where the most likely class is the right one, else 0: logits [B, K], labels [B] -> [B] (Mnih et al. 2014, section 3)."""
    return (logits.argmax(dim=-1) == labels).to(logits.dtype)


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """The probability of the right class: logits [B, K], labels [B] -> [B]."""
    return logits.softmax(dim=-1).gather(-1, labels[:, None])[:, 0]


def clipped_linear(logits: Tensor, labels: Tensor) -> Tensor:
    """max(0, p(label) - 1/K), the internally rewarded reward of Li et al. (ICML 2023): logits [B, K], labels [B] -> [B]."""
    return (confidence(logits, labels) - 1 / logits.shape[-1]).clamp_min(0)


def confidence_gain(before: Tensor, after: Tensor, labels: Tensor) -> Tensor:
    """How much a look raised p(label): logits [B, K] before and after it -> [B] (GFNet: Wang et al. 2020, section 3.3)."""
    return confidence(after, labels) - confidence(before, labels)


def uniform_logits(batch: int, classes: int, device: torch.device) -> Tensor:
    """The belief before any look: every class alike."""
    return torch.zeros(batch, classes, device=device)
