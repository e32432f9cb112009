"""Write a page of what is finished so far: `make report`, or `python -m workflow.report.partial`, while snakemake runs.

It takes no lock, trains nothing and writes one file, `partial/report.html` below the results.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from csa_core.errors import UserError, say
from workflow.fresh import stale_run
from workflow.plan import Plan
from workflow.report import page
from workflow.report.collect import is_finished
from workflow.report.declared import plan_option, read_plan
from workflow.report.tables import drawn

ROOT = Path(__file__).parents[2]


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.report.partial", description=__doc__)
    plan_option(parser)
    args = parser.parse_args(argv)
    try:
        plan = read_plan(args)
        begun = [table for table in map(plan.declaration, plan.usual) if any(is_finished(table))]
        if not begun:
            raise UserError(f"{plan.results}: no run is finished yet; make status says how far they are")
        out = Path(plan.results, "partial", "report.html")
        figures = _figures(plan, {table["name"]: table for table in begun})
        tables = [drawn(table, partial=True)[".json"] for table in begun]
        page.write(tables, figures, _mistakes(plan), Path(plan.results), out)
        print(
            f"{out}: {len(tables)} of {len(plan.usual)} tables and {len(figures)} figures, of what is finished so far"
        )
    except UserError as error:
        say(f"report: {error}")
        return 2
    return 0


def _figures(plan: Plan, begun: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the page shows of each figure of `all` that finished runs allow; of the others, say why not."""
    from workflow.report import figures  # seconds to import

    found = []
    for name in plan.figures:
        kind, table = plan.drawn(name)
        if table not in begun:
            continue
        try:
            found.append(page.figure(name, ".svg", figures.as_svg(kind, begun[table])))
        except UserError as error:
            say(f"figure {name} is not drawn yet: {error}")
    return found


def _mistakes(plan: Plan) -> dict[str, Any]:
    """Return what the page shows of the reference run's mistakes, if that and its images are there."""
    run = plan.reference
    data = Path(plan.shared, "data", run.data, "dataset.safetensors")
    if not (Path(run.folder, "metrics.json").exists() and data.exists()) or stale_run(plan, run):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "mistakes.safetensors")
        where = ["--data", str(data), "--root", run.config.data.root, "--out", str(out)]
        command = [sys.executable, "-m", "csa_core", "mistakes", run.folder, *where]
        here = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=here, capture_output=True, text=True, check=False)  # noqa: S603 - our words
        if done.returncode:
            say(f"mistakes are not shown: {done.stderr.strip()}")
            return {}
        return page.mistakes_in(out)


if __name__ == "__main__":
    sys.exit(main())
