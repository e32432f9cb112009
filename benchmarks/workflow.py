"""What surrounds the training: `python -m benchmarks.workflow`.

Start-up of a training process, Snakemake's overhead a job, runs an hour by threads of a job, what
trainings lose that share their cores, and the time to redraw everything, where everything has been trained.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.measure import endless, keep, make_dataset, make_run
from csa_core.cli import SPINS

ROOT = Path(__file__).parents[1]
TABLES = ["workflow", "threads", "sharing"]
# A run of one step: all that is left is what surrounds it.
SHORT = {
    "data": {"source": "demo", "imbalance_ratio": 4, "max_class_count": 16},
    "model": "resnet8", "epochs": 1, "batch_size": 128, "lr_warmup_epochs": 0, "lr_drops": [], "warmup_epochs": 0,
    "plain_epochs": 0, "threshold": 0.0, "crop_padding": 2,
}  # fmt: skip
FIRST_STEP = """
import sys, time
from csa_core.cli import main
from csa_core.methods.base import Method
step = Method.step
def first(*args):
    print(time.time(), file=sys.stderr)
    Method.step = step
    return step(*args)
Method.step = first
sys.exit(main(sys.argv[1:]))
"""


def main() -> None:
    """Measure, print and store; as a child, train steps and say how long they took."""
    parser = argparse.ArgumentParser("python -m benchmarks.workflow", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=100, help="small jobs to take Snakemake's overhead over")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, help="tables to make (default: all)")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        train_steps(*args.child.split(","))
        return
    if "workflow" in args.only:
        with tempfile.TemporaryDirectory() as folder:
            rows = [startup(Path(folder), args.rounds), overhead(Path(folder), args.jobs), redraw()]
            keep("workflow", [row for row in rows if row], args.out)
    if "threads" in args.only:
        keep("threads", threads(args.rounds), args.out)
    if "sharing" in args.only:
        keep("sharing", sharing(args.rounds), args.out)


def startup(folder: Path, rounds: int) -> dict[str, Any]:
    """Return seconds from the start of a training process to its first step."""
    (folder / "run.yaml").write_text(yaml.safe_dump(SHORT))
    first = []
    for i in range(rounds):
        start = time.time()
        words = ["train", folder / "run.yaml", "--out", folder / f"out{i}", "--device", "cpu", "--threads", "1"]
        done = python("-c", FIRST_STEP, *words)
        first.append(min(float(line) for line in done.stderr.splitlines() if line[:10].isdigit()) - start)
    return {"what": "start of a process to its first step", "seconds": statistics.median(first), "goal": 4.0}


def overhead(folder: Path, jobs: int) -> dict[str, Any]:
    """Return what Snakemake adds to each of many short training jobs, one after the other."""
    protocol = folder / "one_step.yaml"
    protocol.write_text(yaml.safe_dump(SHORT))
    config = {"protocol": str(protocol), "seeds": list(range(1, jobs + 1)), "device": "cpu", "compile": "no"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    options = ["--snakefile", ROOT / "Snakefile", "--directory", folder, "--configfile", folder / "config.yaml"]
    python("-m", "snakemake", "prepare", *options, "--cores", "1")
    targets = [f"results/one_step/runs/ce/seed={seed}/metrics.json" for seed in range(1, jobs + 1)]
    start = time.perf_counter()
    python("-m", "snakemake", *targets, *options, "--cores", "1")
    together = time.perf_counter() - start
    # The same commands without Snakemake, on seeds that have no state yet.
    data = next(folder.glob("results/data/*/dataset.safetensors"))
    alone = []
    for seed in range(jobs + 1, jobs + 1 + min(jobs, 10)):
        start = time.perf_counter()
        words = ["train", protocol, "--data", data, "--split", next(data.parent.glob("*.json")), "--threads", "1"]
        words += ["--set", f"seed={seed}", "--set", "method=ce", "--device", "cpu", "--compile", "no"]
        python("-m", "csa_core", *words, "--out", folder / f"alone{seed}", "--state", folder / "results/state")
        alone.append(time.perf_counter() - start)
    each = together / jobs - statistics.median(alone)
    return {"what": f"Snakemake's overhead a job, over {jobs}", "seconds": each, "goal": 2.0}


def redraw() -> dict[str, Any]:
    """Return seconds to draw all tables and figures again; {} where they have not been made."""
    if not (ROOT / "results/report.html").exists():
        print("redrawing is not measured: nothing is drawn yet; run snakemake --cores all first", file=sys.stderr)
        return {}
    start = time.perf_counter()
    targets = ["results/report.html", "--forcerun", "table", "figure", "--cores", "all"]
    python("-m", "snakemake", *targets, "--directory", ROOT, "--snakefile", ROOT / "Snakefile")
    return {"what": "redrawing everything", "seconds": time.perf_counter() - start, "goal": 15.0}


def threads(rounds: int) -> list[dict[str, Any]]:
    """Return csa runs an hour on all cores, by the threads of each job; jobs beside each other from the same moment."""
    cores, rows = len(os.sched_getaffinity(0)), []
    for model, side, images, epochs in (("resnet8", 16, 694, 30), ("resnet32", 32, 10_847, 200)):
        batch = 64 if model == "resnet8" else 128
        steps = epochs * -(-images // batch)
        counts = [n for n in (1, 2, 4, 8, 16) if n <= cores]
        rates: dict[int, list[float]] = {n: [] for n in counts}
        for _ in range(rounds):
            for n in counts:
                rates[n].append(sum(beside(cores // n, f"{model},{side},{batch},{n}")) * 3600 / steps)
        for n in counts:
            row = {"model": model, "pixels": side, "jobs": cores // n, "threads each": n}
            best = statistics.median(one / many for one, many in zip(rates[1], rates[n], strict=True))
            rows.append(row | {"runs an hour": statistics.median(rates[n]), "1 thread a job is faster by": best})
    return rows


def sharing(rounds: int) -> list[dict[str, Any]]:
    """Return steps a second with a thread a core, alone and two at once, by how long OpenMP's threads wait awake."""
    cores, rows = len(os.sched_getaffinity(0)), []
    for model, side, batch in (("resnet8", 16, 64), ("resnet32", 32, 128)):
        for jobs in (1, 2):
            pairs = [
                [sum(beside(jobs, f"{model},{side},{batch},{cores}", spins)) for spins in (None, SPINS)]
                for _ in range(rounds)
            ]
            usual, ours = (statistics.median(rates) for rates in zip(*pairs, strict=True))
            faster = statistics.median(b / a for a, b in pairs)
            row = {"model": model, "trainings at once": jobs, "threads each": cores, "steps a second, as OpenMP": usual}
            rows.append(row | {f"{SPINS} spins": ours, "faster by": faster})
    return rows


def beside(jobs: int, what: str, spins: str | None = None) -> list[float]:
    """Return the steps a second of each of several processes that train side by side."""
    words = [sys.executable, "-m", "benchmarks.workflow", "--child", f"{what},{time.time() + 12}"]
    env = os.environ | ({"GOMP_SPINCOUNT": spins} if spins else {})
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env) for _ in range(jobs)]
    return [float(process.communicate()[0]) for process in started]


def train_steps(model: str, side: str, batch: str, count: str, start: str, seconds: float = 10.0) -> None:
    """Train from a moment on for some seconds, and print the steps a second."""
    torch.set_num_threads(int(count))
    run = make_run(make_dataset(side=int(side)), torch.device("cpu"), model=model, batch_size=int(batch))
    step = endless(run)
    for _ in range(3):
        step()
    while time.time() < float(start):
        time.sleep(0.001)
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        step()
        done += 1
    print(done / (time.perf_counter() - begin))


def python(*words: object) -> "subprocess.CompletedProcess[str]":
    """Run Python; stop with what it said where it fails."""
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return done


if __name__ == "__main__":
    main()
