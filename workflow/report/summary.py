"""Statistics over seeds: mean, sd, and paired differences from the reference row."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95


def summarise(values: pd.DataFrame, reference: int | None) -> pd.DataFrame:
    """Return a line for each (row, column) of what `collect` returns, in fractions.

    Added are mean, sd (over seeds, n - 1), seeds (how many), and difference, low, high: the mean
    difference from row `reference` seed by seed, and its 95 % interval (Student's t; NaN for fewer
    than two common seeds, and for the reference itself).
    """
    wide = values.pivot(index=["row", "column"], columns="seed", values="value")
    keys = values.drop_duplicates(["row", "column"]).drop(columns=["seed", "value"])
    lines = []
    for key in keys.to_dict("records"):
        own = wide.loc[(key["row"], key["column"])]
        present = own.dropna()
        spread: dict[str, Any] = {"mean": present.mean(), "sd": present.std(ddof=1), "seeds": len(present)}
        difference = np.array([])
        if reference is not None and key["row"] != reference and (reference, key["column"]) in wide.index:
            difference = (own - wide.loc[(reference, key["column"])]).dropna().to_numpy()
        lines.append(key | spread | paired_interval(difference))
    return pd.DataFrame(lines)


def paired_interval(difference: np.ndarray, confidence: float = CONFIDENCE) -> dict[str, float]:
    """Return the mean of differences, one a seed, with its interval by Student's t.

    Fewer than two seeds, or seeds without any spread, give no interval (NaN).
    """
    if not len(difference):
        return dict.fromkeys(("difference", "low", "high"), np.nan)
    low = high = np.nan
    if has_spread(difference):
        low, high = stats.ttest_1samp(difference, 0).confidence_interval(confidence)
    return {"difference": difference.mean(), "low": low, "high": high}


def has_spread(difference: np.ndarray) -> bool:
    """Whether a t test makes sense: two seeds at least, and differences that are not equal up to rounding."""
    return len(difference) > 1 and bool(np.ptp(difference) > 1e-9 * max(1.0, np.abs(difference).max()))
