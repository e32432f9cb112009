"""Write one table: `python -m workflow.report.tables TABLE --out PREFIX`.

PREFIX.csv is tidy, PREFIX.seeds.csv has a line for each run behind it, both in percent at full
precision; PREFIX.md and PREFIX.tex (booktabs) are what a person reads and prints;
PREFIX.claims.csv judges what the appendix says of it; PREFIX.choices.csv has what validation images choose;
PREFIX.json is what the page shows.
"""

import argparse
import sys
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from csa_core import store
from csa_core.errors import UserError, say
from workflow.fresh import drawn_from
from workflow.report.best import best_rows
from workflow.report.by_class import worst_classes
from workflow.report.chance import at_chance
from workflow.report.choices import choose, sentences
from workflow.report.claims import judge_all
from workflow.report.collect import HEADINGS, VALIDATION, collect
from workflow.report.declared import plan_option, read_plan
from workflow.report.latex import latex
from workflow.report.numbers import interval, shown
from workflow.report.on_page import on_page
from workflow.report.summary import CONFIDENCE, summarise
from workflow.report.texts import csv_text, markdown_text
from workflow.report.wording import COMPARABLE, OF_THE_PAPER, explanation, heading

COMPARED = ("all", "few")
PERCENT = ["mean", "sd", "test_error", "difference", "low", "high", "pooled_low", "pooled_high"]
PERCENT += ["paper", "paper_sd", "from_paper", "from_paper_low", "from_paper_high"]
NO_SPREAD = 1e-9  # sd of seeds that differ by rounding alone
COUNTED = {"shifted_steps": "Shifted steps"}


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.report.tables", description=__doc__.split("\n\n")[0])
    parser.add_argument("table", metavar="TABLE", help="name of a file under workflow/tables/")
    plan_option(parser)
    parser.add_argument("--out", required=True, metavar="PREFIX", help="files to write, without .csv, .md, ...")
    parser.add_argument("--partial", action="store_true", help="leave out runs that are not finished, and say so")
    args = parser.parse_args(argv)
    try:
        plan = read_plan(args)
        write(plan.declaration(args.table), args.out, args.partial, drawn_from(plan, args.table, args.partial))
    except UserError as error:
        say(f"tables: {error}")
        return 2
    return 0


def write(table: dict[str, Any], prefix: str, partial: bool = False, made_from: str = "") -> None:
    """Write each file that `drawn` returns beside PREFIX, all or, where runs do not fit together, none."""
    files = drawn(table, partial)
    page = files.pop(".json") | {"drawn_from": made_from}
    texts = files | {".json": store.json_text(page)}
    path = Path(prefix)
    store.write_together(path.parent, ((path.name + suffix, text.encode()) for suffix, text in texts.items()))


def drawn(table: dict[str, Any], partial: bool = False) -> dict[str, Any]:
    """Return the text of each file of a table by its suffix, and as `.json` what the page shows of it."""
    values, facts = collect(table, partial)
    if "worst_class" in table["columns"]:
        facts["worst_classes"] = worst_classes(table, values)
    table = table | {"columns": [*table["columns"], *(name for name in VALIDATION if name in set(values["column"]))]}
    choices = choose(table, values, facts)
    table |= {"note": " ".join(filter(None, [table["note"], *sentences(choices)]))}
    summary, claims = tidy(table, values), judge_all(table, values, at_chance(table, values))
    seeds = values[values["column"].isin(table["columns"])].rename(columns={"value": "percent"})
    seeds["percent"] *= 100
    not_of_a_run = ["row", "name", "test_images", "chance", *(COUNTED.keys() - set(table["columns"]))]
    frame = cells(table, summary)
    bold = _strong(table, values, frame)
    told = [text for text in explanation(table, summary, facts) if text != OF_THE_PAPER]  # columns that it lacks
    note = " ".join(filter(None, [heading(table, facts), table["note"], *told]))
    return {
        ".csv": csv_text(summary),
        ".seeds.csv": csv_text(seeds.drop(columns=not_of_a_run)),
        ".md": markdown(table, summary, facts),
        ".tex": latex(table, frame, note, bold),
        ".claims.csv": csv_text(claims),
        ".choices.csv": csv_text(choices),
        ".json": on_page(table, values, summary, frame, bold, claims, facts),
    }


def tidy(table: dict[str, Any], values: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each row and column shown, in percent, with the paper's value beside ours."""
    rows = table["rows"]
    reference = next((number for number, row in enumerate(rows) if row["reference"]), None)
    summary = summarise(values[values["column"].isin(table["columns"])], reference, [row["pool"] for row in rows])
    is_all, share = summary["column"] == "all", summary["mean"]
    error = np.sqrt(share * (1 - share) / summary["test_images"]).where(is_all)  # binomial
    summary.insert(summary.columns.get_loc("sd") + 1, "test_error", error)
    printed = zip(summary["row"], summary["column"], strict=True)
    summary["paper"] = [rows[row]["paper"].get(column, np.nan) / 100 for row, column in printed]
    known = table["paper_sd"] / 100 if table["paper_sd"] else np.nan
    summary["paper_sd"] = summary["paper"].where(is_all).notna().map({True: known, False: np.nan})
    summary = summary.join(from_paper(summary)) if table["paper_heading"] == COMPARABLE else summary
    summary = summary.reindex(columns=list(dict.fromkeys([*summary.columns, *PERCENT])))
    summary[PERCENT] *= 100
    if "shifted_steps" not in table["columns"]:
        summary = summary.drop(columns="shifted_steps")
    summary.insert(0, "protocol", table["protocol"])
    summary.insert(1, "overrides", store.canonical(table["overrides"]) if table["overrides"] else "")
    return summary.drop(columns=["name", "chance"]).rename(columns={name: f"{name}_percent" for name in PERCENT})


def cells(table: dict[str, Any], summary: pd.DataFrame) -> pd.DataFrame:
    """Return the table as it is printed: text, a line a row, a column for each thing shown."""
    printed = summary[summary["paper_percent"].notna()]["column"].unique()
    is_compared = table["paper_heading"] == COMPARABLE
    has_series = summary["series"].any()
    compared = COMPARED if any(row["reference"] for row in table["rows"]) else ()
    seeds = summary.groupby("row")["seeds"].max()  # a group without classes has none
    is_partial = (seeds < len(table["seeds"])).any()
    lines = []
    for row, records in groupby(summary.to_dict("records"), key=itemgetter("row")):
        by_column = {record["column"]: record for record in records}
        first = next(iter(by_column.values()))
        line = ({"": first["series"]} if has_series else {}) | {table["row_name"]: first["label"]}
        if is_partial:
            line["Seeds"] = f"{seeds[row]:g}"
        for column in table["columns"]:
            is_count = column in COUNTED
            line[COUNTED.get(column) or HEADINGS[column]] = (
                shown(first[column], digits=0) if is_count else _cell(by_column.get(column))
            )
        for column in filter(by_column.__contains__, compared):
            line[f"{HEADINGS[column]} − ref."] = _interval(by_column[column], "difference", "low", "high")
        if "all" in by_column and summary["pooled_low_percent"].notna().any():
            line["All − ref., pooled"] = _bounds(by_column["all"], "pooled_low", "pooled_high")
        if any(row.get("published") for row in table["rows"]):
            line["All, published by others"] = table["rows"][first["row"]].get("published", "")
        for column in printed:
            line[f"{HEADINGS[column]}, {table['paper_heading']}"] = _printed(by_column[column])
            if is_compared:
                names = ("from_paper", "from_paper_low", "from_paper_high")
                line[f"{HEADINGS[column]} − paper"] = _interval(by_column[column], *names)
        lines.append(line)
    return pd.DataFrame(lines)


def from_paper(summary: pd.DataFrame) -> pd.DataFrame:
    """Return our mean less the paper's value, and its 95 % interval from our standard error and the paper's sd (Welch).

    Both are in fractions. The interval is NaN where either is not known, and where our seeds have no spread.
    """
    ours = (summary["sd"] ** 2 / summary["seeds"]).where(summary["sd"] > NO_SPREAD)
    both = ours + summary["paper_sd"] ** 2
    # The paper's sd is taken as known: its degrees of freedom are infinite.
    reach = stdtrit((summary["seeds"] - 1) * (both / ours) ** 2, (1 + CONFIDENCE) / 2) * np.sqrt(both)
    difference = summary["mean"] - summary["paper"]
    return pd.DataFrame(
        {"from_paper": difference, "from_paper_low": difference - reach, "from_paper_high": difference + reach}
    )


def markdown(table: dict[str, Any], summary: pd.DataFrame, facts: dict[str, Any]) -> str:
    """Return the table as a person reads it, under a heading that says what was run."""
    digests = ", ".join(f"{key} {value[:12]}" for key, value in facts["digests"].items())
    frame = cells(table, summary).map(markdown_text).rename(columns=markdown_text)
    body = frame.to_markdown(index=False, disable_numparse=True)
    parts = [
        f"# {markdown_text(table['title'])}",
        heading(table, facts),
        body,
        table["note"],
        " ".join(explanation(table, summary, facts)),
    ]
    return "\n\n".join(filter(None, [*parts, f"Digests: {digests}."])) + "\n"


def _strong(table: dict[str, Any], values: pd.DataFrame, frame: pd.DataFrame) -> list[list[int]]:
    """Return the places of the cells that are the best of their column, for each row that is shown."""
    found = best_rows([column for column in table["columns"] if column not in COUNTED], values)
    places = {column: list(frame.columns).index(HEADINGS[column]) for column in found}
    return [[places[column] for column in found if found[column] == row] for row in values["row"].unique()]


def _cell(line: dict[str, Any] | None) -> str:
    if line is None or pd.isna(line["mean_percent"]):
        return ""
    sd = "" if pd.isna(line["sd_percent"]) else f" ± {shown(line['sd_percent'])}"
    return shown(line["mean_percent"]) + sd


def _interval(line: dict[str, Any], difference: str, low: str, high: str) -> str:
    return f"{shown(line[f'{difference}_percent'], signed=True)} {_bounds(line, low, high)}".strip()


def _bounds(line: dict[str, Any], low: str, high: str) -> str:
    return interval(line[f"{low}_percent"], line[f"{high}_percent"])


def _printed(line: dict[str, Any]) -> str:
    """Return the paper's value, with the sd that is taken for it."""
    if pd.isna(line["paper_percent"]):
        return ""
    value = f"{line['paper_percent']:g}"
    sd = "" if pd.isna(line["paper_sd_percent"]) else f" ± {line['paper_sd_percent']:g}"
    return f"{value if '.' in value else f'{value}.0'}{sd}"


if __name__ == "__main__":
    sys.exit(main())
