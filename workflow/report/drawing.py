"""What figures share: axes, colours, what is written on them, and means over seeds."""

import textwrap
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from csa_core.errors import UserError
from workflow.report.by_class import runs_of
from workflow.report.collect import folder_of
from workflow.report.numbers import shown
from workflow.report.style import COLOURS, DASHES, FONT, LOOK, WIDTH, inches, plain, text_size
from workflow.report.summary import paired_intervals

LABELS = 16  # most that a legend of lines has room for
GREY = "0.35"


def axes_of(rows: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of one column with axes below each other; `height` is in inches of the design."""
    size = inches(WIDTH, height)
    figure, axes = plt.subplots(rows, 1, figsize=size, layout="constrained", squeeze=False, sharex=True)
    return figure, list(axes[:, 0])


def epochs_below(axis: Axes) -> None:
    """Let whole epochs stand below the last axis."""
    axis.set_xlabel("Epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def style_of(i: int, count: int) -> dict[str, Any]:
    """Return colour and dash of series `i`: told apart at a glance up to eight, in order beyond."""
    return {"color": COLOURS[i] if count <= len(COLOURS) else ordered(i, count), "linestyle": DASHES[i % 4]}


def label_of(name: Any, i: int, count: int) -> str | None:
    """Return what the legend calls series `i`: of a large sweep it names some lines, evenly spread."""
    return plain(str(name)) if i % -(-count // LABELS) == 0 else None


def ordered(i: int, count: int) -> Any:
    """Return the colour of series `i` of an ordered many."""
    return mpl.colormaps["viridis"](0.92 * i / max(count - 1, 1))


def face(figure: Figure, table: dict[str, Any], values: pd.DataFrame) -> None:
    """Write on the figure what was run, so that it cannot be taken for something else, unless a caption will."""
    if not LOOK["title"]:
        return
    overrides = ", overridden" if table["overrides"] else ""
    room = figure.get_size_inches()[0] / LOOK["font"] * FONT / WIDTH * 56  # letters of a line
    lines = -(-len(table["title"]) // int(room))
    title = textwrap.fill(table["title"], len(table["title"]) // lines + 6)  # lines of about one length
    partial = ", partial" if table.get("is_partial") else ""
    text = f"{plain(title)}\nprotocol {table['protocol']}{overrides}, {seeds_of(values)}{partial}"
    figure.suptitle(text, fontsize=text_size(7))


def key(figure: Figure, values: pd.DataFrame, *signs: str, title: str = "", is_cut: bool = False) -> None:
    """Say below a figure what its signs are: `mean`, `line`, `bar`, `flat`, `cross`, `band`, `dot`, `thin`.

    Of one seed there is no mean and no interval: its sign is that of the mean. `is_cut`: intervals end at the edges.
    """
    counts = values.groupby("name")["seed"].nunique()
    is_one = counts.max() == 1
    notes = {"one seed has none": counts.min() == 1, "long ones are cut at the edges": is_cut}
    held = ", ".join(note for note, holds in notes.items() if holds)
    more = f" ({held})" if held else ""
    mean = "single seed" if is_one else "mean over seeds"
    interval: dict[str, Any] = {"color": GREY, "ls": "", "ms": 7, "label": f"95 % interval{more}"}
    handles: dict[str, Any] = {
        "mean": Line2D([], [], color=GREY, marker="o", ls="", ms=3, label=mean),
        "line": Line2D([], [], color=GREY, label=mean),
        "bar": Line2D([], [], marker="|", **interval),
        "flat": Line2D([], [], marker="_", **interval),
        "cross": Line2D([], [], marker="+", **interval),
        "band": Patch(facecolor=GREY, alpha=0.2, label=f"95 % interval{more}"),
        "dot": Line2D([], [], color=GREY, marker=".", ls="", ms=3, label="single seed"),
        "thin": Line2D([], [], color=GREY, lw=0.4, label="single seed"),
    }
    if is_one:
        signs = tuple(sign for sign in signs if sign in ("mean", "line"))
    shown_signs = [handles[sign] for sign in signs]
    look = {"fontsize": text_size(5.5), "title_fontsize": text_size(7), "title": title or None, "columnspacing": 1.0}
    if signs:
        figure.legend(handles=shown_signs, loc="outside lower center", ncols=len(signs), **look)


def legend_above(axis: Axes, columns: int = 2, title: str | None = None) -> None:
    """Put the legend of the rows above an axis, where it hides nothing."""
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, title=title)


def percent_axis(axis: Axes, name: str, label: str, is_low: bool = False) -> None:
    """Name an axis of percent, x or y, once all is drawn, and say so where it does not begin at zero.

    A low panel breaks the line, so that the name does not reach into the next panel.
    """
    low = (axis.get_xlim() if name == "x" else axis.get_ylim())[0]
    cut = f"\naxis begins{chr(10) if is_low else ' '}at {shown(low)} %" if low > 0 else ""
    axis.set(**{f"{name}label": f"{label}{cut}"})


def seeds_of(values: pd.DataFrame) -> str:
    """Say how many seeds the rows that are drawn have: `3 seeds`, `1 seed`, `1 to 3 seeds`."""
    counts = values.groupby("name")["seed"].nunique()
    ends = dict.fromkeys((str(counts.min()), str(counts.max())))
    return f"{' to '.join(ends)} seed{'' if counts.max() == 1 else 's'}"


def means(values: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return mean, low and high over seeds of `percent`, a line for each key."""
    number = values.groupby(keys, sort=False).ngroup().to_numpy()
    order, ends = np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))
    intervals = paired_intervals(np.split(values["percent"].to_numpy()[order], ends[:-1]))
    named = values.drop_duplicates(keys)[keys].reset_index(drop=True)
    drawn = pd.concat([named, intervals.rename(columns={"difference": "mean"})], axis=1)
    return drawn.assign(seeds=values["seed"].groupby(number).nunique().to_numpy())


def histories(table: dict[str, Any], values: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Return columns of the histories of the runs behind a table; test_accuracy is that of each row's head."""
    runs, parts = runs_of(values), []
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
