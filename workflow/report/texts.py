"""Text that a person chose, as it may stand in CSV and in Markdown."""

import re
from typing import Any

import pandas as pd

NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")


def csv_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV in which no text is a formula to a spreadsheet: an apostrophe stands before `=cmd`."""

    def plain(cell: Any) -> Any:
        if not isinstance(cell, str):
            return cell
        cell = cell.replace("\r", " ")  # pandas would begin a line there
        return f"'{cell}" if cell[:1] in tuple("=+-@\t") and not NUMBER.fullmatch(cell) else cell

    texts = frame.select_dtypes(["object", "string"]).columns
    return str(frame.assign(**{name: frame[name].map(plain) for name in texts}).to_csv(index=False))


def markdown_text(text: str) -> str:
    """Return text as it may stand in one cell, or one heading, of Markdown."""
    return " ".join(text.split()).replace("|", "\\|")
