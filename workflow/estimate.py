"""Say what is left to train and about how long it takes: `snakemake --cores all estimate`.

Times are measured: those of finished runs, or of the epochs that running ones have trained so far.
"""

import argparse
import sys
import time

from joblib import cpu_count

from csa_core.errors import UserError, say
from workflow.report.declared import plan_option, read_plan
from workflow.report.numbers import counted
from workflow.standing import about, measured, side_by_side, survey, together


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.estimate", description=__doc__.split("\n\n")[0])
    plan_option(parser)
    parser.add_argument("--cores", type=int, default=cpu_count(), help="cores to train on (default: all)")
    args = parser.parse_args(argv)
    try:
        plan = read_plan(args)
    except UserError as error:
        say(f"estimate: {error}")
        return 2
    found, jobs = survey(plan, time.time()), side_by_side(plan, args.cores)
    print(f"{'':<12}{'runs':>6}{'finished':>10}{'to train':>10}{'about':>10}")
    for name, runs in [*found.tables.items(), ("all", found.runs), *found.extra.items()]:
        left = [run for run in runs if run.state != "finished"]
        print(f"{name:<12}{len(runs):>6}{len(runs) - len(left):>10}{len(left):>10}{about(together(left, jobs)):>10}")
    print(f"\n{counted(jobs, 'job')} side by side. {measured(found.pace)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
