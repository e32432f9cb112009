"""What is seen on a figure, in words: for who cannot see it, and as its caption."""

from typing import Any

import pandas as pd

from workflow.report.collect import HEADINGS, first_column
from workflow.report.numbers import counted, shown

MOST = 6  # rows that are named


def seen(kind: str, table: dict[str, Any], drawn: pd.DataFrame) -> str:
    """Return what a figure shows, with the numbers that stand out.

    Args:
        kind: of the figure.
        table: what `Plan.declaration` returns.
        drawn: what the figure's CSV holds.
    """
    return f"{table['title']}. {SEEN[kind](table, drawn)}"


def _points(table: dict[str, Any], drawn: pd.DataFrame) -> str:
    value = "mean_all" if "mean_all" in drawn else "mean"
    column = "all" if "mean_all" in drawn else first_column(table)
    what = "Accuracy" if column == "all" else HEADINGS[column]
    against = ", against that of the few-shot classes" if "mean_all" in drawn else ""
    intervals = ", with 95 % intervals" if drawn[value.replace("mean", "low")].notna().any() else ""
    names = (drawn["series"] + " " + drawn["label"]).str.strip()
    high, low = drawn[value].idxmax(), drawn[value].idxmin()
    return (
        f"{what} of {counted(len(drawn), 'row')} ({table['row_name']}){against}{intervals}: highest "
        f"{names[high]} ({shown(drawn[value][high])} %), lowest {names[low]} ({shown(drawn[value][low])} %)."
    )


def _last(drawn: pd.DataFrame, quantity: str, what: str) -> str:
    """Return the last value of each line."""
    part = drawn[(drawn["quantity"] == quantity) & drawn["mean"].notna()]
    last = part.sort_values("epoch", kind="stable").groupby("name", sort=False)["mean"].last()
    if last.empty:
        return ""
    texts = [f"{name} {shown(value)} %" for name, value in last.items()][:MOST]
    return f" {what} at the end: {', '.join(texts)}{', ...' if len(last) > MOST else ''}."


def _curves(table: dict[str, Any], drawn: pd.DataFrame) -> str:
    return f"Lines over epochs, training loss and test accuracy.{_last(drawn, 'test_accuracy', 'Test accuracy')}"


def _bank(table: dict[str, Any], drawn: pd.DataFrame) -> str:
    return f"Lines over epochs, confident images and fill of the bank.{_last(drawn, 'confident', 'Confident images')}"


def _pretraining(table: dict[str, Any], drawn: pd.DataFrame) -> str:
    end = _last(drawn, "test_accuracy", "kNN accuracy")
    return f"Lines over epochs, loss, spread of the outputs (0 is collapse) and accuracy of a kNN probe.{end}"


def _classes(table: dict[str, Any], drawn: pd.DataFrame) -> str:
    texts = []
    for name, part in list(drawn.groupby("name", sort=False))[:MOST]:
        both = part.loc[[part["images"].idxmax(), part["images"].idxmin()]]
        values = " to ".join(f"{shown(value)} %" for value in both["mean"])
        texts.append(f"{name} {values}")
    most, fewest = (drawn.loc[at] for at in (drawn["images"].idxmax(), drawn["images"].idxmin()))
    ends = f"from {most['label']} ({most['images']} training images) to {fewest['label']} ({fewest['images']})"
    return f"Test accuracy of each class, {ends}: {', '.join(texts)}."


def _confusion(table: dict[str, Any], drawn: pd.DataFrame) -> str:
    wrong = drawn[(drawn["true"] != drawn["predicted"]) & (drawn["percent"] > 0)].nlargest(3, "percent")
    texts = [
        f"{line['true_label']} taken for {line['predicted_label']} ({shown(line['percent'])} %)"
        for line in wrong.to_dict("records")
    ]
    most = f"most often {', '.join(texts)}" if texts else "none is taken for another"
    return f"Which class is taken for which by {drawn['name'].iloc[0]}; {most}."


SEEN = {
    "points": _points,
    "curves": _curves,
    "bank": _bank,
    "pretraining": _pretraining,
    "per_class": _classes,
    "classes": _classes,
    "confusion": _confusion,
}
