"""Draw one figure: `python -m workflow.report.figures FIGURE --out PREFIX`.

A figure is of a kind: named as its table, `points` (the first column over its rows); else `curves` (loss and accuracy
over epochs), `per_class` (recall of each class over its training images), `classes` (the same as bars with the classes'
names), `confusion` (which class is taken for which), `bank` (confident images and fill of the bank over epochs) or
`pretraining` (loss, collapse monitor and kNN accuracy of encoders over epochs). Writes PREFIX.pdf, .svg, .png, and .csv
with what is drawn: means over seeds and their 95 % intervals (Student's t). Bars and bands are these intervals, small
dots and thin lines single seeds.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import pyplot
from matplotlib.figure import Figure

from csa_core import store
from csa_core.errors import UserError, say
from workflow.fresh import drawn_from
from workflow.report.by_class import class_names, runs_of
from workflow.report.classes import class_bars, confusion, per_class
from workflow.report.collect import collect
from workflow.report.curves import bank, curves, pretraining
from workflow.report.declared import plan_option, read_plan
from workflow.report.points import points
from workflow.report.seen import seen
from workflow.report.style import image, save, use_fonts, use_style
from workflow.report.texts import csv_text

KINDS: dict[str, Callable[[dict[str, Any], pd.DataFrame], tuple[Figure, pd.DataFrame]]] = {
    "points": points,
    "curves": curves,
    "per_class": per_class,
    "classes": class_bars,
    "confusion": confusion,
    "bank": bank,
    "pretraining": pretraining,
}


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.report.figures", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "figure", metavar="FIGURE", help=f"TABLE, or one of {', '.join(list(KINDS)[1:])} with -TABLE, as curves-table2"
    )
    plan_option(parser)
    parser.add_argument("--out", required=True, metavar="PREFIX", help="files to write, without .pdf, .svg, .png, .csv")
    args = parser.parse_args(argv)
    try:
        plan = read_plan(args)
        kind, name = plan.drawn(args.figure)
        write(kind, plan.declaration(name), args.out, made_from=drawn_from(plan, name))
    except UserError as error:
        say(f"figures: {error}")
        return 2
    return 0


def write(kind: str, table: dict[str, Any], prefix: str, partial: bool = False, made_from: str = "") -> None:
    """Draw a figure of a kind, and write PREFIX.pdf, .svg, .png and .csv."""
    figure, drawn = draw(kind, table, partial)
    save(figure, prefix, made_from, seen(kind, table, drawn))
    pyplot.close(figure)
    store.write_bytes(Path(f"{prefix}.csv"), csv_text(drawn).encode())


def as_svg(kind: str, table: dict[str, Any]) -> bytes:
    """Return a figure of what is finished so far, as SVG."""
    figure, drawn = draw(kind, table, partial=True)
    content = image(figure, "svg", table["name"], seen=seen(kind, table, drawn))
    pyplot.close(figure)
    return content


def draw(kind: str, table: dict[str, Any], partial: bool) -> tuple[Figure, pd.DataFrame]:
    """Return a figure of a kind, and what is drawn.

    Raises:
        UserError: a run is missing, damaged or of something else, or the runs have nothing of this kind.
    """
    use_style(**table.get("figure", {}))
    values, facts = collect(table, partial)
    table = table | {"is_partial": bool(facts["missing"])}
    firsts = {data: number for number, (data, _) in reversed(facts["images_of"].items())}.values()  # rows of each data
    rows = runs_of(values[values["row"].isin(firsts)]).drop_duplicates("name").to_dict("records")
    use_fonts(f"{table} {[class_names(table, row) for row in rows]}")
    return KINDS[kind](table, values)


if __name__ == "__main__":
    sys.exit(main())
