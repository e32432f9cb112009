"""Text that a person chose, as it may stand in CSV and in Markdown."""

from typing import Any

import pandas as pd

from csa_core.errors import cell


def csv_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV in which no text is a formula to a spreadsheet: an apostrophe stands before `=cmd`."""

    def plain(value: Any) -> Any:  # pandas would begin a line at a carriage return
        return cell(value.replace("\r", " ")) if isinstance(value, str) else value

    texts = frame.select_dtypes(["object", "string"]).columns
    return str(frame.assign(**{name: frame[name].map(plain) for name in texts}).to_csv(index=False))


def markdown_text(text: str) -> str:
    """Return text as it may stand in one cell, or one heading, of Markdown."""
    return " ".join(text.split()).replace("|", "\\|")
