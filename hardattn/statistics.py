"""How sure a number is."""

from scipy.stats import binomtest


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a share: (low, high), both 0 to 1 (Wilson 1927). Raises ValueError without trials."""
    if trials < 1:
        raise ValueError("wilson: no trials")
    interval = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)
