"""The csa step against its floor: `python benchmarks/step.py [--model resnet32] [--batch 128] [--rounds 15]`.

The floor is forward and backward of the two batches and the optimizer step, on images that lie ready:
what no implementation of the method can avoid. Both run on one CPU thread, interleaved; the ratio is
the median over rounds of the ratio within a round, which a busy neighbour disturbs least.
"""

import argparse
import platform
import statistics
import time

import numpy as np
import torch

from csa_core.config import RunConfig
from csa_core.data.dataset import Dataset
from csa_core.data.plan import plan_epoch
from csa_core.data.split import make_split
from csa_core.train.run import Run
from csa_core.train.step import streams, train_step

Labelled = tuple[torch.Tensor, torch.Tensor]


def main() -> None:
    """Measure and print one line of numbers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="resnet32")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--side", type=int, default=32, help="pixels a side")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = {"source": "demo", "profile": "as_is"}
    config = RunConfig.model_validate(
        {"model": args.model, "batch_size": args.batch, "threshold": 0.0, "data": data, "lr": 0.01}
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20 * args.batch, args.side, args.side, 3), dtype=np.uint8)
    labels = np.arange(len(images)) % 100
    dataset = Dataset("demo", tuple(map(str, range(100))), images, labels, images[:100], labels[:100])
    split = make_split(dataset, config.data)
    run = Run(config, dataset, split, torch.device("cpu"))
    plan = plan_epoch(config, split.class_counts, 0, run.device)
    run.network.train()
    both = streams("csa", "context_shift")

    def csa(i: int) -> None:
        train_step(run, run.images.at(plan, i, both), "context_shift")

    csa(0)  # fills the bank
    ready = run.images.batch(plan.uniform[0]), run.images.batch(plan.resampled[0])
    steps = {"floor": lambda i: floor(run, *ready), "csa": csa}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(args.rounds + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step(i % plan.steps)
            times[name].append(1000 * (time.perf_counter() - start))
    medians = {name: statistics.median(values[2:]) for name, values in times.items()}
    ratio = statistics.median(csa / low for low, csa in zip(times["floor"][2:], times["csa"][2:], strict=True))
    print(f"torch {torch.__version__}, {platform.machine()}, 1 thread, {args.model}, 2 x {args.batch} images")
    print(f"floor {medians['floor']:.0f} ms, csa step {medians['csa']:.0f} ms, ratio {ratio:.3f}")


def floor(run: Run, first: Labelled, second: Labelled) -> None:
    """Forward and backward of two batches, and the optimizer: nothing of the method."""
    loss = run.uniform_loss(run.network.head("uniform", run.network.body(first[0])), first[1])
    run.update(loss + run.resampling_loss(run.network.head("resampling", run.network.body(second[0])), second[1]))


if __name__ == "__main__":
    main()
