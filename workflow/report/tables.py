"""Write one table: `python -m workflow.report.tables TABLE.json --csv FILE --markdown FILE`.

TABLE.json is what `workflow.plan.Plan.declaration` returns; the rule `table` passes it on stdin.
The CSV is tidy, in percent at full precision; the Markdown is what a person reads.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from csa_core import store
from csa_core.errors import UserError
from workflow.report.collect import collect
from workflow.report.summary import summarise

HEADINGS = {"all": "All", "many": "Many", "medium": "Med.", "few": "Few"}
COMPARED = ("all", "few")
PERCENT = ["mean", "sd", "difference", "low", "high", "paper"]


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.report.tables", description=__doc__.split("\n\n")[0])
    parser.add_argument("table", metavar="TABLE.json", help="declaration of the table; - reads it from stdin")
    parser.add_argument("--code-version", required=True, help="code version that every run must carry")
    parser.add_argument("--csv", type=Path, required=True, help="tidy table to write")
    parser.add_argument("--markdown", type=Path, required=True, help="table to read, to write")
    args = parser.parse_args(argv)
    try:
        table = json.load(sys.stdin) if args.table == "-" else store.read_json(args.table)
        accuracies, facts = collect(table, args.code_version)
        summary = tidy(table, accuracies)
        store.write_bytes(args.csv, summary.to_csv(index=False).encode())
        store.write_bytes(args.markdown, markdown(table, summary, facts).encode())
    except UserError as error:
        print(f"tables: {error}", file=sys.stderr)
        return 2
    return 0


def tidy(table: dict[str, Any], accuracies: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each row and group, in percent, with the paper's value beside ours."""
    rows = table["rows"]
    reference = next((number for number, row in enumerate(rows) if row["reference"]), None)
    summary = summarise(accuracies, reference)
    summary = summary[summary["group"].isin(table["columns"])]
    summary["paper"] = [
        rows[row]["paper"].get(group, float("nan")) / 100
        for row, group in zip(summary["row"], summary["group"], strict=True)
    ]
    summary[PERCENT] *= 100
    summary.insert(0, "protocol", table["protocol"])
    return summary.drop(columns="row").rename(columns={name: f"{name}_percent" for name in PERCENT})


def markdown(table: dict[str, Any], summary: pd.DataFrame, facts: dict[str, Any]) -> str:
    """Return the table as a person reads it, under a heading that says what was run."""
    has_paper = summary["paper_percent"].notna().any()
    lines = []
    for (label, _), part in summary.groupby(["label", "head"], sort=False):
        cells = {table["row_name"]: label}
        for line in part.to_dict("records"):
            cells[HEADINGS[line["group"]]] = _cell(line["mean_percent"], line["sd_percent"])
        for line in part[part["group"].isin(COMPARED)].to_dict("records"):
            cells[f"{HEADINGS[line['group']]} − ref."] = _interval(line)
        if has_paper:
            cells |= {
                f"{HEADINGS[line['group']]} (paper)": _number(line["paper_percent"])
                for line in part.to_dict("records")
                if summary.loc[summary["group"] == line["group"], "paper_percent"].notna().any()
            }
        lines.append(cells)
    data, counts = facts["config"]["data"], facts["class_counts"]
    overrides = f" with {json.dumps(table['overrides'])}" if table["overrides"] else ""
    seeds = ", ".join(map(str, table["seeds"]))
    sizes = {group: facts["groups"].count(group) for group in ("many", "medium", "few")}
    groups = ", ".join(f"{count} {group}" for group, count in sizes.items())
    return (
        f"# {table['title']}\n\n"
        f"Protocol **{table['protocol']}**{overrides}; data {data['source']}, {sum(counts):,} training images in "
        f"{len(counts)} classes of {max(counts)} to {min(counts)} ({groups}); seeds {seeds}. "
        f"Appendix: {table['source']}.\n\n"
        f"{pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)}\n\n"
        "Top-1 accuracy in percent on the test set after the last epoch, mean ± sd over seeds. "
        "− ref.: difference from the protocol's reference run (the row without it), seed by seed, with its 95 % "
        "interval over seeds.\n\n"
        "Digests: " + ", ".join(f"{key} {value[:12]}" for key, value in facts["digests"].items()) + ".\n"
    )


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.1f}"


def _cell(mean: float, sd: float) -> str:
    return _number(mean) + ("" if pd.isna(sd) or pd.isna(mean) else f" ± {sd:.1f}")


def _interval(line: dict[str, Any]) -> str:
    if pd.isna(line["difference_percent"]):
        return ""
    text = f"{line['difference_percent']:+.1f}"
    low, high = line["low_percent"], line["high_percent"]
    return text if pd.isna(low) else f"{text} [{low:+.1f}, {high:+.1f}]"


if __name__ == "__main__":
    sys.exit(main())
