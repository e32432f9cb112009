"""Whether two precisions give the same results, over paired seeds: `python -m benchmarks.precision`.

Trains each method in both through the workflow, or takes what is there, and prints mean, paired
difference and two one-sided tests (Schuirmann, 1987): the precisions count as equivalent where the
90 % interval of the difference lies within one point. Real data, from finished runs alone:

    python -m benchmarks.precision --config short.yaml --methods csa --precisions float32 auto --cores 0
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
from workflow.report.collect import HEADINGS, collect
from workflow.report.declared import plan_option, read_plan
from workflow.report.estimates import standard_error
from workflow.report.summary import paired_interval

MARGIN = 1.0
"""Points of accuracy that count as nothing."""


def main() -> int:
    """Train what is missing, compare, print and store; return the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks.precision", description=__doc__.split("\n\n")[0])
    plan_option(parser)
    parser.add_argument("--methods", nargs="+", default=["csa", "ce"])
    parser.add_argument("--precisions", nargs=2, default=["float32", "bfloat16"], help="auto: what the protocol says")
    parser.add_argument("--cores", type=int, default=1, help="to train on; 0 takes finished runs alone (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/precision"))
    args = parser.parse_args()
    seeds = list(range(1, 13))
    args.config = ["protocol=demo", f"seeds={seeds}", f"results={args.out}", *args.config]
    try:
        plan = read_plan(args)
        rows = []
        for method in args.methods:
            pair = [runs_of(plan, method, precision) for precision in args.precisions]
            if args.cores:
                train(plan, [run for runs in pair for run in runs], args.cores, args.out)
            rows += compare(plan, method, pair)
    except UserError as error:
        print(f"precision: {error}", file=sys.stderr)
        return 2
    keep(f"precision-{plan.protocol}", rows, args.out)
    return 0


def runs_of(plan: Plan, method: str, precision: str) -> list[Run]:
    """Return a method's runs in one precision, a seed each."""
    changes = {} if precision == "auto" else {"precision": precision}
    return [plan.run(method, changes, seed) for seed in plan.config.seeds]


def train(plan: Plan, runs: list[Run], cores: int, out: Path) -> None:
    """Let Snakemake make the runs that are not there.

    Raises:
        UserError: it failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    config = out / "config.json"
    config.write_text(json.dumps(plan.config.model_dump(mode="json")))
    words = ["--cores", str(cores), "--nolock", "--configfile", str(config.resolve()), "--directory", str(Path.cwd())]
    targets = [f"{run.folder}/metrics.json" for run in runs]
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *words, *targets]
    if subprocess.run(words).returncode:
        raise UserError("snakemake failed; its lines above say why")


def compare(plan: Plan, method: str, pair: list[list[Run]]) -> list[dict[str, Any]]:
    """Return a line for All and for Few: both precisions, over the seeds that are finished in both, and the difference.

    Raises:
        UserError: no seed is finished in both, or the two are not two precisions.
    """
    rows = [
        {"label": runs[0].name, "series": "", "head": None, "run": runs[0].name}
        | {"digests": [run.digest for run in runs], "parents": [run.parent_digest for run in runs]}
        for runs in pair
    ]
    table = {"name": f"precision, {method}", "seeds": plan.config.seeds, "results": plan.results, "rows": rows}
    values, _ = collect(table, partial=True)
    wide = 100 * values.pivot(index=["column", "seed"], columns="row", values="value").dropna()
    if wide.shape[1] < 2 or wide.empty:
        raise UserError(f"{method}: no seed is finished in both precisions")
    seeds = wide.loc["all"].index
    names = [used([run for run in runs if run.config.seed in seeds]) for runs in pair]
    if names[0] == names[1]:
        raise UserError(f"{method}: both were computed in {names[0]}; name two precisions")
    lines = []
    for column in ("all", "few"):
        both = wide.loc[column].to_numpy().T
        line: dict[str, Any] = {"protocol": plan.protocol, "method": method, "accuracy": HEADINGS[column]}
        line |= {"seeds": ", ".join(map(str, seeds)) if len(seeds) < 4 else f"{min(seeds)}-{max(seeds)}"}
        line |= {name: f"{v.mean():.2f} ± {v.std(ddof=1):.2f}" for name, v in zip(names, both, strict=True)}
        lines.append(line | equivalence(both[1] - both[0]))
    return lines


def used(runs: list[Run]) -> str:
    """Return the precision that runs state they were computed in, and name the processor.

    Raises:
        UserError: they state several.
    """
    stated = {read_sealed(Path(run.folder, "metrics.json"))["computed"]["precision"] for run in runs}
    processors = {json.dumps(read_json(Path(run.folder, "provenance.json"))["processor"]) for run in runs}
    print(f"{runs[0].name}: {', '.join(stated)} on {', '.join(processors)}")
    if len(stated) > 1:
        raise UserError(f"{runs[0].name}: its seeds were computed in {' and '.join(sorted(stated))}; name a precision")
    return str(stated.pop())


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
