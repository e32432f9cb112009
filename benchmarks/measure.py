"""What all benchmarks share: interleaved timing, made-up data of a data set's shape, and tables that are kept.

Candidates run in turn, round by round, and a ratio is the median over rounds of the ratio within a
round: a busy neighbour slows both, and disturbs a ratio least.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from csa_core.data.dataset import Dataset
from csa_core.data.split import make_split
from csa_core.methods import parse, recipe
from csa_core.train.run import Run
from csa_core.train.state.results import processor

ROOT = Path(__file__).parents[1]
Times = dict[str, list[float]]


def interleaved(
    steps: dict[str, Callable[[], object]],
    rounds: int,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Return milliseconds of each candidate in each round by a clock, without the first `warmup` rounds."""
    times: Times = {name: [] for name in steps}
    for _ in range(warmup + rounds):
        for name, step in steps.items():
            _wait()
            start = clock()
            step()
            _wait()
            times[name].append(1000 * (clock() - start))
    return {name: values[warmup:] for name, values in times.items()}


def medians(times: Times) -> dict[str, float]:
    """Return the median milliseconds of each candidate."""
    return {name: statistics.median(values) for name, values in times.items()}


def ratio(times: Times, one: str, other: str) -> float:
    """Return how many times longer `one` takes than `other`: the median over rounds."""
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))


def make_dataset(classes: int = 100, images: int = 10_847, test: int = 1_000, side: int = 32) -> Dataset:
    """Return noise of CIFAR100-LT's shape; no time depends on what is on the images."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images + test, side, side, 3), dtype=np.uint8)
    labels = np.arange(images + test) % classes
    labels[:images].sort()
    names = tuple(map(str, range(classes)))
    return Dataset("demo", names, pixels[:images], labels[:images], pixels[images:], labels[images:])


def make_run(dataset: Dataset, device: torch.device, **changes: Any) -> Run:
    """Return a run in float32, the appendix's otherwise: csa, whose bank fills at its first step, or another method."""
    fields: dict[str, Any] = {"data": {"source": "demo", "profile": "as_is"}, "threshold": 0.0, "lr": 0.01}
    fields |= {"warmup_epochs": 0, "precision": "float32"} | changes
    config = parse(recipe(fields, changes.get("method", "csa")), "benchmark")
    run = Run(config, dataset, make_split(dataset, config.data), device)
    run.network.train()
    return run


def endless(run: Run) -> Callable[[], object]:
    """Return what trains one more step of a run."""

    def steps() -> Iterator[object]:
        for epoch in range(1_000_000):
            yield from run.steps(epoch)

    iterator = steps()
    return lambda: next(iterator)


def hardware(device: str = "cpu") -> str:
    """Return processor with its instruction sets or GPU, cores and versions in one line."""
    found = processor()
    named = f"{found['name']} ({', '.join(found['has'])})"
    if device.startswith("cuda"):
        named = f"{torch.cuda.get_device_name()}, {named}"
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    return f"{named}, {os.cpu_count()} cores; {versions}; {platform.system()}"


def keep(name: str, rows: list[dict[str, Any]], out: Path, device: str = "cpu") -> None:
    """Print a table with the hardware, and store it as `out / name.csv`, each line with its hardware."""
    frame = pd.DataFrame(rows)
    print(f"\n## {name}\n\n{hardware(device)}\n\n{frame.to_markdown(index=False, floatfmt='.4g')}", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    frame.assign(hardware=hardware(device)).to_csv(out / f"{name}.csv", index=False)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
