"""Text that a person chose, where something else could read it as more than text."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from csa_core.errors import UserError
from tests.conftest import ROOT
from workflow.report.style import save
from workflow.report.texts import csv_text, markdown_text


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1+cmd()", "-2+3", "@SUM(A1)", "\t=1"])
def test_no_text_is_a_formula_to_a_spreadsheet(text: str) -> None:
    frame = pd.DataFrame({"label": [text, "plain"], "mean": [-1.5, 2.0]})
    rows = list(csv.reader(io.StringIO(csv_text(frame), newline="")))
    assert rows == [["label", "mean"], [f"'{text}", "-1.5"], ["plain", "2.0"]]


@pytest.mark.parametrize("number", ["-1", "+0.5", "-1e-05", "0.3", "-2.5E+10"])
def test_a_number_stays_one(number: str) -> None:
    read = pd.read_csv(io.StringIO(csv_text(pd.DataFrame({"label": [number]}))))
    assert read["label"].tolist() == [float(number)]


def test_a_carriage_return_begins_no_line() -> None:
    assert csv_text(pd.DataFrame({"label": ["a\r=1"]})) == "label\na =1\n"


def test_a_cell_of_markdown_is_one_cell() -> None:
    assert markdown_text("a|b\nc  d") == r"a\|b c d"


def test_a_title_that_is_no_formula_is_named(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure()
    figure.suptitle(r"costs $\frac{1$ or so")
    with pytest.raises(UserError, match=r"x: cannot be drawn \(.*\); write a \$ of a title or label as"):
        save(figure, str(tmp_path / "x"))
    assert not list(tmp_path.iterdir())


def test_an_error_moves_no_cursor() -> None:
    assert str(UserError("a\x1b[2J\u202eb: c\nd")) == "a\\x1b[2J\\u202eb: c d"


def test_the_status_has_its_reader_gone_or_full() -> None:
    command = [sys.executable, "-m", "workflow.status"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr == "status: output: No space left on device\n"
    closed = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" --config - <&-', "sh", *command], capture_output=True, text=True, cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )  # fmt: skip
    assert closed.returncode == 2 and closed.stderr.startswith("status: stdin: cannot be read"), closed.stderr
