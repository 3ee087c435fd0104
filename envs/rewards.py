"""What a look is worth: reward formulas over the class logits that the world holds after each look."""

import math

from torch import Tensor


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """1 where the most likely class is the right one, else 0: logits [B, K], labels [B] -> [B] (Mnih et al. 2014, section 3)."""
    return (logits.argmax(dim=-1) == labels).to(logits.dtype)


def until_first_error(right: Tensor) -> Tensor:
    """What each of several answers in turn earns: 1 for a right one, until the first wrong one, and nothing from there on.

    right [..., L] bool -> [..., L] float32. Its sum is the cumulative reward of Ba et al. 2015, section 3.3.
    """
    return right.cumprod(dim=-1).float()


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """p(label): logits [B, K], labels [B] -> [B]. Its rise by a look is GFNet's reward (Wang et al. 2020, section 3.3)."""
    return logits.softmax(dim=-1).gather(-1, labels[:, None])[:, 0]


def evidence(logits: Tensor, labels: Tensor) -> Tensor:
    """The log of p(label), but at least log 1e-3, so that one hopeless image cannot rule a batch: logits [B, K], labels [B] -> [B].

    Its rise by a look pays most where the answer is still in doubt. Our own choice; no paper is followed.
    """
    return logits.log_softmax(dim=-1).gather(-1, labels[:, None])[:, 0].clamp_min(math.log(1e-3))


def boosted(logits: Tensor, labels: Tensor, weight: float) -> Tensor:
    """Log p(label), times `weight` where the most likely class is the right one: logits [B, K], labels [B] -> [B].

    Minus the boosted loss of dasNet (Stollenga et al. 2014), in which images that are told wrong count most.
    """
    right = logits.argmax(dim=-1) == labels
    log_p = logits.log_softmax(dim=-1).gather(-1, labels[:, None])[:, 0]
    return log_p * (1 + (weight - 1) * right.to(logits.dtype))


RISES = {"confidence-gain": confidence, "evidence-gain": evidence}  # rewards by which a look earns the rise of these


def clipped_linear(logits: Tensor, labels: Tensor) -> Tensor:
    """max(0, p(label) - 1/K), the internally rewarded reward of Li et al. (ICML 2023): logits [B, K], labels [B] -> [B]."""
    return (confidence(logits, labels) - 1 / logits.shape[-1]).clamp_min(0)
