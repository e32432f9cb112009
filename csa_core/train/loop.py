"""The loop: train one run from wherever it stands to its results, through any number of kills.

State lives in `state_root / <digest>`, keyed by configuration, data, split and code. An unfinished
run keeps its last two checkpoints there; a finished one keeps its results, from which `--out` is
filled again at no cost. Where a run continues from, in this order: its finished results, its newest
sound checkpoint, the start.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from csa_core import store
from csa_core.config import RunConfig
from csa_core.data.augment import evaluation_batches
from csa_core.data.dataset import Dataset
from csa_core.data.plan import plan_epoch
from csa_core.data.split import Split, group_of_class
from csa_core.errors import UserError
from csa_core.train import checkpoint
from csa_core.train.evaluate import predict, with_ensemble
from csa_core.train.progress import Progress
from csa_core.train.results import Row, finish, is_finished
from csa_core.train.run import Run
from csa_core.train.schedule import learning_rate, phase
from csa_core.train.step import STEPS


def train(
    config: RunConfig,
    dataset: Dataset,
    split: Split,
    out: Path,
    state_root: Path,
    device: torch.device,
    code: str,
    checkpoint_seconds: float = 30.0,
    retrain: bool = False,
) -> dict[str, Any]:
    """Train `config` and leave its results in `out`; return the metrics.

    Args:
        code: version of the training code that the results are labelled with.
        checkpoint_seconds: write a checkpoint at the first end of an epoch after this long.
        retrain: forget finished results and checkpoints of this very run first.

    Raises:
        UserError: another process trains this run, or a loss is not finite.
    """
    digests = {
        "config": config.digest(),
        "data": dataset.digest,
        "split": split.digest,
        "code": code,
    }
    folder = state_root / store.digest(digests)[:24]
    group_of_class(config.data.groups, split.class_counts)  # before hours of training, not after
    store.make_folder(folder)
    store.make_folder(out)
    try:
        with FileLock(folder / "lock", timeout=0):
            if retrain:
                for path in [*checkpoint.find(folder), folder / "finished.json"]:
                    path.unlink(missing_ok=True)
            if not is_finished(folder):
                run = Run(config, dataset, split, device)
                history, seconds = _train_epochs(run, dataset, folder, checkpoint_seconds)
                finish(run, dataset, split, folder, digests, history, seconds)
            (out / "metrics.json").unlink(missing_ok=True)
            for name in store.RESULTS:
                store.write_bytes(out / name, (folder / name).read_bytes())
    except Timeout:
        raise UserError(f"{folder}: another process is training this run; wait for it or stop it") from None
    metrics: dict[str, Any] = store.read_json(out / "metrics.json")
    return metrics


def _train_epochs(run: Run, dataset: Dataset, folder: Path, checkpoint_seconds: float) -> tuple[list[Row], float]:
    """Train what is left of the epochs; return the history of all and the seconds spent on all."""
    config = run.config
    tensors, meta, damaged = checkpoint.load_newest(folder)
    first, history, before = meta.get("epoch", 0), meta.get("history", []), meta.get("seconds", 0.0)
    if tensors:
        run.load(tensors)
    progress = Progress(config.epochs, first)
    for line in damaged + ([f"continuing after epoch {first} of {config.epochs}"] if first else []):
        progress.say(line)
    start = saved = time.monotonic()
    try:
        for epoch in range(first, config.epochs):
            row = train_epoch(run, epoch)
            if config.evaluate_every and (epoch + 1) % config.evaluate_every == 0:
                row |= _test_accuracies(run, dataset)
            history.append(row)
            progress.epoch(epoch + 1, row["loss"], row["train_accuracy"])
            now = time.monotonic()
            if now - saved >= checkpoint_seconds and epoch + 1 < config.epochs:
                spent = before + now - start
                checkpoint.save(folder, epoch + 1, run.state(), {"history": history, "seconds": spent})
                saved = now
    finally:
        progress.close()
    return history, before + time.monotonic() - start


def train_epoch(run: Run, epoch: int) -> Row:
    """Train one epoch, numbered from 0; return its row of the history.

    Raises:
        UserError: the loss is not finite; nothing of this epoch has been saved.
    """
    config, now = run.config, phase(run.config, epoch)
    rate = learning_rate(config, epoch)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    if run.bank and config.bank_reset == "epoch":
        run.bank.empty()
    plan = plan_epoch(config, run.class_counts, epoch, run.device)
    run.network.train()
    step = STEPS[config.method]
    totals = step(run, plan, 0, now)
    for i in range(1, plan.steps):
        for name, value in step(run, plan, i, now).items():
            totals[name] = totals[name] + value
    # The only time the epoch waits for the device.
    sums = {name: float(value) for name, value in totals.items()}
    images = plan.steps * config.batch_size
    row: Row = {
        "epoch": epoch + 1,
        "phase": now,
        "lr": rate,
        "loss": sums["loss"] / plan.steps,
        "train_accuracy": sums["correct"] / images,
    }
    if config.method == "csa":
        row["resampling_loss"] = sums["resampling_loss"] / plan.steps
        row["confident"] = sums["confident"] / images
        row["bank_fill"] = float(run.bank.fill()) / run.bank.volume if run.bank else 0.0
    if not all(np.isfinite(value) for value in sums.values()):
        raise UserError(f"loss is not finite in epoch {epoch + 1}; lower lr ({config.lr:g}) or raise lr_warmup_epochs")
    return row


def _test_accuracies(run: Run, dataset: Dataset) -> Row:
    logits = with_ensemble(predict(run.network, evaluation_batches(dataset, run.device)))
    return {f"test_accuracy_{head}": float((z.argmax(1) == dataset.test_labels).mean()) for head, z in logits.items()}
