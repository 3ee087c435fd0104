"""How sure a number is."""

import math


def wilson(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a share, 95 % at the default z: (low, high), both 0 to 1 (Wilson 1927).

    Raises ValueError without trials.
    """
    if trials < 1:
        raise ValueError("wilson: no trials")
    share = successes / trials
    scale = 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / scale
    reach = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / scale
    return max(0.0, middle - reach), min(1.0, middle + reach)
