"""A large sweep without its training: `python benchmarks/sweep.py [--runs 5000] [--classes 100] [--epochs 200]`.

Measured are the plan, the dry run, and everything that is drawn from the result folders. These folders are COPIES:
one tiny run of each method is trained on noise, and its results are written under the name of every other run, with
that run's digests, shaken predictions and their scores, and a history of so many epochs. They are made to time the
collection, lie in a temporary folder, and are never results. Predictions of 100 classes take 8 MB a run.
"""

import argparse
import csv
import functools
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import yaml
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from csa_core.evaluation.scores import score, with_ensemble  # noqa: E402
from csa_core.store import (  # noqa: E402
    RESULTS,
    read_json,
    read_sealed,
    read_tensor,
    read_tensors,
    sealed,
    write_tensors,
)
from workflow.naming import Run  # noqa: E402
from workflow.plan import Plan  # noqa: E402

PROTOCOL: dict[str, Any] = {
    "data": {"source": "folder"},
    "model": "resnet8",
    "epochs": 3,
    "batch_size": 128,
    "crop_padding": 1,
    "lr_warmup_epochs": 1,
    "lr_drops": [],
    "warmup_epochs": 1,
    "plain_epochs": 1,
    "threshold": 0.0,
    "evaluate_every": 1,
    "pretraining": {"epochs": 1, "batch_size": 128, "projector_width": 16, "predictor_width": 4},
}
OTHER_SWEEPS: dict[str, list[Any]] = {
    "bank_batches": [1, 64],
    "mix": [["uniform", 0.0, 1.0], ["beta", 2.0, 2.0]],
    "balance_ratio": [0.0, 1.0],
}
TESTED = 100  # images a class
SHAKEN = 4  # ways in which the predictions of a trained run are shaken


def main() -> None:
    """Measure, and print a line for each step."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=5000, help="planned runs, about (default: 5000)")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--classes", type=int, default=100, help="classes (default: 100)")
    parser.add_argument("--epochs", type=int, default=200, help="lines in the history of a copy")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--draw", nargs="+", default=["all"], help="what to draw (default: all)")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measure(args, (args.keep or Path(temporary)).resolve())


def measure(args: argparse.Namespace, folder: Path) -> None:
    """Take all measures in a folder."""
    make_images(folder / "images", args.classes)
    config = write_config(folder, args.runs, args.seeds)
    plan = Plan(config)
    runs = plan.all_runs()
    planned = (
        "import sys, yaml; from workflow.plan import Plan; p = Plan(yaml.safe_load(sys.stdin)); "
        "print(len(p.all_runs()), len([p.drawing(name) for name in p.tables]))"
    )
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    snakemake += ["--configfile", str(folder / "sweep.json"), "--cores", str(args.cores)]
    print(f"{platform.machine()}, {args.cores} of {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
    print(f"Snakemake {version('snakemake')}; {len(runs)} runs, {args.classes} classes, {args.epochs} epochs")
    print(f"{'':<34}{'wall':>8}{'CPU':>8}{'memory':>9}")
    timed("plan, and digests of all tables", [sys.executable, "-c", planned], json.dumps(config), folder)
    timed("dry run, nothing trained", [*snakemake, "--dry-run"], "", folder)
    examples = train_examples(snakemake, plan, folder)
    for number, run in enumerate(runs):
        copy(examples[run.config.method], folder, run, args.epochs, number)
    files = [path for path in (folder / plan.results / "runs").rglob("*") if path.is_file()]
    for path in files:  # one time for all: what a run starts from is not newer than the run
        os.utime(path, (time.time(), files[0].stat().st_mtime))
    timed("tables, figures, claims, page", [*snakemake, *args.draw], "", folder)
    timed("the same, drawn again", [*snakemake, *args.draw, "--forcerun", "table", "figure"], "", folder)
    timed("dry run, nothing to do", [*snakemake, "--dry-run"], "", folder)
    read = sum(path.stat().st_size for path in files if path.name != "weights.safetensors")
    print(f"read for it: {read / len(runs) / 1e3:.0f} kB a run, {read / 1e6:.0f} MB in all")


def write_config(folder: Path, runs: int, seeds: int) -> dict[str, Any]:
    """Write and return the configuration: as many thresholds as make so many runs, whatever else the tables need."""
    where = {"data": PROTOCOL["data"] | {"root": str(folder / "images")}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(PROTOCOL | where))
    config: dict[str, Any] = {"protocol": str(folder / "sweep.yaml"), "seeds": list(range(1, seeds + 1))}
    others = len(Plan(config | {"sweeps": OTHER_SWEEPS | {"threshold": [0.0]}}).all_runs()) - seeds
    count = max(2, (runs - others) // seeds)
    config["sweeps"] = OTHER_SWEEPS | {"threshold": [round(i / count, 6) for i in range(count)]}
    (folder / "sweep.json").write_text(json.dumps(config))
    return config


def timed(name: str, command: list[str], text: str, folder: Path) -> None:
    """Run a command and print its wall time, CPU time, and the most memory that it and its children held together."""
    start, before = time.perf_counter(), os.times()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (folder / "sweep.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, text=True, stdin=subprocess.PIPE, stdout=log, stderr=log
        )
        peaks: list[int] = []
        watcher = threading.Thread(target=watch, args=(process, peaks))
        watcher.start()
        process.communicate(text)
    wall, after = time.perf_counter() - start, os.times()
    watcher.join()
    if process.returncode:
        sys.exit((folder / "sweep.log").read_text())
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"{name:<34}{wall:>6.1f} s{cpu:>6.1f} s{max(peaks, default=0) / 1e6:>6.0f} MB", flush=True)


def watch(process: "subprocess.Popen[str]", peaks: list[int]) -> None:
    """Note the resident memory of a process and its children, four times a second, while it runs."""
    while process.poll() is None:
        with suppress(psutil.Error):  # one of them ended during this look: the next one counts
            parent = psutil.Process(process.pid)
            peaks.append(sum(one.memory_info().rss for one in [parent, *parent.children(recursive=True)]))
        time.sleep(0.25)


def train_examples(snakemake: list[str], plan: Plan, folder: Path) -> dict[str, Path]:
    """Train one run of each method, and what the contexts need; return the folders."""
    runs: dict[str, Run] = {}
    for run in plan.all_runs():
        if not run.config.identity().get("pretrained"):
            runs.setdefault(run.config.method, run)
    targets = [f"{run.folder}/metrics.json" for run in runs.values()]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([*snakemake, *targets], check=True, capture_output=True, env=environment)
    return {method: folder / run.folder for method, run in runs.items()}


def copy(example: Path, folder: Path, run: Run, epochs: int, number: int) -> None:
    """Write the results of an example under the name of another run; its weights, which are not read, are a link."""
    target = folder / run.folder
    target.mkdir(parents=True, exist_ok=True)
    metrics, logits, label = shaken(example, folder, number % SHAKEN)
    digests = metrics["digests"] | {"config": run.digest} | ({"parent": run.parent_digest} if run.parent_digest else {})
    texts = {
        "metrics.json": json.dumps(sealed(metrics | {"config": run.config.identity(), "digests": digests})),
        "history.csv": lengthened((example / "history.csv").read_text(), epochs),
        "provenance.json": json.dumps(read_json(example / "provenance.json")),
    }
    for name in RESULTS:
        if target == example and name == "weights.safetensors":
            continue
        (target / name).unlink(missing_ok=True)
        if name in texts:
            (target / name).write_text(texts[name])
        elif name == "predictions.safetensors":
            write_tensors(target / name, logits, label | {"digests": digests})
        else:
            (target / name).hardlink_to(example / name)


@functools.cache
def shaken(example: Path, folder: Path, way: int) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, Any]]:
    """Return metrics, predictions and their label of an example with noise on its logits, scored as a run's are."""
    metrics = read_sealed(example / "metrics.json")
    logits, label, _ = read_tensors(example / "predictions.safetensors")
    labels = read_tensor(next(folder.glob("results/data/*/dataset.safetensors")), "test_labels")
    rng = np.random.default_rng(way)
    right = np.eye(len(metrics["groups"]), dtype=np.float32)[labels]
    logits = {name: z + right + rng.normal(0, 1, z.shape).astype(np.float32) for name, z in logits.items()}
    scored = with_ensemble(logits) if len(logits) > 1 else logits
    metrics["heads"] = {head: score(scored[head], labels, metrics["groups"]) for head in metrics["heads"]}
    return metrics, logits, label


def make_images(root: Path, classes: int) -> None:
    """Write a long-tailed folder of noise, 8 pixels a side, with the class counts of CIFAR100-LT."""
    rng = np.random.default_rng(0)
    for k in range(classes):
        for part, count in (("train", round(500 * 0.01 ** (k / max(classes - 1, 1)))), ("test", TESTED)):
            place = root / part / f"{k:03d}"
            place.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(place / f"{i:03d}.png")


def lengthened(history: str, epochs: int) -> str:
    """Return a history with its second line repeated, as long as one of so many epochs."""
    lines = list(csv.reader(io.StringIO(history)))
    rows = [lines[1], *([lines[min(2, len(lines) - 1)]] * max(epochs - 2, 0)), lines[-1]]
    epoch = lines[0].index("epoch")
    for number, row in enumerate(rows):
        rows[number] = [*row[:epoch], str(number), *row[epoch + 1 :]]
    return "\n".join(",".join(row) for row in [lines[0], *rows]) + "\n"


if __name__ == "__main__":
    main()
