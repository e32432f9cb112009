"""The value of each sweep that its validation images choose, and the test score of that value alone.

`python -m workflow.report.choices TABLE.choices.csv ... --out choices.csv` makes one list of those of all tables.
"""

import argparse
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from csa_core import store
from csa_core.errors import UserError, say
from workflow.report.all_claims import together
from workflow.report.collect import CHOOSES
from workflow.report.numbers import interval, shown
from workflow.report.summary import paired_interval
from workflow.rows import name_of

TESTED = ("all", "many", "medium", "few")
COLUMNS = ["table", "row_name", "chosen", "run", "seeds", "validation_percent", "validation_sd_percent", "second"]
COLUMNS += ["lead_percent", "lead_low_percent", "lead_high_percent", "test_percent"]
COLUMNS += ["test_low_percent", "test_high_percent", "test_many_percent", "test_medium_percent", "test_few_percent"]
COLUMNS += ["best_on_test_not_to_be_used", "best_on_test_not_to_be_used_percent"]


def choose(table: dict[str, Any], values: pd.DataFrame, facts: dict[str, Any]) -> pd.DataFrame:
    """Return a line for each sweep of a table: the value with the best mean over seeds of the validation accuracy.

    That accuracy is the mean over classes, of equal ones the first in the table. A sweep is left out where a run is
    missing, where there are no validation images, and where its rows differ in their images.

    Args:
        table: what `Plan.declaration` returns.
        values, facts: what `collect` returns.
    """
    lines = []
    numbered = sorted((row["pool"], number) for number, row in enumerate(table["rows"]) if row["pool"] is not None)
    for _, pool in groupby(numbered, key=lambda each: each[0]):
        rows = [number for _, number in pool]
        validated, tested, *groups = (_by_seed(values, rows, column) for column in (CHOOSES, *TESTED))
        is_whole = validated.shape == (len(rows), len(table["seeds"])) and validated.notna().all(axis=None)
        if len(rows) > 1 and is_whole and len({facts["images_of"][number] for number in rows}) == 1:
            lines.append(_line(table, validated, tested, groups))
    return pd.DataFrame(lines, columns=COLUMNS)


def _by_seed(values: pd.DataFrame, rows: list[int], column: str) -> pd.DataFrame:
    """Return a column in percent, a line a row and a column a seed; NaN where there is none."""
    part = values[values["row"].isin(rows) & (values["column"] == column)]
    return 100 * part.pivot(index="row", columns="seed", values="value").reindex(rows)


def _line(
    table: dict[str, Any], validated: pd.DataFrame, tested: pd.DataFrame, groups: list[pd.DataFrame]
) -> dict[str, Any]:
    names = {number: name_of(table["rows"][number]) for number in validated.index}
    means = validated.mean(axis=1)
    best, second = means.idxmax(), means.drop(means.idxmax()).idxmax()
    lead = paired_interval((validated.loc[best] - validated.loc[second]).to_numpy())
    test = paired_interval(tested.loc[best].to_numpy())  # of the scores themselves
    on_test = tested.mean(axis=1)
    best_on_test = best if on_test[best] == on_test.max() else on_test.idxmax()
    found = [table["name"], table["row_name"], names[best], table["rows"][best]["run"], validated.shape[1]]
    found += [means[best], validated.loc[best].std() if validated.shape[1] > 1 else np.nan]
    found += [names[second], *lead.values(), *test.values(), *(group.loc[best].mean() for group in groups)]
    found += [names[best_on_test], on_test.max()]
    return dict(zip(COLUMNS, found, strict=True))


def sentences(choices: pd.DataFrame) -> list[str]:
    """Return what was chosen, in words."""
    texts = []
    for line in choices.to_dict("records"):
        validation, test, best = (
            shown(line[name]) for name in ("validation_percent", "test_percent", "best_on_test_not_to_be_used_percent")
        )
        spread = f" ± {sd}" if (sd := shown(line["validation_sd_percent"])) else ""
        points = shown(line["lead_percent"])
        lead = f"{points} {interval(line['lead_low_percent'], line['lead_high_percent'])}".strip() + " ahead of"
        lead = "level with" if points == "0.0" else lead
        low, high = shown(line["test_low_percent"]), shown(line["test_high_percent"])
        between = f" (95 % interval over seeds {low} to {high})" if low else ""
        best_name = line["best_on_test_not_to_be_used"]
        other = (
            "The test set would have chosen the same."
            if best_name == line["chosen"]
            else f"The best test score is that of {best_name}, {best}: not to be used, for the test set chose it."
        )
        texts.append(
            f"Chosen on the validation images, {line['row_name']}: {line['chosen']}, with {validation}{spread} there, "
            f"{lead} {line['second']}. Its test score, All: {test}{between}. {other}"
        )
    return texts


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.report.choices", description=__doc__.split("\n\n")[0])
    parser.add_argument("choices", nargs="+", metavar="TABLE.choices.csv", help="choices made with each table")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    args = parser.parse_args(argv)
    try:
        store.write_bytes(args.out, together(args.choices, "choices", order="table").encode())
    except UserError as error:
        say(f"choices: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
