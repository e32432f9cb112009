"""How many seeds would tell an effect: the power of Student's t test.

Computed by quadrature: SciPy's noncentral t distribution is NaN in places, and the libraries that build on it with it.
"""

import math
from bisect import bisect_left
from functools import cache

import numpy as np
from scipy.special import chdtri, gammaln, ndtr, stdtrit

from workflow.report.estimates import Estimate

ALPHA, POWER = 0.05, 0.80
SMALLEST_EFFECT = 0.01  # in sd over seeds; to tell it would take 80,000 of them


def seeds_needed(estimate: Estimate, effect: float, power: float, sides: int) -> dict[str, float]:
    """Return how many seeds would tell `effect` with this power, and the range that the spread leaves open.

    The range comes from the 95 % interval of the spread (chi-square): few seeds say little of it. The effect is taken
    as it is.
    """
    if not (effect > 0 and estimate.error > 0):
        return dict.fromkeys(("seeds_needed", "seeds_needed_low", "seeds_needed_high"), math.nan)
    freedom = estimate.freedom
    low, high = (float(np.sqrt(freedom / chdtri(freedom, tail))) for tail in (ALPHA / 2, 1 - ALPHA / 2))
    return {
        f"seeds_needed{end}": _fewest(effect / (factor * estimate.sd), power, sides, estimate.freedom_a_seed)
        for end, factor in (("", 1.0), ("_low", low), ("_high", high))
    }


def _fewest(size: float, power: float, sides: int, freedom_a_seed: int) -> float:
    """Return the fewest seeds, two at least, that tell an effect of `size` sd; infinity for tiny ones."""
    if size < SMALLEST_EFFECT:
        return math.inf

    def enough(seeds: int) -> bool:
        return power_of(size, seeds, (seeds - 1) * freedom_a_seed, sides) >= power

    most = 2
    while not enough(most):
        most *= 2
    return float(bisect_left(range(most), True, lo=max(2, most // 2), key=enough))


def power_of(size: float, seeds: int, freedom: int, sides: int) -> float:
    """Return the power at 5 % of a t test with one or two sides for an effect of `size` sd.

    T = (Z + size * sqrt(seeds)) / S is integrated over S, the root of chi-square over its degrees of freedom.
    """
    nodes, weights = _legendre()
    spread = 1 / math.sqrt(2 * freedom)  # of S, about
    low, high = max(0.0, 1 - 12 * spread), 1 + 14 * spread
    s = low + (high - low) * (nodes + 1) / 2
    log = freedom / 2 * math.log(freedom / 2) - gammaln(freedom / 2) + (freedom - 1) * np.log(s) - freedom * s**2 / 2
    density = weights * np.exp(log)
    density /= density.sum()
    centre, limit = size * math.sqrt(seeds), stdtrit(freedom, 1 - ALPHA / sides)
    tails = ndtr(centre - limit * s) + (ndtr(-centre - limit * s) if sides == 2 else 0.0)
    return float(density @ tails)


@cache
def _legendre() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(200)
