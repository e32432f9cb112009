"""One number is rounded one way, in tables, claims and on the page."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csa_core.compare import percent
from csa_core.store import read_sealed, sealed
from tests.helpers.workflows import table
from workflow.report.numbers import interval, shown
from workflow.report.tables import write


@given(st.integers(-10_000, 10_000))
def test_a_number_and_its_opposite_are_rounded_alike(hundredths: int) -> None:
    value = hundredths / 100
    sizes = {
        shown(each, signed=True).lstrip("+−")
        for each in (value, -value, 0.1 + value - 0.1, 80.0 - (80.0 - value), float(np.mean([value] * 3)))
    }
    tenths = (2 * abs(hundredths) + 10) // 20  # halves away from zero, in whole numbers
    assert sizes == {f"{tenths // 10}.{tenths % 10}"}


def test_a_run_is_listed_with_the_accuracy_that_its_table_shows() -> None:
    """`csa ls` and the end of a training say 0.2875 as a table does."""
    accuracies = np.arange(10_001) / 10_000
    assert [percent(each) for each in accuracies] == [shown(100 * each) for each in accuracies]
    assert (percent(None), percent(0.28754, 2)) == ("", "28.75")


def test_a_sign_is_written_where_it_is_asked_for() -> None:
    assert (shown(3.55), shown(-3.55), shown(1234.5), shown(3.456, 2)) == ("3.6", "−3.6", "1,234.5", "3.46")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.04, "0.0"),
        (0.04, "0.0"),
        (-0.05, "−0.1"),
        (None, ""),
        (np.nan, ""),
        (3.55, "+3.6"),
        (np.inf, "∞"),
        (-np.inf, "−∞"),
    ],
)
def test_zero_has_no_sign_and_nothing_no_number(value: float | None, text: str) -> None:
    assert shown(value, signed=True) == text


def test_an_interval_without_ends_is_none() -> None:
    assert interval(np.nan, np.nan) == "" and interval(-3.55, 0.01) == "[−3.55, +0.01]"
    assert interval(0.3, 1.2) == "[+0.3, +1.2]"


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.04, 2.0, "[+0.04, +2.00]"),
        (-2.0, -0.004, "[−2.000, −0.004]"),
        (0.0, 2.0, "[0.0, +2.0]"),
        (-0.04, np.nan, "[−0.04, ]"),
        (-np.inf, np.inf, "[−∞, ∞]"),
        (1e-12, 2.0, "[0.0, +2.0]"),
    ],
)
def test_whether_an_interval_holds_zero_can_be_seen(low: float, high: float, text: str) -> None:
    assert interval(low, high) == text


def test_a_table_and_its_claim_say_the_same_of_one_difference(results: Path) -> None:
    """The table has row less reference, the claim reference less row."""
    for run, value in (("csa", 0.9355), ("ce", 0.9)):
        for path in results.glob(f"results/demo/runs/{run}/*/metrics.json"):
            content = read_sealed(path)
            content["heads"]["single"]["accuracy"]["all"] = value
            path.write_text(json.dumps(sealed(content)))
    claim = {"text": "ours is better", "section": "C", "kind": "contrast", "interval": "paired"}
    terms = {side: [{"row": row, "column": "all"}] for side, row in (("more", "Ours"), ("less", "Other"))}
    write(table(claims=[claim | terms]), "t")
    printed, *_ = re.findall(r"−(\d\.\d)", Path("t.md").read_text().splitlines()[7])
    assert f"+{printed}" == shown(pd.read_csv("t.claims.csv")["estimate"][0], signed=True) == "+3.6"
