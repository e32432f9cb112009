"""Figures of a table's rows: by category, along a number, All against Few, or as a picture of the table."""

from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from csa_core.errors import UserError
from workflow.report.collect import HEADINGS, first_column
from workflow.report.drawing import GREY, axes_of, face, key, legend_above, means, percent_axis, style_of
from workflow.report.style import MARKERS, WIDTH, inches, plain, text_size

ASIDE = [(1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)]
"""Where a name may stand, across and up from its point."""
LEAD = {"arrowstyle": "-", "lw": 0.4, "shrinkA": 0, "shrinkB": 2}
"""The line from a name to its point."""
BEHIND = {"boxstyle": "square,pad=0.05", "facecolor": "white", "edgecolor": "none", "alpha": 0.7}
"""Behind a name, so that the intervals below do not strike it out."""
POINT = 4  # pixels from the middle of a point to its edge


def points(table: dict[str, Any], values: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the first column of a table over its rows; `draw: scatter` draws All against Few."""
    if table["draw"] == "scatter":
        return scatter(table, values)
    column = first_column(table)
    shown = values[(values["column"] == column) & values["value"].notna()].assign(percent=lambda v: 100 * v["value"])
    if shown.empty:
        raise UserError(f"{table['name']}: no row has {HEADINGS[column]}, its first column; name another one first")
    drawn = means(shown, ["series", "label"])
    label = "Accuracy, all classes (%)" if column == "all" else f"{HEADINGS[column]} (%)"
    figure = {"line": _line, "categories": _categories, "no": _overview}[table["draw"]](table, shown, drawn, label)
    face(figure, table, values)
    return figure, drawn


def _line(table: dict[str, Any], shown: pd.DataFrame, drawn: pd.DataFrame, label: str) -> Figure:
    figure, (axis,) = axes_of(1, 2.5)
    series = list(dict.fromkeys(shown["series"]))
    for i, name in enumerate(series):
        part, runs = (frame[frame["series"] == name] for frame in (drawn, shown))
        part = part.iloc[np.argsort(_numbers(table, part["label"]), kind="stable")]  # a sweep may have any order
        x, style = _numbers(table, part["label"]), style_of(i, len(series))
        axis.plot(x, part["mean"], marker=MARKERS[i % 8], label=plain(name), **style)
        axis.fill_between(x, part["low"], part["high"], color=style["color"], alpha=0.12, linewidth=0)
        alone = _stands_alone(part["low"].notna().to_numpy())
        axis.vlines(x[alone], part["low"][alone], part["high"][alone], color=style["color"], alpha=0.3, linewidth=3)
        dots = {"marker": MARKERS[i % 8], "ms": 1.5, "ls": "", "color": style["color"], "alpha": 0.6}
        axis.plot(_numbers(table, runs["label"]), runs["percent"], **dots)
    axis.set_xlabel(plain(table["row_name"]))
    if drawn["label"].nunique() == 1:
        axis.set_xticks([float(drawn["label"].iloc[0])])  # the others would be of no row
    percent_axis(axis, "y", label)
    if len(series) > 1:
        legend_above(axis)
    key(figure, shown, "mean", "band", "dot")
    return figure


def _stands_alone(has_interval: np.ndarray) -> np.ndarray:
    """Return which points have an interval and no neighbour with one, so that a band there has no width."""
    padded = np.pad(has_interval, 1)
    return has_interval & ~padded[:-2] & ~padded[2:]


def _categories(table: dict[str, Any], shown: pd.DataFrame, drawn: pd.DataFrame, label: str) -> Figure:
    series = list(dict.fromkeys(shown["series"]))
    counts = [drawn["series"].eq(name).sum() for name in series]
    figure, axes = plt.subplots(
        1,
        len(series),
        figsize=inches(WIDTH, 2.4),
        sharey=True,
        layout="constrained",
        width_ratios=counts,
        squeeze=False,
    )
    for i, (name, axis) in enumerate(zip(series, axes[0], strict=True)):
        part, runs = (frame[frame["series"] == name] for frame in (drawn, shown))
        place = {text: x for x, text in enumerate(part["label"])}
        _bars(axis, part, runs, place, i, len(series))
        axis.set_xticks(list(place.values()), list(map(plain, place)), rotation=45, ha="right")
        axis.set_title(plain(name[:1].upper() + name[1:]), fontsize=text_size(7))
    percent_axis(axes[0, 0], "y", label)
    key(figure, shown, "mean", "bar", "dot", title=plain(table["row_name"]))
    return figure


def _overview(table: dict[str, Any], shown: pd.DataFrame, drawn: pd.DataFrame, label: str) -> Figure:
    """Draw a line a row, from top to bottom as the table has them."""
    figure, (axis,) = axes_of(1, 1.15 + 0.19 * len(drawn))
    series = list(dict.fromkeys(shown["series"]))
    names = (drawn["series"] + " " + drawn["label"]).str.strip()
    for i, name in enumerate(series):
        part, runs = (frame[frame["series"] == name] for frame in (drawn, shown))
        place = dict(zip(part["label"], part.index, strict=True))
        _bars(axis, part, runs, place, i, len(series), is_flat=True)
    axis.set_yticks(range(len(names)), list(map(plain, names)))
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="x", lw=0.3, color="0.85")
    axis.set_ylabel(plain(table["row_name"]))
    percent_axis(axis, "x", label)
    key(figure, shown, "mean", "flat", "dot")
    return figure


def _bars(
    axis: Axes, part: pd.DataFrame, runs: pd.DataFrame, place: dict[str, int], i: int, count: int, is_flat: bool = False
) -> None:
    """Draw means with their intervals, and the single seeds beside them where there are several."""
    runs = runs[runs.groupby("label")["seed"].transform("size") > 1]
    reach = np.abs(part[["low", "high"]].to_numpy().T - part["mean"].to_numpy())
    colour = style_of(i, count)["color"]
    at, beside = list(place.values()), [place[label] + 0.25 for label in runs["label"]]
    look = {"fmt": MARKERS[i % 8], "color": colour, "capsize": 2, "lw": 1}
    if is_flat:
        axis.errorbar(part["mean"], at, xerr=reach, **look)
        axis.plot(runs["percent"], beside, ".", ms=2.5, color=GREY)
    else:
        axis.errorbar(at, part["mean"], reach, **look)
        axis.plot(beside, runs["percent"], ".", ms=2.5, color=GREY)


def scatter(table: dict[str, Any], values: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw All against Few, a point a row with its intervals, named beside it; a colour a series."""
    both = {}
    for column in ("all", "few"):
        shown = values[(values["column"] == column) & values["value"].notna()]
        both[column] = means(shown.assign(percent=100 * shown["value"]), ["series", "label"])
    if not len(both["few"]):
        raise UserError(f"{table['name']}: draw: scatter needs few-shot classes, and there are none")
    drawn = both["all"].merge(both["few"], on=["series", "label", "seeds"], suffixes=("_all", "_few"))
    figure, axes = plt.subplots(figsize=inches(1.6 * WIDTH, 1.4 * WIDTH), layout="constrained")
    series, names = list(dict.fromkeys(drawn["series"])), []
    for i, name in enumerate(series):
        part = drawn[drawn["series"] == name]
        # A single seed has no interval: its reach is drawn as nothing.
        reach = {
            column: np.abs(part[[f"low_{column}", f"high_{column}"]].to_numpy().T - part[f"mean_{column}"].to_numpy())
            for column in both
        }
        colour = style_of(i, len(series))["color"]
        bars = {"fmt": MARKERS[i % 8], "color": colour, "lw": 0.5, "label": plain(name)}
        axes.errorbar(part["mean_all"], part["mean_few"], reach["few"], reach["all"], **bars)
        for line in part.to_dict("records"):
            place = (line["mean_all"], line["mean_few"])
            beside = {"xytext": (0, 0), "textcoords": "offset points", "fontsize": text_size(5), "color": colour}
            look: dict[str, Any] = {"arrowprops": LEAD | {"color": colour}, "bbox": BEHIND}
            names.append(axes.annotate(plain(line["label"]), place, **look, **beside))
    is_cut = _frame(axes, drawn)
    percent_axis(axes, "x", "Accuracy, all classes (%)")
    percent_axis(axes, "y", f"{HEADINGS['few']} (%)")
    if len(series) > 1:
        legend_above(axes, columns=4)
    key(figure, values, "mean", "cross", is_cut=is_cut)
    face(figure, table, values)
    _set_apart(figure, axes, names)
    return figure, drawn


def _frame(axes: Axes, drawn: pd.DataFrame) -> bool:
    """Let the points fill the axes; return whether that cuts intervals, as those of two seeds can dwarf all else."""
    is_cut = False
    for column, name in (("all", "x"), ("few", "y")):
        mean, ends = drawn[f"mean_{column}"], drawn[[f"low_{column}", f"high_{column}"]].to_numpy()
        low, high = getattr(axes, f"get_{name}lim")()
        room = 0.4 * max(np.ptp(mean), 1)
        low, high = max(low, mean.min() - room, -0.1 * room), min(high, mean.max() + room)
        getattr(axes, f"set_{name}lim")(low, high)
        is_cut |= bool((ends < low).any() or (ends > high).any())
    return is_cut


def _set_apart(figure: Figure, axes: Axes, names: list[Annotation]) -> None:
    """Put each name at the nearest place beside its point where it covers no other name, no point and not the key."""
    figure.draw_without_rendering()
    legend = axes.get_legend()
    taken = [legend.get_window_extent()] if legend else []
    points = axes.transData.transform([name.xy for name in names])
    taken += [Bbox([point - POINT, point + POINT]) for point in points]
    for name in names:
        for distance, (across, up) in product(range(4, 90, 4), ASIDE):
            sides = {1: "left", 0: "center", -1: "right"}[across], {1: "bottom", 0: "center", -1: "top"}[up]
            name.set(position=(across * distance, up * distance), ha=sides[0], va=sides[1])
            box = Text.get_window_extent(name)
            if not box.count_overlaps(taken):
                break
        taken.append(box)


def _numbers(table: dict[str, Any], labels: pd.Series) -> pd.Series:
    try:
        return labels.astype(float)
    except ValueError:
        raise UserError(f"{table['name']}: draw: line needs labels that are numbers; use draw: categories") from None
