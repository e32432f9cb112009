"""Statistics over seeds: mean, sd, and paired differences from the reference row."""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95


def summarise(accuracies: pd.DataFrame, reference: int | None) -> pd.DataFrame:
    """Return a line for each (row, group), fractions.

    Columns: mean, sd (over seeds, n - 1), seeds, and difference, low, high: the mean difference
    from row `reference` seed by seed, and its 95 % interval (Student's t; NaN for fewer than two
    seeds, and for the reference itself).
    """
    wide = accuracies.pivot(index=["row", "group"], columns="seed", values="accuracy")
    keys = accuracies.drop_duplicates(["row", "group"])[["row", "label", "run", "head", "group"]]
    lines = []
    for key in keys.to_dict("records"):
        values = wide.loc[(key["row"], key["group"])].to_numpy()
        sd = values.std(ddof=1) if len(values) > 1 else np.nan
        difference: dict[str, Any] = dict.fromkeys(("difference", "low", "high"), np.nan)
        if reference is not None and key["row"] != reference:
            difference = paired_difference(values, wide.loc[(reference, key["group"])].to_numpy())
        lines.append(key | {"mean": values.mean(), "sd": sd, "seeds": len(values)} | difference)
    return pd.DataFrame(lines)


def paired_difference(values: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Return the mean of values - reference, seed by seed, with its 95 % interval."""
    difference = values - reference
    low = high = np.nan
    if len(difference) > 1 and np.isfinite(difference).all():
        if np.ptp(difference) == 0:  # no spread, no test: the interval is the point
            low = high = difference[0]
        else:
            low, high = stats.ttest_1samp(difference, 0).confidence_interval(CONFIDENCE)
    return {"difference": difference.mean(), "low": low, "high": high}
