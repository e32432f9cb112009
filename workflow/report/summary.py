"""Statistics over seeds: mean, sd, and paired differences from the reference row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

# The tails of Student's t alone: importing scipy.stats takes longer than drawing a table.
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
INTERVAL = ["difference", "low", "high"]


def summarise(values: pd.DataFrame, reference: int | None) -> pd.DataFrame:
    """Return a line for each (row, column) of what `collect` returns, in fractions.

    Added are mean, sd (over seeds, n - 1), seeds (how many), and difference, low, high: the mean
    difference from row `reference` seed by seed, and its 95 % interval (Student's t; NaN for fewer
    than two common seeds, and for the reference itself).
    """
    wide = values.pivot(index=["row", "column"], columns="seed", values="value")
    keys = values.drop_duplicates(["row", "column"]).drop(columns=["seed", "value"]).reset_index(drop=True)
    own = wide.loc[pd.MultiIndex.from_frame(keys[["row", "column"]])].to_numpy()
    compared = [(None if row == reference else reference, column) for row, column in keys[["row", "column"]].to_numpy()]
    difference = own - wide.reindex(compared).to_numpy()
    spread = [_spread(seeds[~np.isnan(seeds)]) for seeds in own]
    intervals = paired_intervals([seeds[~np.isnan(seeds)] for seeds in difference])
    return pd.concat([keys, pd.DataFrame(spread), intervals], axis=1)


def _spread(present: np.ndarray) -> dict[str, Any]:
    """Return mean, sd and number of the seeds that are there."""
    mean = present.mean() if len(present) else np.nan
    return {"mean": mean, "sd": present.std(ddof=1) if len(present) > 1 else np.nan, "seeds": len(present)}


def paired_interval(difference: np.ndarray, confidence: float = CONFIDENCE) -> dict[str, float]:
    """Return the mean of differences, one a seed, with its interval by Student's t.

    Fewer than two seeds, or seeds without any spread, give no interval (NaN).
    """
    if not len(difference):
        return dict.fromkeys(INTERVAL, np.nan)
    return dict(zip(INTERVAL, _intervals(difference[None], confidence)[0].tolist(), strict=True))


def paired_intervals(differences: Sequence[np.ndarray], confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Return difference, low and high of `paired_interval`, a line for each array of differences."""
    result = np.full((len(differences), 3), np.nan)
    lengths = np.array([len(difference) for difference in differences], dtype=int)
    for length in np.unique(lengths[lengths > 0]):
        alike = np.flatnonzero(lengths == length).tolist()
        result[alike] = _intervals(np.stack([differences[i] for i in alike]), confidence)
    return pd.DataFrame(result, columns=INTERVAL)


def _intervals(differences: np.ndarray, confidence: float) -> np.ndarray:
    """Return mean, low and high of each line of `differences`; operations in the order of `scipy.stats.ttest_1samp`."""
    mean = differences.mean(axis=1)
    low, high = np.full((2, len(mean)), np.nan)
    told = has_spread(differences)
    if told.any():
        error, seeds = standard_error(differences[told]), differences.shape[1]
        tail = (1 - confidence) / 2
        low[told] = stdtrit(seeds - 1, tail) * error + mean[told]
        high[told] = stdtrit(seeds - 1, 1 - tail) * error + mean[told]
    return np.stack([mean, low, high], axis=1)


def p_value(difference: np.ndarray) -> float:
    """Return the two-sided p of a mean of zero by Student's t."""
    return float(2 * stdtr(len(difference) - 1, -np.abs(difference.mean() / standard_error(difference))))


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
