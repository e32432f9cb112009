"""Write the page: `python -m workflow.report.page --figures FILE ... --out report.html`.

One file that opens without a network: what was run, claims, tables and figures, each cell with its
runs.
"""

import argparse
import base64
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from csa_core import store
from csa_core.errors import UserError
from workflow.report.claims import CONTRADICTED, NOT_RUN, OPEN, SUPPORTED, judge_all
from workflow.report.collect import collect, folder_of
from workflow.report.declared import plan_option, read_plan
from workflow.report.tables import cells, explanation, heading, tidy

BADGE = {SUPPORTED: "yes", CONTRADICTED: "no", OPEN: "open", NOT_RUN: "open"}


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.report.page", description=__doc__.split("\n\n")[0])
    plan_option(parser)
    parser.add_argument("--figures", nargs="*", type=Path, default=[], help="SVG or PNG files to show, in order")
    parser.add_argument("--out", type=Path, required=True, help="page to write")
    args = parser.parse_args(argv)
    try:
        plan = read_plan(args)
        # The appendix's tables first, its figures next, then what it lacks.
        order = sorted(plan.tables, key=lambda name: (name[:5] != "table", name[:6] != "figure", name))
        declared = [plan.declaration(name) for name in order]
        tables = [_table(table, plan.code) for table in declared]
        html = render(declared[0], tables, [_figure(path) for path in args.figures], _provenance(declared))
        store.write_bytes(args.out, html.encode())
    except UserError as error:
        print(f"page: {error}", file=sys.stderr)
        return 2
    return 0


def render(page: dict[str, Any], tables: list[Any], figures: list[Any], provenance: dict[str, Any]) -> str:
    """Return the page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["signed"] = lambda value: f"{round(value, 1) + 0:+.1f}".replace("-", "−")
    claims = [claim for table in tables for claim in table["claims"]]
    claims.sort(key=lambda claim: claim["section"])
    verdicts = {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in BADGE}
    return environment.get_template("page.html.j2").render(
        page=page,
        tables=tables,
        figures=figures,
        claims=claims,
        verdicts={name: count for name, count in verdicts.items() if count},
        badge=BADGE,
        **provenance,
    )


def _table(table: dict[str, Any], code: str) -> dict[str, Any]:
    """Return what the template shows of one table: text of the cells, and the runs behind each row."""
    values, facts = collect(table, code)
    frame = cells(table, tidy(table, values))
    runs = []
    for number, row in enumerate(table["rows"]):
        own = values[(values["row"] == number) & (values["column"] == table["columns"][0])]
        accuracy = dict(zip(own["seed"], own["value"], strict=True))
        # Paths on the page are relative to it.
        paths = {
            seed: (folder_of(table, row, seed) / "metrics.json").relative_to(table["results"])
            for seed in table["seeds"]
        }
        runs.append([(seed, path.as_posix(), 100 * accuracy[seed]) for seed, path in paths.items()])
    claims = judge_all(table, values)
    return {
        "name": table["name"],
        "title": table["title"],
        "heading": f"{heading(table, facts)} {explanation(table)}",
        "header": list(frame.columns),
        "rows": list(zip(frame.to_numpy().tolist(), runs, strict=True)),
        "claims": claims.astype(object).where(claims.notna(), None).to_dict("records"),
        "digests": facts["digests"],
    }


def _figure(path: Path) -> dict[str, str]:
    kind = {".svg": "image/svg+xml", ".png": "image/png"}[path.suffix]
    try:
        content = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); make it with snakemake {path}") from None
    return {"name": path.stem, "source": f"data:{kind};base64,{content}"}


def _provenance(tables: list[dict[str, Any]]) -> dict[str, Any]:
    """Return who trained the runs: devices, versions, hours."""
    folders = {folder_of(table, row, seed) for table in tables for row in table["rows"] for seed in table["seeds"]}
    notes = pd.DataFrame([store.read_json(folder / "provenance.json") for folder in sorted(folders)])
    versions = pd.DataFrame(notes["versions"].tolist())
    return {
        "runs": len(folders),
        "hours": notes["seconds"].sum() / 3600,
        "devices": notes["device"].value_counts().to_dict(),
        "threads": sorted(notes["threads"].unique()),
        "versions": {name: sorted(versions[name].unique()) for name in versions},
        "finished": notes["finished"].max(),
    }


if __name__ == "__main__":
    sys.exit(main())
