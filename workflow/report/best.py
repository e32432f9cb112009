"""The best row of a column, where the seeds tell that it is."""

from typing import Any

import numpy as np
import pandas as pd

from workflow.report.estimates import paired

LOWER = {"ece"}  # the less the better


def best_rows(columns: list[str], values: pd.DataFrame) -> dict[str, int]:
    """Return the number of the best row by column, where its 95 % interval against every other row says so.

    Every interval is Student's t on differences seed by seed. All of them must lie on the better side of zero, which
    needs no correction for their number.

    Args:
        columns: those that the table shows.
        values: what `collect` returns.
    """
    found = {}
    for column in columns:
        wide = values[values["column"] == column].pivot(index="row", columns="seed", values="value")
        wide = (-wide if column in LOWER else wide).dropna(how="all")
        if len(wide) < 2:
            continue
        best = wide.mean(axis=1).idxmax()
        differences = [(wide.loc[best] - wide.loc[row]).dropna().to_numpy() for row in wide.index.drop(best)]
        if all(_low(difference) > 0 for difference in differences):
            found[column] = int(best)
    return found


def _low(difference: np.ndarray) -> Any:
    low, _ = paired(difference).interval(0.95)
    return np.nan_to_num(low, nan=-np.inf)
