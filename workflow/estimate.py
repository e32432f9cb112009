"""Say what is left to train and about how long it takes: `snakemake --cores all estimate`.

Times are measured: those of finished runs, or of the epochs that running ones have logged so far.
"""

import argparse
import os
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from csa_core.store import read_json
from workflow.report.declared import plan_option, read_plan

START_SECONDS = 3.0  # imports and reading the data, a run


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser("python -m workflow.estimate", description=__doc__.split("\n\n")[0])
    plan_option(parser)
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="cores to train on (default: all)")
    args = parser.parse_args(argv)
    planned = read_plan(args)
    plan, jobs = planned.to_estimate(), max(1, args.cores // planned.config.threads)
    finished = {folder for folder, run in plan["runs"].items() if _is_finished(folder, run)}
    kinds = dict.fromkeys(run["kind"] for run in plan["runs"].values())
    epoch = {kind: _epoch_seconds(plan["runs"], kind) for kind in kinds}
    print(f"{'':<12}{'runs':>6}{'finished':>10}{'to train':>10}{'about':>10}")
    for name, folders in [*plan["tables"].items(), ("all", list(plan["runs"]))]:
        left = [plan["runs"][folder] for folder in folders if folder not in finished]
        seconds = [run["epochs"] * epoch[run["kind"]] + START_SECONDS for run in left]
        about = _interval(sum(seconds) / min(jobs, max(len(seconds), 1)))
        print(f"{name:<12}{len(folders):>6}{len(folders) - len(left):>10}{len(left):>10}{about:>10}")
    measured = ", ".join(f"{seconds:.2f} s with {kind}" for kind, seconds in epoch.items() if seconds == seconds)
    print(f"\n{jobs} jobs side by side. Measured for an epoch: {measured or 'nothing yet: ask again after one'}.")
    return 0


def _is_finished(folder: str, run: dict[str, Any]) -> bool:
    """Whether the results there are those of this very configuration and code."""
    path = Path(folder, "metrics.json")
    return path.exists() and run["digests"].items() <= read_json(path)["digests"].items()


def _epoch_seconds(runs: dict[str, Any], kind: str) -> float:
    """Return the median seconds of an epoch over runs of a kind; NaN when none was measured."""
    times = []
    for folder, run in runs.items():
        provenance = Path(folder, "provenance.json")
        log = Path(run["log"])
        if run["kind"] != kind:
            continue
        if provenance.exists():
            epochs = len(Path(folder, "history.csv").read_text().splitlines()) - 1
            times.append(read_json(provenance)["seconds"] / epochs)
        elif log.exists() and (logged := re.findall(r"([\d.]+) s an epoch", log.read_text())):
            times.append(float(logged[-1]))
    return statistics.median(times) if times else float("nan")


def _interval(seconds: float) -> str:
    if seconds != seconds:
        return "?"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 2 else f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
