"""What has to be seen on a GPU once: `python -m benchmarks.gpu`, about ten minutes on any CUDA machine.

Equality of CPU and GPU steps, of replayed and plain steps and of a run with itself; questions to the
device; time and memory of a step by precision. One table; exit code 1 where a check fails, 2 without a GPU.
"""

import argparse
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import endless, hardware, interleaved, keep, make_dataset, make_run, medians
from csa_core.ops.bank import bank_bytes
from csa_core.train.loop import train_epoch
from csa_core.train.run import Run, choose_device

Found = tuple[str, bool | None]
"""What a check found, in words, and whether it is as it should be; None where it is a measurement."""
# Eight epochs through every phase: warm-up, context shift, plain.
WHOLE = {"epochs": 8, "lr_drops": [6], "lr_warmup_epochs": 2, "warmup_epochs": 2, "plain_epochs": 2, "lr": 0.05}
GPU = torch.device("cuda")


def main(argv: list[str] | None = None) -> int:
    """Run all checks and print their table; return the exit code."""
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=200, help="steps that a time is the median of")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("benchmarks.gpu: torch finds no CUDA GPU here; run it on a machine that has one", file=sys.stderr)
        return 2
    print(hardware("cuda"))
    checks: dict[str, Callable[[], Found]] = {
        "a step on the CPU and on the GPU": cpu_and_gpu,
        "replayed and plain steps, all phases": replayed_and_plain,
        "the same run twice": twice,
        "a plain step asks the device nothing": asks_nothing,
        "memory of a graph is given back": memory_of_graphs,
    }
    for precision in ("float32", "tf32", "bfloat16"):
        checks[f"step in {precision}"] = partial(step_in, precision, args.rounds)
    rows = [row(name, check) for name, check in checks.items()]
    keep("gpu", rows, args.out, "cuda")
    return int(any(each["verdict"] == "FAILED" for each in rows))


def row(name: str, check: Callable[[], Found]) -> dict[str, Any]:
    """Return a line of the table; a check that raises has failed, and the others still run."""
    choose_device("cuda", "float32")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        found, is_right = check()
    except Exception as error:  # whatever it is, it belongs into the table, and the next check runs
        traceback.print_exc()
        found, is_right = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}", False
    return {"check": name, "found": found, "verdict": {True: "ok", False: "FAILED", None: ""}[is_right]}


def trained(device: torch.device, capture: bool, **changes: Any) -> tuple[Run, list[dict[str, Any]]]:
    """Return a run trained through every phase, and its history."""
    run = make_run(make_dataset(), device, **WHOLE | changes)
    run.replay = run.replay if capture else None
    return run, [train_epoch(run, epoch) for epoch in range(run.config.total_epochs)]


def differing(one: Run, other: Run) -> list[str]:
    """Return the names of the tensors of two runs that differ in a bit."""
    mine, theirs = one.state(), other.state()
    return [name for name, array in mine.items() if not np.array_equal(array, theirs[name])]


def cpu_and_gpu() -> Found:
    """Compare losses and gradients of the first steps of all phases; float32 rounds otherwise, no more."""
    runs = [make_run(make_dataset(), device, precision="float32") for device in (torch.device("cpu"), GPU)]
    worst = 0.0
    for step, phase in enumerate(("warmup", "context_shift", "plain")):
        values = []
        for run in runs:
            for group in run.optimizer.param_groups:  # so that rounding does not grow
                group["lr"] = 0.0 * group["lr"]
            stats = run.method.step(run, run.images.at(run.method.plan(0), step), phase)
            gradients = [p.grad.flatten().cpu() for p in run.network.parameters() if p.grad is not None]
            values.append(torch.cat([torch.stack([stats["loss"].cpu(), stats["resampling_loss"].cpu()]), *gradients]))
        worst = max(worst, float((values[0] - values[1]).norm() / values[0].norm()))
    return f"relative difference of losses and gradients {worst:.1e}, at most 1e-2", worst < 1e-2


def replayed_and_plain() -> Found:
    """Compare a captured run with one that trains each step by itself."""
    worst = []
    for changes in ({}, {"bank_batches": 4, "bank_start": "batch", "bank_reset": "epoch"}):
        (one, rows), (other, plain) = trained(GPU, True, **changes), trained(GPU, False, **changes)
        worst += differing(one, other) + [f"epoch {a['epoch']}" for a, b in zip(rows, plain, strict=True) if a != b]
    return f"{len(worst)} differences" + (f", first: {worst[0]}" if worst else ""), not worst


def twice() -> Found:
    """Train the same run twice, as users do: captured."""
    worst = differing(trained(GPU, True)[0], trained(GPU, True)[0])
    return f"{len(worst)} tensors differ" + (f", first: {worst[0]}" if worst else ""), not worst


def asks_nothing() -> Found:
    """Let torch raise where a step with context shift waits for the device."""
    run = make_run(make_dataset(), GPU)
    plan = run.method.plan(0)
    numbers = torch.arange(4, device=GPU)  # made here: to bring a number to the device is to wait for it
    for step in range(4):
        if step == 3:
            torch.cuda.set_sync_debug_mode("error")
        try:
            batch = run.images.at(plan.of_step(numbers[step : step + 1]), 0)
            run.method.step(run, batch, "context_shift")
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return "nothing", True


def memory_of_graphs() -> Found:
    """Compare the memory that is held after three captured phases with that of plain steps."""
    held = []
    for capture in (False, True):
        run, _ = trained(GPU, capture)
        run.replay = None
        run.optimizer.zero_grad()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        held.append(torch.cuda.memory_reserved() / 1e6)
        del run
    return f"{held[0]:,.0f} MB held after plain steps, {held[1]:,.0f} MB after captured ones", held[1] < 1.5 * held[0]


def step_in(precision: str, rounds: int) -> Found:
    """Time plain and replayed steps; say what memory the larger takes, and see that torch.compile can read TF32."""
    choose_device("cuda", precision)
    run, plain = (make_run(make_dataset(), GPU, precision=precision) for _ in range(2))
    plain.replay = None
    time = medians(interleaved({"replayed": endless(run), "plain": endless(plain)}, rounds, warmup=20))
    peak, bank = torch.cuda.max_memory_allocated() / 1e6, bank_bytes(128, (32, 32)) / 1e6
    is_tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    words = (
        f"replayed {time['replayed']:.2f} ms, plain {time['plain']:.2f} ms; two runs {peak:,.0f} MB, bank {bank:.0f}"
    )
    return words, None if is_tf32 == (precision == "tf32",) * 2 else False


if __name__ == "__main__":
    sys.exit(main())
