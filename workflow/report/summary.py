"""Statistics over seeds: mean, sd, and paired differences from the reference row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from workflow.report.estimates import has_spread, residual_sd, standard_error

CONFIDENCE = 0.95
INTERVAL = ["difference", "low", "high"]
POOLED = ["pooled_low", "pooled_high", "pooled_freedom"]


def summarise(values: pd.DataFrame, reference: int | None, pools: Sequence[int | None] = ()) -> pd.DataFrame:
    """Return a line for each (row, column) of what `collect` returns, in fractions.

    Added are mean, sd (over seeds, n - 1), seeds (how many), and difference, low, high: the mean
    difference from row `reference` seed by seed, and its 95 % interval (Student's t; NaN for fewer
    than two common seeds, and for the reference itself). For rows of the reference's own sweep, by `pools`
    (a number for each row), pooled_low, pooled_high and pooled_freedom are of the same difference with the
    spread of the whole sweep; shifted_steps is the mean over seeds.
    """
    wide = values.pivot(index=["row", "column"], columns="seed", values="value")
    keys = values.drop_duplicates(["row", "column"]).drop(columns=["seed", "value"]).reset_index(drop=True)
    if "shifted_steps" in keys:
        keys["shifted_steps"] = keys["row"].map(values.groupby("row")["shifted_steps"].mean())
    own = wide.loc[pd.MultiIndex.from_frame(keys[["row", "column"]])].to_numpy()
    compared = [(None if row == reference else reference, column) for row, column in keys[["row", "column"]].to_numpy()]
    difference = own - wide.reindex(compared).to_numpy()
    spread = [_spread(seeds[~np.isnan(seeds)]) for seeds in own]
    intervals = paired_intervals([seeds[~np.isnan(seeds)] for seeds in difference])
    summary = pd.concat([keys, pd.DataFrame(spread), intervals], axis=1)
    return summary.merge(_pooled(wide, reference, pools), on=["row", "column"], how="left")


def _pooled(wide: pd.DataFrame, reference: int | None, pools: Sequence[int | None]) -> pd.DataFrame:
    """Return the columns `POOLED` for each row of the reference's sweep and each column, a line each."""
    lines = []
    sweep = None if reference is None or not pools else pools[reference]
    own = [row for row, pool in enumerate(pools) if pool == sweep and sweep is not None]
    for column, part in wide.groupby(level="column"):
        layout = part.droplevel("column").reindex([row for row in own if (row, column) in part.index])
        if reference not in layout.index or np.isnan(sd := residual_sd(layout.to_numpy())):
            continue
        rows, seeds = layout.shape
        freedom = (rows - 1) * (seeds - 1)
        half = stdtrit(freedom, (1 + CONFIDENCE) / 2) * sd * np.sqrt(2 / seeds)
        means = layout.mean(axis=1)
        for row in layout.index.drop(reference):
            difference = means[row] - means[reference]
            lines.append((row, column, difference - half, difference + half, freedom))
    types = {"row": int} | dict.fromkeys(POOLED, float)  # also of no lines
    return pd.DataFrame(lines, columns=["row", "column", *POOLED]).astype(types)


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
