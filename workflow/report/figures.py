"""Draw one figure: `python -m workflow.report.figures FIGURE --out PREFIX`.

A figure is of a kind: `points` (the first column of the table over its rows), `curves` (loss and accuracy over
epochs), `per_class` (recall of each class over its training images) or `bank` (confident images and
fill of the bank over epochs). Writes PREFIX.pdf, .svg, .png, and .csv with what is drawn. Lines and
markers are means over seeds, bars and bands their 95 % intervals (Student's t), small dots and thin
lines single seeds.
"""

import argparse
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from csa_core import store
from csa_core.errors import UserError
from csa_core.store import read_json
from workflow.report.collect import collect, folder_of, name_of
from workflow.report.declared import plan_option, read_plan
from workflow.report.style import COLOURS, DASHES, MARKERS, WIDTH, save, use_style
from workflow.report.summary import paired_interval


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.report.figures", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "figure", metavar="FIGURE", help="figure1, figure2, curves-TABLE, per_class-TABLE or bank-TABLE"
    )
    plan_option(parser)
    parser.add_argument("--out", required=True, metavar="PREFIX", help="files to write, without .pdf, .svg, .png, .csv")
    args = parser.parse_args(argv)
    use_style()
    try:
        plan = read_plan(args)
        kind, name = plan.drawn(args.figure)
        table = plan.declaration(name)
        values, _ = collect(table, plan.code)
        figure, drawn = KINDS[kind](table, values)
        save(figure, args.out)
        store.write_bytes(Path(f"{args.out}.csv"), drawn.to_csv(index=False).encode())
    except UserError as error:
        print(f"figures: {error}", file=sys.stderr)
        return 2
    return 0


def points(table: dict[str, Any], values: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw accuracy over the rows of a table: by category, or along a number, a line a series."""
    shown = values[values["column"] == table["columns"][0]].assign(percent=lambda v: 100 * v["value"])
    drawn = _means(shown, ["series", "label"])
    series = list(dict.fromkeys(shown["series"]))
    if table["draw"] == "line":
        figure, axis = _axes(1, WIDTH, 2.3)
        for i, name in enumerate(series):
            part, runs = drawn[drawn["series"] == name], shown[shown["series"] == name]
            x = part["label"].astype(float)
            _band(axis[0], x, part, i, name)
            axis[0].plot(runs["label"].astype(float), runs["percent"], ".", ms=2, color=COLOURS[i], alpha=0.6)
        axis[0].set_xlabel(table["row_name"])
        axis[0].legend()
    else:
        counts = [drawn["series"].eq(name).sum() for name in series]
        figure, axes = plt.subplots(
            1, len(series), figsize=(WIDTH, 2.1), sharey=True, layout="constrained", width_ratios=counts, squeeze=False
        )
        axis = axes[0]
        for i, name in enumerate(series):
            part, runs = drawn[drawn["series"] == name], shown[shown["series"] == name]
            x = np.arange(len(part))
            place = dict(zip(part["label"], x, strict=True))
            _bars(axis[i], x, part, i, "none")
            beside = [place[label] + 0.22 for label in runs["label"]]
            axis[i].plot(beside, runs["percent"], ".", ms=2.5, color="0.45")
            axis[i].set_xticks(x, part["label"], rotation=45, ha="right")
            axis[i].set_title(name.capitalize(), fontsize=7)
        figure.supxlabel(table["row_name"], fontsize=7)
    axis[0].set_ylabel("Accuracy, all classes (%)")
    _face(figure, table)
    return figure, drawn


def curves(table: dict[str, Any], values: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw loss and accuracy over epochs for the runs of a table."""
    history = _histories(table)
    # The head that predicts: a run has either one head or a re-sampling head.
    heads = history.filter(["test_accuracy_single", "test_accuracy_resampling"])
    history["test_accuracy"] = heads.bfill(axis=1).iloc[:, 0] if heads.size else np.nan
    figure, axis = _axes(2, WIDTH, 3.6, sharex=True)
    drawn = []
    quantities = [("loss", "Training loss\n(ours: uniform branch)", 1), ("test_accuracy", "Test accuracy (%)", 100)]
    for ax, (column, label, scale) in zip(axis, quantities, strict=True):
        for i, name in enumerate(dict.fromkeys(history["name"])):
            part = history[history["name"] == name].dropna(subset=column)
            line = _means(part.assign(percent=scale * part[column]), ["name", "epoch"])
            drawn.append(line.assign(quantity=column))
            ax.plot(line["epoch"], line["mean"], DASHES[i % 4], color=COLOURS[i % 8], label=name)
            for _, single in part.groupby("seed"):
                ax.plot(single["epoch"], scale * single[column], color=COLOURS[i % 8], lw=0.4, alpha=0.35)
        ax.set_ylabel(label)
    axis[0].set_yscale("log")
    axis[0].legend(loc="lower left")
    axis[1].set_xlabel("Epoch")
    axis[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    _face(figure, table)
    return figure, pd.concat(drawn)


def per_class(table: dict[str, Any], values: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the recall of each class over its number of training images."""
    lines = []
    for row, seed, metrics in _metrics(table):
        scores = metrics["heads"][row["head"] or metrics["predicts"]]
        for k, count in enumerate(metrics["class_counts"]):
            recall = 100 * scores["correct"][k] / scores["images"][k]
            lines.append({"name": name_of(row), "class": k, "images": count, "seed": seed, "percent": recall})
    drawn = _means(pd.DataFrame(lines), ["name", "class", "images"])
    figure, axis = _axes(1, WIDTH, 2.4)
    for i, name in enumerate(dict.fromkeys(drawn["name"])):
        part = drawn[drawn["name"] == name].sort_values("images")
        many = len(part) > 20  # a hundred classes are a cloud, and a line through it says more
        if many:
            axis[0].plot(part["images"], part["mean"], ".", ms=2, alpha=0.35, color=COLOURS[i])
            tenth = pd.qcut(part["images"], 10, duplicates="drop", labels=False)
            part = part[["images", "mean"]].groupby(tenth).mean()
        axis[0].plot(part["images"], part["mean"], DASHES[i % 4], marker=MARKERS[i], ms=3, color=COLOURS[i], label=name)
    axis[0].set(xscale="log", xlabel="Training images of the class", ylabel="Test accuracy of the class (%)")
    axis[0].legend()
    _face(figure, table)
    return figure, drawn


def bank(table: dict[str, Any], values: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the share of confident images and the fill of the bank over epochs."""
    history = _histories(table).dropna(subset="confident")
    history = history[history["phase"] != "plain"]  # the bank rests in the last epochs
    names = list(dict.fromkeys(history["name"]))
    figure, axis = _axes(2, WIDTH, 3.4, sharex=True)
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.92, len(names)))
    drawn = []
    for ax, (column, label) in zip(
        axis, [("confident", "Confident images (%)"), ("bank_fill", "Fill of the bank (%)")], strict=True
    ):
        for colour, name in zip(colours, names, strict=True):
            part = history[history["name"] == name]
            line = _means(part.assign(percent=100 * part[column]), ["name", "epoch"])
            drawn.append(line.assign(quantity=column))
            ax.plot(line["epoch"], line["mean"], color=colour, label=name)
        ax.set_ylabel(label)
        ax.set_ylim(-3, 103)
    axis[0].legend(title=table["row_name"], ncols=2)
    axis[1].set_xlabel("Epoch")
    axis[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    _face(figure, table)
    return figure, pd.concat(drawn)


KINDS: dict[str, Callable[[dict[str, Any], pd.DataFrame], tuple[Figure, pd.DataFrame]]] = {
    "points": points,
    "curves": curves,
    "per_class": per_class,
    "bank": bank,
}


def _axes(rows: int, width: float, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    figure, axes = plt.subplots(rows, 1, figsize=(width, height), layout="constrained", squeeze=False, **options)
    return figure, list(axes[:, 0])


def _face(figure: Figure, table: dict[str, Any]) -> None:
    """Write on the figure what was run, so that it cannot be taken for something else."""
    overrides = ", overridden" if table["overrides"] else ""
    title = textwrap.fill(table["title"], 64)
    figure.suptitle(f"{title}\nprotocol {table['protocol']}{overrides}, {len(table['seeds'])} seeds", fontsize=7)


def _means(values: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return mean, low and high over seeds of `percent`, a line for each key."""
    lines = []
    for key, part in values.groupby(keys, sort=False):
        interval = paired_interval(part["percent"].to_numpy())
        named = dict(zip(keys, key, strict=True))
        lines.append(named | {"mean": interval["difference"], "low": interval["low"], "high": interval["high"]})
    return pd.DataFrame(lines).assign(seeds=values["seed"].nunique())


def _band(axis: Axes, x: Any, line: pd.DataFrame, i: int, name: str) -> None:
    axis.plot(x, line["mean"], label=name, color=COLOURS[i % 8], linestyle=DASHES[i % 4], marker=MARKERS[i % 8])
    axis.fill_between(x, line["low"], line["high"], color=COLOURS[i % 8], alpha=0.12, linewidth=0)


def _bars(axis: Axes, x: Any, line: pd.DataFrame, i: int, linestyle: str) -> None:
    reach = np.abs(line[["low", "high"]].to_numpy().T - line["mean"].to_numpy())
    axis.errorbar(
        x, line["mean"], np.nan_to_num(reach), fmt=MARKERS[i], color=COLOURS[i], capsize=2, lw=1, linestyle=linestyle
    )


def _histories(table: dict[str, Any]) -> pd.DataFrame:
    parts = []
    for row in _rows(table):
        for seed in table["seeds"]:
            path = folder_of(row, seed) / "history.csv"
            try:
                parts.append(pd.read_csv(path).assign(name=name_of(row), seed=seed))
            except (OSError, ValueError):
                raise UserError(f"{path}: cannot be read; delete its folder and run snakemake again") from None
    return pd.concat(parts, ignore_index=True)


def _metrics(table: dict[str, Any]) -> list[tuple[dict[str, Any], int, dict[str, Any]]]:
    return [
        (row, seed, read_json(folder_of(row, seed) / "metrics.json")) for row in _rows(table) for seed in table["seeds"]
    ]


def _rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that are runs of their own: heads of one run share its history."""
    return list({row["run"]: row for row in reversed(table["rows"])}.values())[::-1]


if __name__ == "__main__":
    sys.exit(main())
