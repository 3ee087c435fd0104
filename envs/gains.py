"""From an agent's scores to the gains of feature maps: never below 0, and all 1 where every score is 0."""

import torch
from torch import Tensor

HARD = ("top-k", "threshold")  # rules without a derivative
CLOSED = -1.0  # below it a score closes a hard gate
LIMIT = 3.0  # scores beyond it are clipped: under a softmax a gain can be e^6 = 400 times another then, which is as good as silence


def softmax_gains(scores: Tensor) -> Tensor:
    """A * softmax(scores) over all maps, whose mean is 1: [B, A] -> [B, A] (Stollenga et al. 2014)."""
    weights = (scores - scores.amax(dim=1, keepdim=True)).exp()
    return weights / weights.mean(dim=1, keepdim=True)  # in this order scores of 0 give gains of 1 to the bit


def sigmoid_gains(scores: Tensor) -> Tensor:
    """2 * sigmoid(scores), between 0 and 2: [B, A] -> [B, A]."""
    return 2 * scores.sigmoid()


def top_gains(scores: Tensor, keep: float) -> Tensor:
    """The same gain for the share `keep` of maps with the highest scores, 0 for the others, mean 1: [B, A] -> [B, A].

    Maps whose scores equal the lowest one kept are kept too, so scores that are all alike keep every map.
    """
    count = max(1, round(keep * scores.shape[1]))
    heard = (scores >= scores.topk(count, dim=1).values[:, -1:]).to(scores.dtype)
    return heard / heard.mean(dim=1, keepdim=True)


def threshold_gains(scores: Tensor) -> Tensor:
    """Hard gates: 1 where a score is at least CLOSED, which is below 0, else 0: [B, A] -> [B, A].

    A score that a Gaussian policy draws around its mean with deviation std makes of this a Bernoulli gate that is open with
    probability Phi((mean - CLOSED) / std), a probit; so REINFORCE on scores learns hard gates, and needs no policy of its own for
    them. Its log-probability is the score's, not the gate's: as unbiased, with more variance, for scores on one side of CLOSED are
    told apart too. A policy that begins at 0 begins with nearly all gates open; with each closed half of the time there would be
    no network left to learn from.
    """
    return (scores >= CLOSED).to(scores.dtype)


def to_gains(scores: Tensor, counts: list[int], rule: str, keep: float = 0.5) -> list[Tensor]:
    """Scores [B, A] by a rule of GatingConfig to gains, a tensor [B, maps] for each layer of `counts`."""
    clipped = scores.clamp(-LIMIT, LIMIT)
    if rule == "softmax":
        return list(softmax_gains(clipped).split(counts, dim=1))
    if rule in ("sigmoid", "threshold"):
        return list((sigmoid_gains if rule == "sigmoid" else threshold_gains)(clipped).split(counts, dim=1))
    if rule == "layer-softmax":
        return [softmax_gains(layer) for layer in clipped.split(counts, dim=1)]
    return [top_gains(layer, keep) for layer in scores.split(counts, dim=1)]  # unclipped, or all beyond LIMIT would tie


def spread_of(gains: list[Tensor]) -> Tensor:
    """How far each layer's gains are from 1, the root of the mean square over maps and rows: [layers]."""
    return torch.stack([(layer - 1).square().mean().sqrt() for layer in gains])
