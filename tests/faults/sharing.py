"""Let two trainers of different seeds fill one folder, again and again.

    python -m tests.faults.sharing ROUNDS FOLDER

A process of its own, because it forks: torch is imported once. In every second round they wait for each other.
Prints, as JSON, of each round how the two ended, and whether what lies in the folder is whole and of one of them.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from csa_core import store
from csa_core.data.dataset import Dataset
from csa_core.data.sources import load_source
from csa_core.data.split import make_split
from csa_core.errors import UserError
from csa_core.train.loop import Options, train
from tests.conftest import tiny

RUNS = {seed: tiny(seed=seed, epochs=3, lr_drops=[], plain_epochs=0, evaluate_every=0) for seed in (1, 2)}


def config_of(path: Path) -> str:
    """Return the digest of configuration that a result states."""
    value = store.read_sealed(path) if path.suffix == ".json" else store.read_tensors(path)[1]
    return str(value["digests"]["config"])


def main(rounds: int, folder: Path) -> None:
    """Start two, wait for them, look."""
    whole = load_source(RUNS[1].data)
    assert isinstance(whole, Dataset)
    few = slice(None, None, 10)
    dataset = dataclasses.replace(
        whole, test_images=whole.test_images[few], test_labels=whole.test_labels[few], digest=""
    )
    split = make_split(dataset, RUNS[1].data)

    def run(out: Path, seed: int, waits: bool) -> str:
        options = Options(out, out.with_name(f"{out.name}-{seed}"), torch.device("cpu"), "code", 0, wait=waits)
        try:
            metrics = train(RUNS[seed], dataset, split, options)
        except UserError as error:
            return str(error)
        return "own" if metrics["digests"]["config"] == RUNS[seed].digest() else "another's"

    report: list[dict[str, Any]] = []
    for number in range(rounds):
        out, waits = folder / str(number), number % 2 == 1
        children = {}
        for seed in RUNS:
            if (child := os.fork()) == 0:
                (folder / f"{number}-said-{seed}").write_text(run(out, seed, waits))
                os._exit(0)
            children[child] = seed
        for child in children:
            os.waitpid(child, 0)
        said = [(folder / f"{number}-said-{seed}").read_text() for seed in RUNS]
        files = [out / name for name in ("metrics.json", "weights.safetensors", "predictions.safetensors")]
        left = [path.name for path in out.iterdir() if path.name.endswith(".tmp")]
        report.append({"waits": waits, "said": said, "of": len({config_of(path) for path in files}), "left": left})
    print(json.dumps(report))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), Path(sys.argv[2]))
