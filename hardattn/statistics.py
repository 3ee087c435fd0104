"""How sure a number is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, trim_mean


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


def bins(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], count: int = 15) -> NDArray[np.float64]:
    """How sure a classifier was, and how right: rows (examples, mean confidence, accuracy) of `count` equal bins, [count, 3].

    `probabilities` [N, K], `labels` [N]. The confidence is the largest probability; bin b holds those above b / count, up to
    (b + 1) / count (Guo et al. 2017, section 2). An empty bin is a row of zeros.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * count).astype(int) - 1, 0, count - 1)
    held = np.bincount(place, minlength=count)
    sums = [np.bincount(place, weights=value, minlength=count) for value in (confidence, right)]
    return np.stack([held, *(total / np.maximum(held, 1) for total in sums)], axis=1)


def calibration_error(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], count: int = 15) -> float:
    """The expected calibration error, 0 to 1: confidence and accuracy apart, over the bins (Guo et al. 2017, eq. 3)."""
    held, confidence, accuracy = bins(probabilities, labels, count).T
    return float((held * np.abs(confidence - accuracy)).sum() / held.sum())


def log_loss(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> float:
    """The mean negative log-likelihood of the labels [N] in nats; a probability of 0 counts as the smallest float32 above it."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number, order kept: the k-th smallest of m times m - k + 1, never falling (Holm 1979)."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda k: p_values[k])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def interquartile_mean(values: Sequence[float] | NDArray[np.floating[Any]]) -> float:
    """The mean of the middle half of the values (Agarwal et al. 2021); a quarter of them, rounded down, falls off each end."""
    return float(trim_mean(np.asarray(values, dtype=float), 0.25))


def seeds_and_examples(
    wrong: NDArray[np.bool_],
    other: NDArray[np.bool_] | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """An interval of a method's error rate over seeds and examples drawn anew: (low, high), 0 to 1.

    `wrong` [S, N] says which of N examples each of S seeds has wrong. With `other` [S, N], of the same seeds and examples, the
    interval is that of the difference, and each draw takes the same seeds and examples of both. Both ways are resampled at once
    (percentile bootstrap): of one seed the interval covers examples alone. Raises ValueError for shapes that differ.
    """
    if other is not None and other.shape != wrong.shape:
        raise ValueError(f"bootstrap: {list(wrong.shape)} and {list(other.shape)}, wanted the same seeds and examples")
    random = np.random.default_rng(seed)
    seeds, examples = wrong.shape
    value = wrong.astype(np.float32)
    if other is not None:
        value -= other.astype(np.float32)
    rates = np.empty(draws)
    for k in range(draws):
        # Poisson weights of mean 1 draw examples with replacement, all seeds' alike, in one pass over them.
        weights = random.poisson(1.0, (examples,)).astype(np.float32)
        by_seed = value @ weights / max(weights.sum(), 1.0)
        rates[k] = by_seed[random.integers(seeds, size=seeds)].mean()
    low, high = np.quantile(rates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def mutual_information(values: NDArray[np.floating[Any]], kinds: NDArray[np.int64], count: int = 8) -> float:
    """How much a number tells of a kind, in bits: values [N] and kinds [N] (0, 1, ...), over `count` bins of as many values each.

    The plug-in estimate, too high by about (bins - 1)(kinds - 1) / (2 N ln 2) (Miller 1955); equal values share a bin. At most the
    entropy of the kinds.
    """
    edges = np.unique(np.quantile(values, np.arange(1, count) / count))
    bin_of = np.searchsorted(edges, values, side="left")
    joint = np.zeros((len(edges) + 1, int(kinds.max()) + 1))
    np.add.at(joint, (bin_of, kinds), 1 / len(values))
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    there = joint > 0
    return float((joint[there] * np.log2(joint[there] / apart[there])).sum())
