"""The best row of a column, where the seeds tell that it is."""

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
        scores = wide.to_numpy()
        # Each row is tried, as rows of different seeds are not ordered by their means; two cannot beat each other.
        for number, row in enumerate(wide.index):
            if all(_is_above(scores[number], other) for other in np.delete(scores, number, axis=0)):
                found[column] = int(row)
    return found


def _is_above(one: np.ndarray, other: np.ndarray) -> bool:
    difference = one - other
    low, _ = paired(difference[~np.isnan(difference)]).interval(0.95)
    return bool(low > 0)
