"""How sure a number is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a share: (low, high), both 0 to 1 (Wilson 1927). Raises ValueError without trials."""
    if trials < 1:
        raise ValueError("wilson: no trials")
    interval = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(one: Sequence[bool] | NDArray[np.bool_], other: Sequence[bool] | NDArray[np.bool_]) -> tuple[int, int, float]:
    """Two models on the same examples: how many the first alone has wrong, how many the second alone, and the exact p (two-sided).

    `one` and `other` say which examples each has wrong, [N]. McNemar 1947, in the exact binomial form: examples on which both agree
    tell nothing, and the others fall to either side like a fair coin if the models are equally good. Raises ValueError if the
    numbers of examples differ.
    """
    first, second = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"mcnemar: {len(first)} and {len(second)} examples, wanted the same ones")
    alone, besides = int((first & ~second).sum()), int((second & ~first).sum())
    return alone, besides, float(binomtest(alone, alone + besides).pvalue) if alone + besides else 1.0


def paired_bootstrap(
    one: Sequence[bool] | NDArray[np.bool_],
    other: Sequence[bool] | NDArray[np.bool_],
    confidence: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """An interval of the first model's error rate less the second's over examples drawn anew, paired: (low, high), -1 to 1.

    `one` and `other` [N] say which examples each has wrong. The percentile interval of Efron & Tibshirani 1993, chapter 13; an
    example is one of three kinds here, so a draw is a multinomial one. Raises ValueError if the numbers of examples differ.
    """
    alone, besides, _ = mcnemar(one, other)
    count = len(one)
    shares = np.array([alone, besides, count - alone - besides]) / count
    drawn = np.random.default_rng(seed).multinomial(count, shares, size=draws)
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / count, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
