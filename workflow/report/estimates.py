"""Differences between rows with their standard error: seed by seed, or with the spread of a whole sweep.

*Paired*: one difference a seed, Student's t with seeds - 1 degrees of freedom. *Pooled*: the rows of one sweep as an
additive layout, a row effect plus a seed effect, whose residual has (rows - 1)(seeds - 1) degrees of freedom: 18 in
place of 2 for ten rows and three seeds. That assumes one spread for all rows, and no row that some seeds favour.
On a complete layout both give the same difference; they differ in its error.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

# The tails of Student's t alone: importing scipy.stats or statsmodels takes longer than drawing a table.
from scipy.special import stdtr, stdtrit


@dataclass(frozen=True)
class Estimate:
    """A difference, its standard error (NaN: it cannot be told) and what the error is made from."""

    mean: float
    error: float
    seeds: int
    freedom_a_seed: int = 1
    """Degrees of freedom that each seed after the first adds."""

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the error."""
        return (self.seeds - 1) * self.freedom_a_seed

    @property
    def sd(self) -> float:
        """Spread of the difference over seeds."""
        return self.error * self.seeds**0.5

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return low and high of the interval by Student's t."""
        tail = (1 - confidence) / 2
        low, high = stdtrit(self.freedom, [tail, 1 - tail]) * self.error + self.mean
        return float(low), float(high)

    @property
    def p(self) -> float:
        """Two-sided p of a difference of zero."""
        return float(2 * stdtr(self.freedom, -np.abs(self.mean / self.error)))

    def p_equivalent(self, margin: float) -> float:
        """Return the p of two one-sided tests that the difference lies within the margin."""
        ends = [-(self.mean + margin) / self.error, (self.mean - margin) / self.error]
        return float(stdtr(self.freedom, ends).max())


def paired(difference: np.ndarray) -> Estimate:
    """Return the mean of differences, one a seed."""
    if not len(difference):
        return Estimate(np.nan, np.nan, 0)
    error = float(standard_error(difference)) if has_spread(difference) else np.nan
    return Estimate(float(difference.mean()), error, len(difference))


def residual_sd(layout: np.ndarray) -> float:
    """Return the residual sd of the model row + seed; NaN where it cannot be told.

    Args:
        layout: (rows, seeds); a NaN anywhere, fewer than three rows (two are the paired case) or fewer than two seeds
            leave nothing to pool.
    """
    rows, seeds = layout.shape
    if rows < 3 or seeds < 2 or np.isnan(layout).any():
        return np.nan
    residual = layout - layout.mean(axis=1, keepdims=True) - layout.mean(axis=0) + layout.mean()
    if not has_spread(residual.ravel()):
        return np.nan
    return float(np.sqrt((residual**2).sum() / ((rows - 1) * (seeds - 1))))


def pooled(layout: np.ndarray, weights: np.ndarray) -> Estimate:
    """Return a contrast of the rows of a sweep.

    Args:
        layout: (rows, seeds), as `residual_sd` takes it.
        weights: (rows,), summing to zero, so that seed effects cancel.
    """
    rows, seeds = layout.shape
    error = residual_sd(layout) * float(np.sqrt((weights**2).sum() / seeds))
    return Estimate(float(weights @ layout.mean(axis=1)), error, seeds, rows - 1)


def holm(p: list[float]) -> np.ndarray:
    """Return p corrected by Holm's method; statsmodels has it, and takes seconds to import."""
    order = np.argsort(p)
    corrected = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1))
    return np.minimum(corrected, 1)[np.argsort(order)]


def standard_error(differences: np.ndarray) -> Any:
    """Return the standard error of the mean along the last axis."""
    seeds = differences.shape[-1]
    deviations = differences - differences.mean(axis=-1, keepdims=True)
    return np.sqrt((deviations**2).mean(axis=-1) * (seeds / (seeds - 1)) / seeds)


def has_spread(difference: np.ndarray) -> Any:
    """Whether a t test makes sense along the last axis: two seeds, and differences not equal up to rounding."""
    if difference.shape[-1] < 2:
        return np.zeros(difference.shape[:-1], dtype=bool)
    return np.ptp(difference, axis=-1) > 1e-9 * np.maximum(1.0, np.abs(difference).max(axis=-1))
