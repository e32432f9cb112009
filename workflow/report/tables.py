"""Write one table: `python -m workflow.report.tables TABLE --out PREFIX`.

PREFIX.csv is tidy, PREFIX.seeds.csv has a line for each run behind it, both in percent at full
precision; PREFIX.md and PREFIX.tex (booktabs) are what a person reads and prints;
PREFIX.claims.csv judges what the appendix says of it; PREFIX.json is what the page shows.
"""

import argparse
import sys
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from csa_core import store
from csa_core.errors import UserError
from workflow.report.claims import judge_all
from workflow.report.collect import HEADINGS, collect, folder_of
from workflow.report.declared import plan_option, read_plan
from workflow.report.summary import summarise

COMPARED = ("all", "few")
PERCENT = ["mean", "sd", "difference", "low", "high", "paper", "from_paper"]
EXPLANATION = "Top-1 accuracy in percent on the test set after the last epoch, mean ± sd over seeds."
COMPARISON = (
    "− ref.: difference from the protocol's reference run (the row without it), seed by seed, with its 95 % interval, "
    "each row by itself."
)
EXPLAINED = {
    "harmonic_mean": "Harmonic mean, worst class: of the accuracies of the classes.",
    "ece": "ECE: expected calibration error in 15 bins, lower is better.",
}
LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$", "×": r"$\times$"}
LATEX |= {"{": r"\{", "}": r"\}", "$": r"\$", "^": r"\^{}", "~": r"\~{}"}
LATEX |= {"−": "$-$", "δ": r"$\delta$", "λ": r"$\lambda$", "γ": r"$\gamma$"}


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
        write(plan.declaration(args.table), plan.code, args.out, args.partial)
    except UserError as error:
        print(f"tables: {error}", file=sys.stderr)
        return 2
    return 0


def write(table: dict[str, Any], code: str, prefix: str, partial: bool = False) -> None:
    """Write PREFIX.csv, .seeds.csv, .md, .tex, .claims.csv and .json, all or, where runs do not fit together, none."""
    values, facts = collect(table, code, partial)
    summary, claims = tidy(table, values), judge_all(table, values)
    seeds = values[values["column"].isin(table["columns"])].rename(columns={"value": "percent"})
    seeds["percent"] *= 100
    texts = {
        ".csv": summary.to_csv(index=False),
        ".seeds.csv": seeds.drop(columns=["row", "name"]).to_csv(index=False),
        ".md": markdown(table, summary, facts),
        ".tex": latex(table, summary, facts),
        ".claims.csv": claims.to_csv(index=False),
    }
    shown = on_page(table, values, summary, claims, facts)
    for suffix, text in texts.items():
        store.write_bytes(Path(prefix + suffix), text.encode())
    store.write_json(Path(f"{prefix}.json"), shown)


def tidy(table: dict[str, Any], values: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each row and column shown, in percent, with the paper's value beside ours."""
    rows = table["rows"]
    reference = next((number for number, row in enumerate(rows) if row["reference"]), None)
    summary = summarise(values[values["column"].isin(table["columns"])], reference)
    printed = zip(summary["row"], summary["column"], strict=True)
    summary["paper"] = [rows[row]["paper"].get(column, np.nan) / 100 for row, column in printed]
    summary["from_paper"] = summary["mean"] - summary["paper"]
    summary[PERCENT] *= 100
    summary.insert(0, "protocol", table["protocol"])
    summary.insert(1, "overrides", store.canonical(table["overrides"]) if table["overrides"] else "")
    return summary.drop(columns="name").rename(columns={name: f"{name}_percent" for name in PERCENT})


def on_page(
    table: dict[str, Any], values: pd.DataFrame, summary: pd.DataFrame, claims: pd.DataFrame, facts: dict[str, Any]
) -> dict[str, Any]:
    """Return what the page shows of a table: text of the cells, the runs behind each row, and the claims.

    The page is made of this, so that it need not read every run again.
    """
    frame = cells(table, summary)
    own = values[values["column"] == table["columns"][0]]
    runs: dict[int, list[Any]] = {number: [] for number in own["row"].unique()}
    for number, seed, accuracy in zip(own["row"], own["seed"], own["value"], strict=True):
        # Paths on the page are relative to it.
        path = (folder_of(table, table["rows"][number], seed) / "metrics.json").relative_to(table["results"])
        runs[number].append([int(seed), path.as_posix(), None if pd.isna(accuracy) else 100 * accuracy])
    claims = claims.assign(seeds_needed=claims["seeds_needed"].clip(upper=1e9))  # infinity is no JSON
    return {key: table[key] for key in ("name", "title", "protocol", "overrides", "seeds")} | {
        "heading": f"{heading(table, facts)} {explanation(table)}",
        "header": list(frame.columns),
        "rows": list(zip(frame.to_numpy().tolist(), runs.values(), strict=True)),
        "claims": claims.astype(object).where(claims.notna(), None).to_dict("records"),
        "digests": facts["digests"],
    }


def cells(table: dict[str, Any], summary: pd.DataFrame) -> pd.DataFrame:
    """Return the table as it is printed: text, a line a row, a column for each thing shown."""
    printed = summary[summary["paper_percent"].notna()]["column"].unique()
    has_series = summary["series"].any()
    compared = COMPARED if any(row["reference"] for row in table["rows"]) else ()
    lines = []
    for _, records in groupby(summary.to_dict("records"), key=itemgetter("row")):
        by_column = {record["column"]: record for record in records}
        first = next(iter(by_column.values()))
        line = ({"": first["series"]} if has_series else {}) | {table["row_name"]: first["label"]}
        for column in table["columns"]:
            line[HEADINGS[column]] = _cell(by_column.get(column))
        for column in filter(by_column.__contains__, compared):
            line[f"{HEADINGS[column]} − ref."] = _interval(by_column[column])
        for column in printed:
            paper = by_column[column]["paper_percent"]
            line[f"{HEADINGS[column]}, paper"] = "" if pd.isna(paper) else f"{paper:g}"  # as it prints it
            line[f"{HEADINGS[column]} − paper"] = _number(by_column[column]["from_paper_percent"], "+.1f")
        lines.append(line)
    return pd.DataFrame(lines)


def explanation(table: dict[str, Any]) -> str:
    """Return what the numbers are."""
    compared = [COMPARISON] if any(row["reference"] for row in table["rows"]) else []
    measures = [text for column, text in EXPLAINED.items() if column in table["columns"]]
    return " ".join([EXPLANATION, *compared, *measures])


def heading(table: dict[str, Any], facts: dict[str, Any]) -> str:
    """Return what was run, in two sentences."""
    data, counts = facts["config"]["data"], facts["class_counts"]
    overrides = f" with {store.canonical(table['overrides'])}" if table["overrides"] else ""
    groups = ", ".join(f"{facts['groups'].count(group)} {group}" for group in ("many", "medium", "few"))
    several = " Rows differ in their data; these numbers are of the first." if len(facts["splits"]) > 1 else ""
    missing = facts["missing"]
    partial = f" PARTIAL: without {', '.join(missing[:5])}{', ...' if missing[5:] else ''}." if missing else ""
    return (
        f"Protocol {table['protocol']}{overrides}; data {data.get('source') or data['selection']}, "
        f"{sum(counts):,} training images in {len(counts)} classes of {max(counts)} to {min(counts)} ({groups}); "
        f"seeds {', '.join(map(str, table['seeds']))}. {table['source']}.{several}{partial}"
    )


def markdown(table: dict[str, Any], summary: pd.DataFrame, facts: dict[str, Any]) -> str:
    """Return the table as a person reads it, under a heading that says what was run."""
    digests = ", ".join(f"{key} {value[:12]}" for key, value in facts["digests"].items())
    body = cells(table, summary).to_markdown(index=False, disable_numparse=True)
    return f"# {table['title']}\n\n{heading(table, facts)}\n\n{body}\n\n{explanation(table)}\n\nDigests: {digests}.\n"


def latex(table: dict[str, Any], summary: pd.DataFrame, facts: dict[str, Any]) -> str:
    r"""Return the table for a paper: needs \usepackage{booktabs}."""
    frame = cells(table, summary)
    frame = frame.drop(columns=[name for name in frame if name.endswith("− paper")])  # to fit a page
    has_series = "" in frame
    frame = frame.map(_latex).rename(columns=_latex)
    styler = frame.style.hide(axis="index")
    caption = _latex(f"{table['title']}. {heading(table, facts)} {explanation(table)}")
    columns = ("ll" if has_series else "l") + "r" * (frame.shape[1] - 1 - has_series)
    return styler.to_latex(
        hrules=True, column_format=columns, caption=caption, label=f"tab:{table['name']}", position_float="centering"
    )


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


def _number(value: float, form: str = ".1f") -> str:
    return "" if pd.isna(value) else format(value, form).replace("-", "−")


def _cell(line: dict[str, Any] | None) -> str:
    if line is None or pd.isna(line["mean_percent"]):
        return ""
    sd = "" if pd.isna(line["sd_percent"]) else f" ± {line['sd_percent']:.1f}"
    return _number(line["mean_percent"]) + sd


def _interval(line: dict[str, Any]) -> str:
    if pd.isna(line["difference_percent"]):
        return ""
    text = _number(line["difference_percent"], "+.1f")
    if pd.isna(line["low_percent"]):
        return text
    return f"{text} [{_number(line['low_percent'], '+.1f')}, {_number(line['high_percent'], '+.1f')}]"


if __name__ == "__main__":
    sys.exit(main())
