"""Draw one figure: `python -m workflow.report.figures FIGURE --out PREFIX`.

A figure is of a kind: `points` (the first column of the table over its rows), `curves` (loss and accuracy over
epochs), `per_class` (recall of each class over its training images), `bank` (confident images and fill of the bank
over epochs) or `pretraining` (loss, collapse monitor and kNN accuracy of encoders over epochs). Writes PREFIX.pdf,
.svg, .png, and .csv with what is drawn: means over seeds and their 95 % intervals (Student's t). Bars and bands are
these intervals, small dots and thin lines single seeds.
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
from csa_core.errors import UserError, say
from csa_core.store import read_sealed
from workflow.fresh import drawn_from
from workflow.report.collect import HEADINGS, collect, folder_of
from workflow.report.declared import plan_option, read_plan
from workflow.report.style import COLOURS, DASHES, MARKERS, WIDTH, plain, save, use_style
from workflow.report.summary import paired_intervals
from workflow.report.texts import csv_text

LABELS = 16  # most that a legend of lines has room for


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.report.figures", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "figure",
        metavar="FIGURE",
        help="figure1, figure2, curves-TABLE, per_class-TABLE, bank-TABLE or pretraining-TABLE",
    )
    plan_option(parser)
    parser.add_argument("--out", required=True, metavar="PREFIX", help="files to write, without .pdf, .svg, .png, .csv")
    args = parser.parse_args(argv)
    use_style()
    try:
        plan = read_plan(args)
        kind, name = plan.drawn(args.figure)
        table = plan.declaration(name)
        values, _ = collect(table)
        figure, drawn = KINDS[kind](table, values)
        save(figure, args.out, drawn_from(plan, name))
        store.write_bytes(Path(f"{args.out}.csv"), csv_text(drawn).encode())
    except UserError as error:
        say(f"figures: {error}")
        return 2
    return 0


def points(table: dict[str, Any], values: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the first column of a table over its rows: by category, along a number, a line a series, or against Few."""
    if table["draw"] == "scatter":
        return scatter(table, values)
    column = table["columns"][0]
    shown = values[values["column"] == column].assign(percent=lambda v: 100 * v["value"])
    drawn = _means(shown, ["series", "label"])
    series = list(dict.fromkeys(shown["series"]))
    if table["draw"] == "line":
        figure, axis = _axes(1, 2.3)
        for i, name in enumerate(series):
            part, runs = (frame[frame["series"] == name] for frame in (drawn, shown))
            x, style = _numbers(table, part["label"]), _style(i, len(series))
            axis[0].plot(x, part["mean"], marker=MARKERS[i % 8], label=plain(name), **style)
            axis[0].fill_between(x, part["low"], part["high"], color=style["color"], alpha=0.12, linewidth=0)
            dots = _numbers(table, runs["label"])
            axis[0].plot(dots, runs["percent"], ".", ms=2, color=style["color"], alpha=0.6)
        axis[0].set_xlabel(plain(table["row_name"]))
        if len(series) > 1:
            axis[0].legend()
    else:
        counts = [drawn["series"].eq(name).sum() for name in series]
        figure, axes = plt.subplots(
            1, len(series), figsize=(WIDTH, 2.1), sharey=True, layout="constrained", width_ratios=counts, squeeze=False
        )
        axis = list(axes[0])
        for i, name in enumerate(series):
            part, runs = (frame[frame["series"] == name] for frame in (drawn, shown))
            place = {label: x for x, label in enumerate(part["label"])}
            reach = np.abs(part[["low", "high"]].to_numpy().T - part["mean"].to_numpy())
            colour = _style(i, len(series))["color"]
            axis[i].errorbar(
                list(place.values()), part["mean"], reach, fmt=MARKERS[i % 8], color=colour, capsize=2, lw=1
            )
            beside = [place[label] + 0.22 for label in runs["label"]]
            axis[i].plot(beside, runs["percent"], ".", ms=2.5, color="0.45")
            axis[i].set_xticks(list(place.values()), list(map(plain, place)), rotation=45, ha="right")
            axis[i].set_title(plain(name.capitalize()), fontsize=7)
        figure.supxlabel(plain(table["row_name"]), fontsize=7)
    axis[0].set_ylabel("Accuracy, all classes (%)" if column == "all" else f"{HEADINGS[column]} (%)")
    _face(figure, table, values)
    return figure, drawn


def scatter(table: dict[str, Any], values: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw All against Few, a point a row with its intervals, named beside it; a colour a series."""
    means = {}
    for column in ("all", "few"):
        shown = values[(values["column"] == column) & values["value"].notna()]
        means[column] = _means(shown.assign(percent=100 * shown["value"]), ["series", "label"])
    if not len(means["few"]):
        raise UserError(f"{table['name']}: draw: scatter needs few-shot classes, and there are none")
    drawn = means["all"].merge(means["few"], on=["series", "label", "seeds"], suffixes=("_all", "_few"))
    figure, axes = plt.subplots(figsize=(1.6 * WIDTH, 1.4 * WIDTH), layout="constrained")
    series = list(dict.fromkeys(drawn["series"]))
    for i, name in enumerate(series):
        part = drawn[drawn["series"] == name]
        # A single seed has no interval: its reach is drawn as nothing.
        reach = {
            column: np.abs(part[[f"low_{column}", f"high_{column}"]].to_numpy().T - part[f"mean_{column}"].to_numpy())
            for column in means
        }
        colour = _style(i, len(series))["color"]
        bars = {"fmt": MARKERS[i % 8], "color": colour, "lw": 0.5, "label": name}
        axes.errorbar(part["mean_all"], part["mean_few"], reach["few"], reach["all"], **bars)
        for line in part.to_dict("records"):
            place = (line["mean_all"], line["mean_few"])
            beside = {"xytext": (3, 3), "textcoords": "offset points", "fontsize": 5, "color": colour}
            axes.annotate(line["label"], place, **beside)
    axes.set_xlabel("Accuracy, all classes (%)")
    axes.set_ylabel(f"{HEADINGS['few']} (%)")
    if len(series) > 1:
        axes.legend()
    _face(figure, table, values)
    return figure, drawn


def _numbers(table: dict[str, Any], labels: pd.Series) -> pd.Series:
    try:
        return labels.astype(float)
    except ValueError:
        raise UserError(f"{table['name']}: draw: line needs labels that are numbers; use draw: categories") from None


def curves(table: dict[str, Any], values: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw loss and accuracy over epochs for the rows of a table; thin lines are single seeds."""
    history = _histories(table, values, "loss", "test_accuracy")
    names = list(dict.fromkeys(history["name"]))
    quantities = [("loss", "Training loss\n(ours: uniform branch)", 1), ("test_accuracy", "Test accuracy (%)", 100)]
    quantities = _recorded(history, quantities)
    figure, axis = _axes(len(quantities), 1.8 * len(quantities))
    drawn = []
    for ax, (column, label, scale) in zip(axis, quantities, strict=True):
        drawn.append(_lines(ax, history, column, scale, names))
        ax.set_ylabel(label)
    axis[0].set_yscale("log")
    # Accuracies rise away from it.
    axis[-1].legend(loc="lower right" if len(axis) > 1 else "best", ncols=2 if len(names) > 6 else 1)
    _epochs(axis[-1])
    _face(figure, table, values)
    return figure, pd.concat(drawn)


def per_class(table: dict[str, Any], values: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the accuracy of each class over its number of training images; small dots are single seeds."""
    lines = []
    for row in _runs(values).to_dict("records"):
        metrics = read_sealed(folder_of(table, row, row["seed"]) / "metrics.json")
        scores = metrics["heads"][row["head"]]
        for k, count in enumerate(metrics["class_counts"]):
            if not scores["images"][k]:  # none to test it on
                continue
            percent = 100 * scores["correct"][k] / scores["images"][k]
            lines.append({"name": row["name"], "class": k, "images": count, "seed": row["seed"], "percent": percent})
    singles = pd.DataFrame(lines)
    drawn = _means(singles, ["name", "class", "images"])
    names = list(dict.fromkeys(drawn["name"]))
    figure, axis = _axes(1, 2.4)
    for i, name in enumerate(names):
        part, style = drawn[drawn["name"] == name].sort_values("images"), _style(i, len(names))
        if len(part) > 20:  # a hundred classes are a cloud, and a line through tenths of it says more
            axis[0].plot(part["images"], part["mean"], ".", ms=2, alpha=0.35, color=style["color"])
            tenth = pd.qcut(part["images"], 10, duplicates="drop", labels=False)
            part = part[["images", "mean"]].groupby(tenth).mean()
        else:
            single = singles[singles["name"] == name]
            axis[0].plot(single["images"], single["percent"], ".", ms=1.5, alpha=0.5, color=style["color"])
        axis[0].plot(part["images"], part["mean"], marker=MARKERS[i % 8], ms=3, label=plain(name), **style)
    axis[0].set(xscale="log", xlabel="Training images of the class", ylabel="Test accuracy of the class (%)")
    axis[0].legend(ncols=2 if len(names) > 6 else 1)
    _face(figure, table, values)
    return figure, drawn


def bank(table: dict[str, Any], values: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the share of confident images and the fill of the bank over epochs, means over seeds."""
    history = _histories(table, values, "phase", "confident", "bank_fill")
    history = history[history["phase"] != "plain"].dropna()  # the bank rests in the last epochs
    names = list(dict.fromkeys(history["name"]))
    if not names:
        raise UserError(f"bank-{table['name']}: none of its runs has a bank; choose a table with csa rows")
    figure, axis = _axes(2, 3.4)
    drawn = []
    quantities = [("confident", "Confident images (%)"), ("bank_fill", "Fill of the bank (%)")]
    for ax, (column, label) in zip(axis, quantities, strict=True):
        for i, (name, part) in enumerate(history.groupby("name", sort=False)):
            line = _means(part.assign(percent=100 * part[column]), ["name", "epoch"])
            drawn.append(line.assign(quantity=column))
            # Rows of a sweep have an order, and so do these colours.
            ax.plot(line["epoch"], line["mean"], color=_ordered(i, len(names)), label=_label(name, i, len(names)))
        ax.set_ylabel(label)
        ax.set_ylim(-3, 103)
    axis[0].legend(title=plain(table["row_name"]), ncols=2)
    _epochs(axis[1])
    _face(figure, table, values)
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
    history = _histories(table, encoders, "loss", "projector_std", "projector_std_expected", "test_accuracy")
    history["spread"] = history["projector_std"] / history["projector_std_expected"]
    names = list(dict.fromkeys(history["name"]))
    quantities = [
        ("loss", "Loss (−cosine)", 1),
        ("spread", "Output spread\n(times 1 / √d)", 1),
        ("test_accuracy", "kNN test\naccuracy (%)", 100),
    ]
    quantities = _recorded(history, quantities)
    figure, axis = _axes(len(quantities), 4.6 if len(quantities) == 3 else 3.1)
    drawn = []
    for ax, (column, label, scale) in zip(axis, quantities, strict=True):
        drawn.append(_lines(ax, history, column, scale, names))
        ax.set_ylabel(label)
    axis[1].axhline(1, color="0.6", lw=0.6, ls=":")
    axis[1].set_ylim(-0.05, 1.15)
    axis[1].annotate("0: collapse", (0.99, 0.06), xycoords="axes fraction", ha="right", fontsize=6, color="0.4")
    axis[0].legend()
    _epochs(axis[-1])
    _face(figure, table, values)
    return figure, pd.concat(drawn)


def _recorded(history: pd.DataFrame, quantities: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """Return the quantities that the histories hold, and say which they do not: an empty panel would say nothing."""
    if history["test_accuracy"].notna().any():
        return quantities
    say("no test accuracy in these histories, so none is drawn; evaluate_every: N records it")
    return [each for each in quantities if each[0] != "test_accuracy"]


def _lines(ax: Axes, history: pd.DataFrame, column: str, scale: float, names: list[str]) -> pd.DataFrame:
    """Draw a column of histories over epochs, a line a name and a thin one a seed; return what is drawn."""
    drawn = []
    for i, (name, part) in enumerate(history.groupby("name", sort=False)):
        part = part.dropna(subset=column)
        line = _means(part.assign(percent=scale * part[column]), ["name", "epoch"])
        drawn.append(line.assign(quantity=column))
        style = _style(i, len(names))
        ax.plot(line["epoch"], line["mean"], label=_label(name, i, len(names)), **style)
        for _, single in part.groupby("seed"):
            ax.plot(single["epoch"], scale * single[column], color=style["color"], lw=0.4, alpha=0.35)
    return pd.concat(drawn)


KINDS: dict[str, Callable[[dict[str, Any], pd.DataFrame], tuple[Figure, pd.DataFrame]]] = {
    "points": points,
    "curves": curves,
    "per_class": per_class,
    "bank": bank,
    "pretraining": pretraining,
}


def _axes(rows: int, height: float) -> tuple[Figure, list[Axes]]:
    figure, axes = plt.subplots(rows, 1, figsize=(WIDTH, height), layout="constrained", squeeze=False, sharex=True)
    return figure, list(axes[:, 0])


def _epochs(axis: Axes) -> None:
    axis.set_xlabel("Epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def _style(i: int, count: int) -> dict[str, Any]:
    """Return colour and dash of series `i`: told apart at a glance up to eight, in order beyond."""
    return {"color": COLOURS[i] if count <= len(COLOURS) else _ordered(i, count), "linestyle": DASHES[i % 4]}


def _label(name: Any, i: int, count: int) -> str | None:
    """Return what the legend calls series `i`: of a large sweep it names some lines, evenly spread."""
    return plain(str(name)) if i % -(-count // LABELS) == 0 else None


def _ordered(i: int, count: int) -> Any:
    return mpl.colormaps["viridis"](0.92 * i / max(count - 1, 1))


def _face(figure: Figure, table: dict[str, Any], values: pd.DataFrame) -> None:
    """Write on the figure what was run, so that it cannot be taken for something else."""
    overrides = ", overridden" if table["overrides"] else ""
    lines = -(-len(table["title"]) // 56)
    title = textwrap.fill(table["title"], len(table["title"]) // lines + 6)  # lines of about one length
    seeds = _seeds(values)
    figure.suptitle(f"{plain(title)}\nprotocol {table['protocol']}{overrides}, {seeds}", fontsize=7)


def _seeds(values: pd.DataFrame) -> str:
    """Say how many seeds the rows that are drawn have: `3 seeds`, `1 seed`, `1 to 3 seeds`."""
    counts = values.groupby("name")["seed"].nunique()
    ends = dict.fromkeys((str(counts.min()), str(counts.max())))
    return f"{' to '.join(ends)} seed{'' if counts.max() == 1 else 's'}"


def _means(values: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return mean, low and high over seeds of `percent`, a line for each key."""
    number = values.groupby(keys, sort=False).ngroup().to_numpy()
    order, ends = np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))
    intervals = paired_intervals(np.split(values["percent"].to_numpy()[order], ends[:-1]))
    named = values.drop_duplicates(keys)[keys].reset_index(drop=True)
    drawn = pd.concat([named, intervals.rename(columns={"difference": "mean"})], axis=1)
    return drawn.assign(seeds=values["seed"].nunique())


def _histories(table: dict[str, Any], values: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Return columns of the histories of the runs behind a table; test_accuracy is that of each row's head."""
    runs, parts = _runs(values), []
    for row in runs.to_dict("records"):
        path, accuracy = folder_of(table, row, row["seed"]) / "history.csv", f"test_accuracy_{row['head']}"
        wanted = {"epoch", accuracy, *columns}
        try:
            history = pd.read_csv(path, usecols=wanted.__contains__)
        except (OSError, ValueError):
            raise UserError(f"{path}: cannot be read; delete its folder and run snakemake again") from None
        parts.append(history.rename(columns={accuracy: "test_accuracy"}).reindex(columns=["epoch", *columns]))
    lengths = [len(part) for part in parts]
    if not any(lengths):
        raise UserError(f"{table['name']}: none of its runs trains an epoch, so none has a curve; choose another table")
    names, seeds = (np.repeat(runs[key].to_numpy(), lengths) for key in ("name", "seed"))
    return pd.concat([part for part in parts if len(part)], ignore_index=True).assign(name=names, seed=seeds)


def _runs(values: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each row and seed: name, run, seed, head."""
    return values.drop_duplicates(["row", "seed"])[["name", "run", "seed", "head"]]


if __name__ == "__main__":
    sys.exit(main())
