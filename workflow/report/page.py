"""Write the page: `python -m workflow.report.page TABLE.json ... --figures FILE ... --out report.html`.

One file that opens without a network: what was run, claims, tables and figures, each cell with its
runs. It shows what `workflow.report.tables` wrote, and computes nothing.
"""

import argparse
import base64
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from csa_core import store
from csa_core.errors import UserError
from workflow.report.numbers import shown
from workflow.report.verdicts import CONTRADICTED, NOT_RUN, OPEN, SUPPORTED

BADGE = {SUPPORTED: "yes", CONTRADICTED: "no", OPEN: "open", NOT_RUN: "open"}


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.report.page", description=__doc__.split("\n\n")[0])
    parser.add_argument("tables", nargs="+", type=Path, metavar="TABLE.json", help="tables to show")
    parser.add_argument("--figures", nargs="*", type=Path, default=[], help="SVG or PNG files to show, in order")
    parser.add_argument("--out", type=Path, required=True, help="page to write")
    args = parser.parse_args(argv)
    try:
        # The appendix's tables first, its figures next, then what it lacks.
        order = sorted(args.tables, key=lambda path: (path.stem[:5] != "table", path.stem[:6] != "figure", path.stem))
        tables = [store.read_json(path) for path in order]
        figures = [_figure(path) for path in args.figures]
        html = render(tables[0], tables, figures, _provenance(tables, order[0].parent))
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
    environment.filters["signed"] = lambda value: shown(value, signed=True)
    environment.filters["many"] = lambda value: f"{value:.0f}" if value <= 1000 else "over 1000"
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


def _figure(path: Path) -> dict[str, str]:
    kind = {".svg": "image/svg+xml", ".png": "image/png"}[path.suffix]
    try:
        content = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); make it with snakemake {path}") from None
    return {"name": path.stem, "source": f"data:{kind};base64,{content}"}


def _provenance(tables: list[dict[str, Any]], results: Path) -> dict[str, Any]:
    """Return who trained the runs: devices, versions, hours."""
    paths = {results / path for table in tables for _, runs in table["rows"] for _, path, _ in runs}
    notes = [store.read_json(path.with_name("provenance.json")) for path in sorted(paths)]
    return {
        "runs": len(paths),
        "seeds": sorted({seed for table in tables for _, runs in table["rows"] for seed, _, _ in runs}),
        "hours": math.fsum(note["seconds"] for note in notes) / 3600,
        "devices": dict(Counter(note["device"] for note in notes).most_common()),
        "threads": sorted({note["threads"] for note in notes}),
        "versions": {name: sorted({note["versions"][name] for note in notes}) for name in notes[0]["versions"]},
        "finished": max(note["finished"] for note in notes),
    }


if __name__ == "__main__":
    sys.exit(main())
