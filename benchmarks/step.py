"""The step of csa and of every method against its floor, and what it costs: `python -m benchmarks.step`.

The floor is forward and backward of the two batches and the optimizer step, on images that lie ready:
what no implementation of the method can avoid. Each precision has its own, and stands beside the first one's, too.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from benchmarks.baseline import Images, Plain
from benchmarks.measure import endless, interleaved, keep, make_dataset, make_run, medians, ratio
from csa_core.data.augment import plain_batches
from csa_core.methods.csa import Csa
from csa_core.models.folded import folded
from csa_core.ops.context_shift import context_shift
from csa_core.train.compiled import compile_where_it_pays
from csa_core.train.replay import EAGER_STEPS, captured
from csa_core.train.run import Run, choose_device

OUT = Path("results/benchmarks")
TABLES = ("step", "methods", "parts", "evaluation", "batch", "bank", "classes")
# Each method in the epochs in which it does most: with class weights, re-sampled, every step with a box.
METHODS: dict[str, dict[str, Any]] = {
    "ce": {},
    "class_balanced": {},
    "logit_adjustment": {},
    "progressive": {},
    "drs": {"deferred_until": 0},
    "reweighting": {},
    "focal": {"reweighting": "always"},
    "ldam": {"reweighting": "always"},
    "vs": {"reweighting": "always"},
    "mixup": {"reweighting": "always"},
    "remix": {"reweighting": "always"},
    "cmo": {"reweighting": "always", "loss": "ldam", "unpasted_epochs": [0, 0], "paste_probability": 1.0},
    "csa": {},
}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser("python -m benchmarks.step", description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda (default: cpu)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="CPU threads, one table line each")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="torch.compile the network, too: a minute more")
    parser.add_argument("--workers", type=int, default=0, help="DataLoader workers of the baseline")
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"], help="of the step; tf32 goes alone")
    parser.add_argument("--cpu-time", action="store_true", help="step, methods: CPU time, for a busy machine")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, help="tables to make (default: all)")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    if "tf32" in args.precision and len(args.precision) > 1:
        parser.error("--precision: tf32 is set for a whole process; measure it alone")
    device = choose_device(args.device, args.precision[0])
    if device.type == "cuda":
        torch.cuda.set_stream(torch.cuda.Stream(device))  # the default one cannot be captured
    rounds, fewer = args.rounds, max(5, args.rounds // 2)
    make: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "step": lambda: [row for threads in args.threads for row in step(device, threads, args)],
        "methods": lambda: methods(device, fewer, clock_of(args)),
        "parts": lambda: parts(device, rounds),
        "evaluation": lambda: evaluation(device, rounds),
        **{name: partial(cost, name, kinds, device, fewer) for name, kinds in costs().items()},
    }
    for name in args.only:
        torch.set_num_threads(args.threads[0])
        keep(name, make[name](), args.out, args.device)


def step(device: torch.device, threads: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return milliseconds of a step of 2 x 128 images through ResNet-32 in each precision, and ratios."""
    torch.set_num_threads(threads)
    dataset = make_dataset()
    many = 1 if device.type == "cpu" else 50  # a GPU's step is too short to be timed alone
    steps: dict[str, Callable[[], object]] = {"baseline": Plain(dataset, 128, device, args.workers).step}
    for name in args.precision:
        run = make_run(dataset, device, precision=name)
        steps |= {f"{name} floor": floor(run), f"{name} csa": endless(run)}
        if args.compile:
            compiled = make_run(dataset, device, precision=name)
            compile_where_it_pays(compiled, "yes")
            steps[f"{name} compiled"] = endless(compiled)
    for candidate in steps.values():
        for _ in range(warmup(device)):
            candidate()
    timed = {name: repeat(each, many) for name, each in steps.items()}
    times = interleaved(timed, args.rounds, clock=clock_of(args))
    value, first, rows = medians(times), args.precision[0], []
    for name in args.precision:
        row: dict[str, Any] = {"device": device.type, "precision": name, "threads": threads}
        row |= {f"{part} ms": value[f"{name} {part}"] / many for part in ("floor", "csa")}
        row |= {"baseline ms": value["baseline"] / many}
        row |= {"csa / floor": ratio(times, f"{name} csa", f"{name} floor")}
        row |= {f"csa / {first} floor": ratio(times, f"{name} csa", f"{first} floor")}
        row |= {"baseline / csa": ratio(times, "baseline", f"{name} csa")}
        if args.compile:
            row["csa / compiled"] = ratio(times, f"{name} csa", f"{name} compiled")
        rows.append(row)
    return rows


def clock_of(args: argparse.Namespace) -> Callable[[], float]:
    """Return what times are of: the wall clock, or CPU time."""
    return time.process_time if args.cpu_time else time.perf_counter


def methods(device: torch.device, rounds: int, clock: Callable[[], float]) -> list[dict[str, Any]]:
    """Return milliseconds of a step of each method and of its floor, in float32, and their ratio."""
    dataset = make_dataset()
    steps: dict[str, Callable[[], object]] = {}
    for name, changes in METHODS.items():
        run = make_run(dataset, device, method=name, **changes)
        steps |= {f"{name} floor": (floor if isinstance(run.method, Csa) else floor_of_one)(run), name: endless(run)}
    times = interleaved(steps, rounds, warmup(device), clock)
    value, rows = medians(times), []
    for name in METHODS:
        row = {"method": name, "step ms": value[name], "floor ms": value[f"{name} floor"]}
        rows.append(row | {"step / floor": ratio(times, name, f"{name} floor"), "step / ce": ratio(times, name, "ce")})
    return rows


def floor_of_one(run: Run) -> Callable[[], object]:
    """Return forward, cross-entropy, backward and optimizer on one batch that lies ready."""
    x, y = next(iter(run.images.at(run.method.plan(0), 0).streams.values()))
    return bare(run, lambda: cross_entropy(run.network.head("single", run.method.features(run.network, x)), y))


def bare(run: Run, loss: Callable[[], torch.Tensor]) -> Callable[[], object]:
    """Return a step down the gradient of a loss; on a GPU captured, as the method's is."""

    def plain_step() -> dict[str, torch.Tensor]:
        run.update(loss())
        return {}

    if run.device.type != "cuda":
        return plain_step
    for _ in range(EAGER_STEPS):
        plain_step()
    return captured(plain_step)


def warmup(device: torch.device) -> int:
    """Return the steps before the first that counts: a GPU's is captured meanwhile."""
    return 2 if device.type == "cpu" else 2 * EAGER_STEPS


def floor(run: Run) -> Callable[[], object]:
    """Return forward, backward and optimizer on two batches that lie ready: nothing of the method."""
    method = csa_of(run)
    batch = run.images.at(method.plan(0), 0)
    (x, y), (resampled, their_y) = batch.streams["uniform"], batch.streams["resampled"]

    def loss() -> torch.Tensor:
        network = run.network
        loss: torch.Tensor = method.uniform_loss(network.head("uniform", method.features(network, x)), y)
        features = method.features(network, resampled)
        return loss + method.resampling_loss(network.head("resampling", features), their_y)

    return bare(run, loss)


def csa_of(run: Run) -> Csa:
    """Return the method of a csa run."""
    assert isinstance(run.method, Csa)
    return run.method


def repeat(step: Callable[[], object], times: int) -> Callable[[], object]:
    """Return what does a step several times."""

    def several() -> None:
        for _ in range(times):
            step()

    return several


def parts(device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """Return what parts of the step cost for a batch of 128, beside the usual way of doing them."""
    dataset = make_dataset()
    run, plain, usual = make_run(dataset, device), Plain(dataset, 128, device), Images(dataset)
    method = csa_of(run)
    plan = method.plan(0)
    picks, batch = plan.streams["uniform"][0], run.images.at(plan, 0)
    x, y = batch.streams["uniform"]
    features = run.network.body(x).detach()
    logits = run.network.head("uniform", features).detach()
    times = interleaved(
        {
            "augmentation": lambda: run.images.batch(picks),
            "augmentation, usual": lambda: torch.stack([usual[int(i)][0] for i in picks.index]),
            "mask and confidence": lambda: method.find_contexts(run.network, batch, features, logits),
            "mask and confidence, usual": lambda: plain._contexts(x, y),
        },
        rounds,
    )
    value = medians(times)
    return [
        {"part": p, "ms": value[p], "usual ms": value[f"{p}, usual"], "ratio": ratio(times, f"{p}, usual", p)}
        for p in ("augmentation", "mask and confidence")
    ]


@torch.no_grad()
def evaluation(device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """Return milliseconds for 1,000 test images: batch norm folded and plain, both channels-last, and the usual way."""
    dataset = make_dataset()
    network = make_run(dataset, device).network.eval()
    usual = Plain(dataset, 128, device).network.eval()

    def through(net: torch.nn.Module, size: int, contiguous: bool = False) -> None:
        for batch in plain_batches(dataset.test_images, dataset, device, size):
            net(batch.contiguous() if contiguous else batch)

    times = interleaved(
        {
            "folded": lambda: through(folded(network), 100),
            "plain": lambda: through(network, 100),
            "usual": lambda: through(usual, 128, contiguous=True),
        },
        max(3, rounds // 3),
    )
    rows = {"folded / plain": ratio(times, "folded", "plain"), "folded / usual": ratio(times, "folded", "usual")}
    return [{f"{name} ms": value for name, value in medians(times).items()} | rows]


def costs() -> dict[str, list[dict[str, Any]]]:
    """Return what is varied, one key at a time."""
    return {
        "batch": [{"batch_size": size} for size in (32, 64, 128, 256)],
        "bank": [{"bank_batches": batches} for batches in (1, 4, 16, 64)],
        "classes": [{"classes": classes} for classes in (10, 100, 1000)],
    }


def cost(name: str, kinds: list[dict[str, Any]], device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """Return milliseconds of a step, interleaved over the values of one key; of the bank, also of its operations."""
    runs = []
    for kind in kinds:
        changes = {key: value for key, value in kind.items() if key != "classes"}
        runs.append(make_run(make_dataset(kind.get("classes", 100)), device, **changes))
    for run in runs:
        for _ in range(csa_of(run).config.bank_batches):
            bank_operations(run)()  # fills it
    times = interleaved({str(i): endless(run) for i, run in enumerate(runs)}, rounds, warmup(device))
    value = medians(times)
    rows = []
    for i, (kind, run) in enumerate(zip(kinds, runs, strict=True)):
        row = kind | {"step ms": value[str(i)], "ms an image": value[str(i)] / (2 * csa_of(run).config.batch_size)}
        rows.append(row | {"relative to the first": ratio(times, str(i), "0")})
    if name != "bank":
        return rows
    times = interleaved({str(i): bank_operations(run) for i, run in enumerate(runs)}, 5 * rounds)
    value = medians(times)
    for i, run in enumerate(runs):
        megabytes = sum(tensor.nbytes for tensor in run.method.state().values()) / 1e6
        rows[i] |= {"push, draw and shift ms": value[str(i)], "bank MB": megabytes}
    return rows


def bank_operations(run: Run) -> Callable[[], object]:
    """Return a push of a batch that is confident throughout, a draw and a shift."""
    batch, bank = run.images.at(run.method.plan(0), 0), csa_of(run).bank
    assert bank is not None
    x, _ = batch.streams["uniform"]
    mask = torch.rand(len(x), 1, *x.shape[2:], device=run.device)
    everyone = torch.ones(len(x), dtype=torch.bool, device=run.device)

    def operate() -> None:
        bank.push(x, mask, everyone)
        contexts, masks = bank.draw(bank.places(batch.draws["places"], len(x)))
        context_shift(x, contexts, masks, batch.draws["mix"])

    return operate


if __name__ == "__main__":
    main()
