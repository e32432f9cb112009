"""Figures over epochs: curves, the bank, and pre-training."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from csa_core.errors import UserError, say
from workflow.report.drawing import (
    axes_of,
    epochs_below,
    face,
    histories,
    key,
    label_of,
    legend_above,
    means,
    ordered,
    percent_axis,
    style_of,
)
from workflow.report.style import DASHES, plain, text_size


def curves(table: dict[str, Any], values: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw loss and accuracy over epochs for the rows of a table; thin lines are single seeds."""
    history = histories(table, values, "loss", "test_accuracy")
    quantities = [("loss", "Training loss\n(ours: uniform branch)", 1), ("test_accuracy", "Test accuracy (%)", 100)]
    quantities = _recorded(history, quantities)
    figure, axis = axes_of(len(quantities), 1.9 * len(quantities))
    drawn = _panels(axis, quantities, history)
    _log_axis(axis[0])
    legend_above(axis[0])
    epochs_below(axis[-1])
    key(figure, values, "line", "thin")
    face(figure, table, values)
    return figure, drawn


def bank(table: dict[str, Any], values: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the share of confident images and the fill of the bank over epochs, means over seeds."""
    history = histories(table, values, "phase", "confident", "bank_fill")
    history = history[history["phase"] != "plain"].dropna()  # the bank rests in the last epochs
    names = list(dict.fromkeys(history["name"]))
    values = values[values["name"].isin(names)]
    if not names:
        raise UserError(f"bank-{table['name']}: none of its runs has a bank; choose a table with csa rows")
    figure, axis = axes_of(2, 3.4)
    drawn = []
    quantities = [("confident", "Confident images (%)"), ("bank_fill", "Fill of the bank (%)")]
    for ax, (column, label) in zip(axis, quantities, strict=True):
        for i, (name, part) in enumerate(history.groupby("name", sort=False)):
            line = means(part.assign(percent=100 * part[column]), ["name", "epoch"])
            drawn.append(line.assign(quantity=column))
            # Rows of a sweep have an order, and so do these colours.
            style = {"color": ordered(i, len(names)), "linestyle": DASHES[i % 4]}
            ax.plot(line["epoch"], line["mean"], label=label_of(name, i, len(names)), **style)
        ax.set_ylabel(label)
        ax.set_ylim(-3, 103)
    legend_above(axis[0], title=plain(table["row_name"]))
    epochs_below(axis[1])
    key(figure, values, "line")
    face(figure, table, values)
    return figure, pd.concat(drawn)


def pretraining(table: dict[str, Any], values: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw loss, spread of the projector's outputs and kNN accuracy over epochs; thin lines are single seeds.

    The spread is the standard deviation of normalised outputs, in units of the 1 / sqrt(d) of outputs
    that fill the sphere: near 1 is healthy, 0 is collapse.
    """
    encoders = values[values["head"] == "knn"]
    encoders = encoders.assign(name=encoders["series"].where(encoders["series"] != "", encoders["label"]))
    if encoders.empty:
        raise UserError(f"pretraining-{table['name']}: none of its rows is a kNN probe; choose encoders")
    history = histories(table, encoders, "loss", "projector_std", "projector_std_expected", "test_accuracy")
    history["spread"] = history["projector_std"] / history["projector_std_expected"]
    quantities = [
        ("loss", "Loss (−cosine)", 1),
        ("spread", "Output spread\n(times 1 / √d)", 1),
        ("test_accuracy", "kNN test\naccuracy (%)", 100),
    ]
    quantities = _recorded(history, quantities)
    figure, axis = axes_of(len(quantities), 4.6 if len(quantities) == 3 else 3.1)
    drawn = _panels(axis, quantities, history)
    axis[1].axhline(1, color="0.6", lw=0.6, ls=":")
    axis[1].set_ylim(-0.05, 1.15)
    axis[1].annotate(
        "0: collapse", (0.99, 0.06), xycoords="axes fraction", ha="right", fontsize=text_size(6), color="0.4"
    )
    legend_above(axis[0])
    epochs_below(axis[-1])
    key(figure, values, "line", "thin")
    face(figure, table, values)
    return figure, drawn


def _recorded(history: pd.DataFrame, quantities: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """Return the quantities that the histories hold, and say which they do not: an empty panel would say nothing."""
    if history["test_accuracy"].notna().any():
        return quantities
    say("no test accuracy in these histories, so none is drawn; evaluate_every: N records it")
    return [each for each in quantities if each[0] != "test_accuracy"]


def _log_axis(axis: Axes) -> None:
    """Let an axis that spans more than a factor of three be logarithmic, its ticks plain numbers."""
    low, high = axis.dataLim.intervaly
    if 0 < 3 * low < high:
        axis.set_yscale("log")
        axis.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter=StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())


def _panels(axis: list[Axes], quantities: list[tuple[str, str, int]], history: pd.DataFrame) -> pd.DataFrame:
    """Draw each quantity, of column, label and scale, into axes of its own; return what is drawn."""
    names, drawn = list(dict.fromkeys(history["name"])), []
    for ax, (column, label, scale) in zip(axis, quantities, strict=True):
        drawn.append(_lines(ax, history, column, scale, names))
        if scale == 100:
            percent_axis(ax, "y", label, is_low=True)
        else:
            ax.set_ylabel(label)
    return pd.concat(drawn)


def _lines(ax: Axes, history: pd.DataFrame, column: str, scale: float, names: list[str]) -> pd.DataFrame:
    """Draw a column of histories over epochs, a line a name and a thin one a seed; return what is drawn."""
    drawn = []
    for i, (name, part) in enumerate(history.groupby("name", sort=False)):
        part = part.dropna(subset=column)
        line = means(part.assign(percent=scale * part[column]), ["name", "epoch"])
        drawn.append(line.assign(quantity=column))
        style = style_of(i, len(names)) | ({"marker": "o"} if len(line) == 1 else {})  # a point alone is no line
        ax.plot(line["epoch"], line["mean"], label=label_of(name, i, len(names)), **style)
        for _, single in part.groupby("seed"):
            ax.plot(single["epoch"], scale * single[column], color=style["color"], lw=0.4, alpha=0.35)
    return pd.concat(drawn)
