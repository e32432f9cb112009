"""Figures of single classes: accuracy over training images, bars by name, and which are taken for which."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from csa_core.store import read_sealed
from workflow.report.by_class import class_names, recalls, runs_of
from workflow.report.collect import folder_of
from workflow.report.drawing import axes_of, face, key, legend_above, means, percent_axis, style_of
from workflow.report.numbers import shown
from workflow.report.recount import unpack
from workflow.report.style import MARKERS, WIDTH, class_title, inches, plain, text_size

NAMED = 20  # classes of which each is drawn; more are a cloud
NUMBERED = 12  # classes of which a matrix has room for numbers
HATCHES = ["", "////", "....", "xxxx", "----", "oo"]
MOST_BARS = 60


def per_class(table: dict[str, Any], values: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the accuracy of each class over its number of training images; small dots are single seeds."""
    singles = recalls(table, values)
    drawn = means(singles, ["name", "class", "label", "images"])
    names = list(dict.fromkeys(drawn["name"]))
    is_cloud = drawn["class"].nunique() > NAMED
    figure, (axis,) = axes_of(1, 2.6)
    for i, name in enumerate(names):
        part, style = drawn[drawn["name"] == name].sort_values("images"), style_of(i, len(names))
        sign: dict[str, Any] = {"marker": MARKERS[i % 8], "ms": 3}
        if is_cloud:  # a line through tenths of them says more
            axis.plot(
                part["images"], part["mean"], ls="", alpha=0.35, color=style["color"], marker=sign["marker"], ms=1.5
            )
            tenth = pd.qcut(part["images"], 10, duplicates="drop", labels=False).fillna(0)  # all alike have no edges
            part = part[["images", "mean"]].groupby(tenth).mean()
            axis.plot(part["images"], part["mean"], label=plain(name), **sign, **style)
            continue
        aside = 1.035 ** (i - (len(names) - 1) / 2)  # so that no row hides another
        single = singles[singles["name"] == name]
        axis.plot(single["images"] * aside, single["percent"], ".", ms=1.5, alpha=0.5, color=style["color"])
        reach = np.abs(part[["low", "high"]].to_numpy().T - part["mean"].to_numpy())
        bars: dict[str, Any] = {"ls": "", "lw": 0.6, "color": style["color"], "label": plain(name)}
        axis.errorbar(part["images"] * aside, part["mean"], reach, **sign, **bars)
    axis.set(xscale="log", xlabel="Training images of the class")
    _count_ticks(axis, sorted(drawn["images"].unique()))
    percent_axis(axis, "y", "Test accuracy of the class (%)")
    legend_above(axis)
    if is_cloud:
        axis.set_xlabel("Training images of the class\n(small: one class; large: mean of a tenth of them)")
    else:
        key(figure, values, "mean", "bar", "dot")
    face(figure, table, values)
    return figure, drawn


def class_bars(table: dict[str, Any], values: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw a bar a class and row, named, the class with most training images first."""
    singles = recalls(table, values)
    drawn = means(singles, ["name", "class", "label", "images"])
    names = list(dict.fromkeys(drawn["name"]))
    most = max(1, MOST_BARS // drawn["class"].nunique())
    if len(names) > most:
        chosen = [_reference(table, values), *names]
        names = [name for name in names if name in list(dict.fromkeys(chosen))[:most]]
        drawn, values = (frame[frame["name"].isin(names)] for frame in (drawn, values))
    order = drawn.drop_duplicates("class").sort_values(["images", "class"], ascending=[False, True])
    place = {number: x for x, number in enumerate(order["class"])}
    figure, axis = plt.subplots(figsize=inches(2 * WIDTH, 2.9), layout="constrained")
    for i, name in enumerate(names):
        part = drawn[drawn["name"] == name]
        at = part["class"].map(place) + 0.8 * ((i + 0.5) / len(names) - 0.5)
        reach = np.abs(part[["low", "high"]].to_numpy().T - part["mean"].to_numpy())
        look = {"color": style_of(i, len(names))["color"], "hatch": HATCHES[i % 6], "edgecolor": "white", "lw": 0}
        errors = {"elinewidth": 0.6, "ecolor": "black"}
        axis.bar(at, part["mean"], 0.8 / len(names), yerr=reach, label=plain(name), error_kw=errors, **look)
    # What differs between rows, for they are of different data, stands at no class.
    alike = drawn.groupby("class")[["label", "images"]].nunique().max() == 1
    ticks = [
        (class_title(name, k) if alike["label"] else f"class {k}") + (f" ({count})" if alike["images"] else "")
        for k, name, count in order[["class", "label", "images"]].to_numpy()
    ]
    axis.set_xticks(range(len(ticks)), ticks, rotation=90, fontsize=text_size(min(6.0, 430 / len(ticks))))
    axis.set(ylim=(0, 103), xlim=(-0.6, len(ticks) - 0.4))
    axis.set_xlabel("Class (training images)" if alike["images"] else "Class")
    axis.set_ylabel("Test accuracy of the class (%)")
    legend_above(axis, 3)
    key(figure, values, "bar")
    face(figure, table, values)
    return figure, drawn


def confusion(table: dict[str, Any], values: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw what the classes are taken for by the reference run, or else the first row; mean over seeds."""
    name = _reference(table, values)
    parts, counts, runs = [], [], runs_of(values[values["name"] == name]).to_dict("records")
    labels = class_names(table, runs[0])
    for row in runs:
        path = folder_of(table, row, row["seed"]) / "metrics.json"
        metrics = read_sealed(path)
        counts = metrics["class_counts"]
        matrix = unpack(metrics["heads"][row["head"]].get("confusion", ""), len(counts), path)
        images = matrix.sum(1, keepdims=True)
        parts.append(np.where(images > 0, 100 * matrix / np.maximum(images, 1), np.nan))
    order = sorted(range(len(counts)), key=lambda k: (-counts[k], k))
    shares = np.mean(parts, axis=0)[np.ix_(order, order)]
    names = [class_title(labels[k], k) for k in order]
    width = (1.25 if len(order) <= NAMED else 2) * WIDTH
    figure, axis = plt.subplots(figsize=inches(width, 0.95 * width), layout="constrained")
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    size = text_size(min(6.0, 430 / len(order)))
    axis.set_xticks(range(len(order)), names, rotation=90, fontsize=size)
    axis.set_yticks(
        range(len(order)), [f"{text} ({counts[k]})" for text, k in zip(names, order, strict=True)], fontsize=size
    )
    if len(order) <= NUMBERED:
        for y, x in np.argwhere(shares >= 0.5):
            colour = "white" if shares[y, x] > 50 else "black"
            axis.text(x, y, shown(shares[y, x], 0), ha="center", va="center", fontsize=text_size(5), color=colour)
    axis.tick_params(length=2, width=0.3)
    axis.set(xlabel="Predicted class", ylabel="True class (training images)")
    several = ", mean over seeds" if len(parts) > 1 else ""
    axis.set_title(plain(name), fontsize=text_size(7))
    figure.colorbar(image, ax=axis, shrink=0.7, label=f"Share of the true class's test images (%){several}")
    face(figure, table, values[values["name"] == name])
    true, predicted = np.indices(shares.shape).reshape(2, -1)
    drawn = {"name": name, "true": np.array(order)[true], "true_label": [labels[order[k]] for k in true]}
    drawn |= {"predicted": np.array(order)[predicted], "predicted_label": [labels[order[k]] for k in predicted]}
    return figure, pd.DataFrame(drawn | {"percent": shares.ravel(), "seeds": len(parts)})


def _count_ticks(axis: Axes, counts: list[int]) -> None:
    """Let ticks stand at the classes' own counts, as many as there is room for, the ends always."""
    kept = [counts[-1]]
    room = (counts[-1] / counts[0]) ** (1 / 11)
    for count in reversed(counts[:-1]):
        if kept[-1] / count >= room and (count == counts[0] or count / counts[0] >= room):
            kept.append(count)
    kept.append(counts[0])
    axis.set_xticks(sorted(set(kept)), [f"{count}" for count in sorted(set(kept))])
    axis.xaxis.set_minor_locator(NullLocator())


def _reference(table: dict[str, Any], values: pd.DataFrame) -> str:
    """Return the name of the reference run's row, or of the first one."""
    numbers = values["row"].unique()
    row = next((n for n in numbers if table["rows"][n]["reference"]), numbers[0])
    return str(values.loc[values["row"] == row, "name"].iloc[0])
