"""Whether two precisions give the same results, over paired seeds: `python -m benchmarks.precision`.

Trains each method in both through the workflow, or takes what is there, and prints mean, paired
difference and two one-sided tests (Schuirmann, 1987): the precisions count as equivalent where the
90 % interval of the difference lies within one point. A run counts for the precision that it says it was
computed in, whether it asked for it by name or left the choice open. Real data, from the published runs alone:

    python -m benchmarks.precision --config protocol=short 'seeds=[1,2,3]' code_version=real-1 \
      results=results/published --methods csa --cores 0
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtr

from benchmarks.measure import ROOT, keep
from csa_core.errors import UserError
from csa_core.store import read_json, read_sealed
from workflow.naming import Run
from workflow.plan import Plan
from workflow.report.collect import HEADINGS, is_of
from workflow.report.declared import plan_option, read_plan
from workflow.report.estimates import standard_error
from workflow.report.summary import paired_interval

MARGIN = 1.0
"""Points of accuracy that count as nothing."""


def main(argv: list[str] | None = None) -> int:
    """Train what is missing, compare, print and store; return the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks.precision", description=__doc__.split("\n\n")[0])
    plan_option(parser)
    parser.add_argument("--methods", nargs="+", default=["csa", "ce"])
    parser.add_argument("--precisions", nargs=2, default=["float32", "bfloat16"])
    parser.add_argument("--cores", type=int, default=1, help="to train on; 0 takes finished runs alone (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/precision"))
    args = parser.parse_args(argv)
    seeds = list(range(1, 13))
    args.config = ["protocol=demo", f"seeds={seeds}", f"results={args.out}", *args.config]
    try:
        plan = read_plan(args)
        rows = []
        for method in args.methods:
            if args.cores:
                train(plan, missing(plan, method, args.precisions), args.cores, args.out)
            rows += compare(plan, method, args.precisions)
    except UserError as error:
        print(f"precision: {error}", file=sys.stderr)
        return 2
    keep(f"precision-{plan.protocol}", rows, args.out)
    return 0


def finished(plan: Plan, method: str, precision: str) -> dict[int, Run]:
    """Return by seed the run of a method that is finished and says that it was computed in a precision."""
    found: dict[int, Run] = {}
    for seed in plan.config.seeds:
        for changes in ({"precision": precision}, {}):
            run = plan.run(method, changes, seed)
            path = Path(run.folder, "metrics.json")
            if is_of(path, {"config": run.digest, "code": plan.code_of(method)}):
                computed = read_sealed(path).get("computed") or {}  # older results do not say
                if computed.get("precision") == precision:
                    found.setdefault(seed, run)
    return found


def missing(plan: Plan, method: str, precisions: list[str]) -> list[Run]:
    """Return the runs to train: they ask for their precision by name."""
    pairs = [(seed, precision) for precision in precisions for seed in plan.config.seeds]
    there = {precision: finished(plan, method, precision) for precision in precisions}
    return [plan.run(method, {"precision": name}, seed) for seed, name in pairs if seed not in there[name]]


def train(plan: Plan, runs: list[Run], cores: int, out: Path) -> None:
    """Let Snakemake make the runs that are not there.

    Raises:
        UserError: it failed.
    """
    if not runs:
        return
    out.mkdir(parents=True, exist_ok=True)
    config = out / "config.json"
    config.write_text(json.dumps(plan.config.model_dump(mode="json")))
    words = ["--cores", str(cores), "--nolock", "--configfile", str(config.resolve()), "--directory", str(Path.cwd())]
    targets = [f"{run.folder}/metrics.json" for run in runs]
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *words, *targets]
    if subprocess.run(words).returncode:
        raise UserError("snakemake failed; its lines above say why")


def compare(plan: Plan, method: str, precisions: list[str]) -> list[dict[str, Any]]:
    """Return a line for All and for Few: both precisions, over the seeds that are finished in both, and the difference.

    Raises:
        UserError: fewer than two seeds are finished in both, or a pair's images differ.
    """
    found = [finished(plan, method, precision) for precision in precisions]
    seeds = sorted(found[0].keys() & found[1].keys())
    if len(seeds) < 2:
        text = f"{method}: of seeds {plan.config.seeds}, {len(seeds)} finished in {' and in '.join(precisions)}"
        raise UserError(f"{text} under {plan.results}; an interval needs two")
    scores = [[scores_of(runs[seed]) for seed in seeds] for runs in found]
    for seed, (one, other) in zip(seeds, zip(*scores, strict=True), strict=True):
        if one["images"] != other["images"]:
            raise UserError(f"{method}, seed {seed}: the two runs are of different images, by their digests")
    lines = []
    for column in ("all", "few"):
        both = 100 * np.array([[each[column] for each in row] for row in scores])
        line: dict[str, Any] = {"protocol": plan.protocol, "method": method, "accuracy": HEADINGS[column]}
        is_range = len(seeds) > 3 and seeds[-1] - seeds[0] < len(seeds)
        line |= {"seeds": f"{seeds[0]}-{seeds[-1]}" if is_range else ", ".join(map(str, seeds))}
        line |= {name: f"{v.mean():.2f} ± {v.std(ddof=1):.2f}" for name, v in zip(precisions, both, strict=True)}
        lines.append(line | equivalence(both[1] - both[0]))
    return lines


def scores_of(run: Run) -> dict[str, Any]:
    """Return a run's accuracies, fractions, and what its images are; name the processor that it was computed on."""
    metrics = read_sealed(Path(run.folder, "metrics.json"))
    processor = read_json(Path(run.folder, "provenance.json"))["processor"]
    computed = metrics["computed"]["precision"]
    print(f"{run.name}, seed {run.config.seed}: {computed} on {processor['name']} ({', '.join(processor['has'])})")
    accuracy = metrics["heads"][metrics["predicts"]]["accuracy"]
    return accuracy | {"images": [metrics["digests"][name] for name in ("data", "split")]}


def equivalence(difference: np.ndarray) -> dict[str, str]:
    """Return mean and intervals of paired differences in points, p of the two one-sided tests, and a verdict."""
    wide, narrow = paired_interval(difference), paired_interval(difference, 0.90)
    error, freedom = standard_error(difference), len(difference) - 1
    p = max(stdtr(freedom, sign * difference.mean() / error - MARGIN / error) for sign in (1, -1))
    verdict = "cannot be told"
    if narrow["low"] > -MARGIN and narrow["high"] < MARGIN:
        verdict = "equivalent"
    elif wide["low"] > 0 or wide["high"] < 0:
        verdict = "different"
    return {
        "difference": f"{wide['difference']:+.2f}",
        "95 % interval": f"[{wide['low']:+.2f}, {wide['high']:+.2f}]",
        "90 % interval": f"[{narrow['low']:+.2f}, {narrow['high']:+.2f}]",
        f"p within ± {MARGIN:g}": f"{p:.4f}",
        "verdict": verdict,
    }


if __name__ == "__main__":
    sys.exit(main())
