"""Write a page of what is finished so far: `make report`, or `python -m workflow.report.partial`, while snakemake runs.

It takes no lock, trains nothing and writes one file, `partial/report.html` below the results.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from csa_core.errors import UserError, say
from workflow.plan import Plan
from workflow.report import page
from workflow.report.collect import is_finished
from workflow.report.declared import plan_option, read_plan
from workflow.report.tables import drawn


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.report.partial", description=__doc__)
    plan_option(parser)
    args = parser.parse_args(argv)
    try:
        plan = read_plan(args)
        tables = _begun(plan)
        if not tables:
            raise UserError(f"{plan.results}: no run is finished yet; make status says how far they are")
        out = Path(plan.results, "partial", "report.html")
        page.write(tables, [], Path(plan.results), out)
        print(f"{out}: {len(tables)} of {len(plan.usual)} tables, of what is finished so far")
    except UserError as error:
        say(f"report: {error}")
        return 2
    return 0


def _begun(plan: Plan) -> list[dict[str, Any]]:
    """Return what the page shows of each table that has a finished run."""
    tables = [plan.declaration(name) for name in plan.usual]
    return [drawn(table, partial=True)[".json"] for table in tables if any(is_finished(table))]


if __name__ == "__main__":
    sys.exit(main())
