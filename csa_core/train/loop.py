"""The loop: train one run from wherever it stands to its results, through any number of kills.

State lives in `Options.state / <digest>`, keyed by configuration, data, split and code. An unfinished
run keeps its last two checkpoints there; a finished one keeps its results, from which `--out` is
filled again at no cost. Where a run continues from, in this order: its finished results, its newest
sound checkpoint, the start.
"""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from csa_core import store
from csa_core.config import RunConfig, Supervised
from csa_core.data.dataset import Dataset
from csa_core.data.listed import ImageList
from csa_core.data.ranks import decided_by_first_rank, rank, ranks, share_buffers, sum_over_ranks, wait
from csa_core.data.split import Split, apart, group_of_class
from csa_core.errors import UserError, say
from csa_core.evaluation.scores import score
from csa_core.methods import METHODS
from csa_core.methods.base import Method, Stats
from csa_core.models.precision import resolve
from csa_core.train.compiled import compile_where_it_pays
from csa_core.train.guard import NotFinite
from csa_core.train.memory import one_line_when_out_of_memory
from csa_core.train.monitor.live import Live, show_finished
from csa_core.train.monitor.progress import Progress
from csa_core.train.run import Run, choose_device
from csa_core.train.state import checkpoint
from csa_core.train.state.lock import hold
from csa_core.train.state.parent import read_parent
from csa_core.train.state.results import Row, finish, how_computed, is_finished, see_same_run, tidy


@dataclass(frozen=True)
class Options:
    """Where and how a run is trained; what it is stands in its configuration."""

    out: Path
    """Folder for the results."""
    state: Path
    """Folder of the states of all runs."""
    device: torch.device | str
    """Where to compute; it is set up to repeat itself, for the whole process."""
    code: str
    """Version of the training code that the results are labelled with."""
    checkpoint_seconds: float = 30.0
    """Write a checkpoint at the first end of an epoch after this long."""
    retrain: bool = False
    """Forget the finished results of this very run first; one that is not finished goes on."""
    parent: Path | None = None
    """Weights of the run that this run starts from, or the folder with them."""
    compile: str = "no"
    """auto, yes or no, see `csa_core.train.compiled`."""
    capture: str = "auto"
    """auto replays steps as CUDA graphs where that is possible, no does not."""
    wait: bool = False
    """Wait for a process that trains this run, or fills this folder, in place of refusing."""


def train(config: RunConfig, dataset: Dataset | ImageList, split: Split, options: Options) -> dict[str, Any]:
    """Train `config` and leave its results in `options.out`; return the metrics.

    Raises:
        UserError: another process trains this run, the parent is not the one it starts from, something is
            not finite, or there is not enough memory or disk.
    """
    out, device = options.out, choose_device(str(options.device), config.precision)
    # What can be found wrong is found before the first step, and not after hours.
    digests = {"config": config.digest(), "data": dataset.digest, "split": split.digest, "code": options.code}
    # Two machines may decide otherwise for `auto`; one never goes on with what the other began.
    digests["precision"] = resolve(config.precision, device, config.model, dataset.image_size)
    dataset, split = apart(dataset, split)
    weights, weights_digest = read_parent(options.parent, config, dataset.digest, split.digest)
    if weights is not None:
        digests["parent"] = weights_digest
    group_of_class(config.data.groups, split.class_counts)
    METHODS[config.method].check_possible(config, len(split.indices), dataset.image_size)
    rises = METHODS[config.method].learning_rate is Method.learning_rate and config.total_epochs  # others: their own
    if rises and isinstance(config, Supervised) and config.lr_warmup_epochs > config.epochs and rank() == 0:
        say(
            f"csa_core: note: lr_warmup_epochs {config.lr_warmup_epochs} of {config.epochs} epochs: the learning rate "
            f"never reaches {config.lr:g}"
        )
    fewest = min(len(labels) for labels in (dataset.test_labels, dataset.val_labels) if labels is not None)
    if config.processes > fewest:
        raise UserError(f"ranks: {config.processes} ranks share {fewest} images that are scored; use {fewest} at most")
    folder = options.state / store.digest(digests)[:24]
    for each in (folder, out):
        store.make_folder(each)
    # One rank holds the lock, reads and writes; the others train with it. While it waits it tells them so, as nobody
    # may be kept waiting by a peer for more than some minutes.
    waiting = partial(decided_by_first_rank, False, device)
    with hold(folder, out, options.wait, waiting) if rank() == 0 else nullcontext():
        while not decided_by_first_rank(rank() == 0, device):
            pass
        if options.wait and rank() == 0:  # who held the folder may have filled it
            see_same_run(out, config, {key: digests[key] for key in ("data", "split")})
        if options.retrain and rank() == 0 and (folder / "finished.json").exists():
            tidy(folder)
            store.remove(folder / "finished.json")
        if not decided_by_first_rank(rank() == 0 and is_finished(folder), device):
            with one_line_when_out_of_memory(config, dataset.image_size):
                run = Run(config, dataset, split, device, weights)
                run.is_compiled = compile_where_it_pays(run, options.compile)
                run.replay = run.replay if options.capture == "auto" else None
                if rank() == 0:
                    store.remove(folder / "finished.json")  # of results that are damaged
                with checkpoint.no_epoch_lost(folder) as unsaved:
                    done = _train_epochs(run, out, folder, digests, options.checkpoint_seconds, unsaved)
                    finish(run, folder, digests, *done)
        elif rank() == 0:
            say(f"csa_core: finished before: the results are taken from {folder}")
            tidy(folder)
        if rank() == 0:
            _publish(folder, out)
        wait()
        return store.read_sealed(folder / "metrics.json")


def _publish(folder: Path, out: Path) -> None:
    """Copy the results from the state to where they are wanted, all or none, and then what is only shown."""
    store.write_together(out, ((name, store.read_bytes(folder / name)) for name in store.RESULTS))
    show_finished(folder, out)


def _train_epochs(
    run: Run,
    out: Path,
    folder: Path,
    digests: dict[str, str],
    checkpoint_seconds: float,
    unsaved: checkpoint.Unsaved,
) -> tuple[list[Row], float, list[Row]]:
    """Train what is left of the epochs; return of all the history, the seconds, and how they were computed.

    The last one is saved as the others are: its evaluation may take as long as they do.
    """
    epochs, every = run.config.total_epochs, run.config.evaluate_every
    # Rank 0 first: it throws out damaged ones, and the others then find what it found.
    for reader in range(min(ranks(), 2)):
        if reader == min(rank(), 1):
            tensors, meta, damaged = checkpoint.load_newest(folder, digests)
        wait()
    first, history, before = meta.get("epoch", 0), meta.get("history", []), meta.get("seconds", 0.0)
    computed, here = meta.get("computed", []), how_computed(run)
    computed += [] if here in computed else [here]
    if tensors:
        run.load(tensors)
    progress = Progress(epochs, first, quiet=rank() > 0)
    if isinstance(run.dataset, ImageList):
        progress.say(f"in memory: {run.method.memory(run.config, run.dataset.image_size)}, on {run.device}")
    for line in damaged:
        progress.say(line)
    if first:
        progress.say(f"continuing after epoch {first} of {epochs}")
    live = Live(run, folder, out, digests, history, before, progress.say) if rank() == 0 else None
    start = saved = time.monotonic()
    try:
        for epoch in range(first, epochs):
            row = train_epoch(run, epoch)
            if every and (epoch + 1) % every == 0:
                row |= _accuracies(run)
            history.append(row)
            run.method.check(history)
            now = time.monotonic()
            meta = {"history": list(history), "seconds": before + now - start, "digests": digests, "computed": computed}
            # Of several ranks a signal ends each at once, so their last epoch is saved in any case.
            is_due = now - saved >= checkpoint_seconds or (ranks() > 1 and epoch + 1 == epochs)
            if decided_by_first_rank(is_due, run.device):
                if rank() == 0:
                    checkpoint.save(folder, epoch + 1, run.state(), meta)
                unsaved.last, saved = None, now
            elif ranks() == 1:
                unsaved.last = epoch + 1, run.state(), meta
            progress.epoch(epoch + 1, row)
            if live:
                live.epoch()
        if said := run.method.remark(history):
            progress.say(said)
    finally:
        progress.close()
        if live:
            live.show()
    return history, before + time.monotonic() - start, computed


def train_epoch(run: Run, epoch: int) -> Row:
    """Train one epoch, numbered from 0; return its row of the history.

    Raises:
        UserError: something is not finite; nothing of this epoch has been saved.
    """
    rate = run.set_learning_rate(epoch)
    run.network.train()
    totals: Stats = {}
    run.guard.start_epoch()
    try:
        for steps, stats in enumerate(run.steps(epoch), 1):  # noqa: B007 - how many there were
            for name, value in stats.items():
                # A copy: a replayed step writes its scalars to the same place each time.
                totals[name] = totals[name] + value if name in totals else value.clone()
        # Here alone the epoch waits for the device.
        run.guard.end_epoch()
    except NotFinite as bad:
        where = f"in epoch {epoch + 1}, {f'step {bad.step}' if bad.step else 'after its last step'}"
        raise UserError(
            f"{bad.name} is not finite {where} (learning rate {rate:g}); checkpoints are of epochs before; lower lr"
        ) from None
    sums = _over_ranks(totals)
    share_buffers(run.network)
    return {"epoch": epoch + 1, "phase": run.method.phase(epoch), "lr": rate} | run.method.row(sums, steps)


def _over_ranks(totals: Stats) -> dict[str, float]:
    """Return the sums of an epoch over all ranks: counts added up, losses, which are means, averaged."""
    together = sum_over_ranks(torch.stack([value.float() for value in totals.values()]))
    counts = ("correct", "confident")  # every rank says the same of `shifted`, as of a mean
    return {name: float(v) / (1 if name in counts else ranks()) for name, v in zip(totals, together, strict=True)}


def _accuracies(run: Run) -> Row:
    """Return accuracies over the test set, over the validation images, and over their classes, by head."""
    scored = run.scored_logits()
    labels = run.dataset.test_labels
    row = {f"test_accuracy_{head}": float((z.argmax(1) == labels).mean()) for head, z in scored["test"].items()}
    if (validation := run.dataset.validation) is not None:
        for head, z in scored["validation"].items():
            found = score(z, validation.test_labels, ["few"] * z.shape[1])
            row[f"validation_accuracy_{head}"] = found["accuracy"]["all"]
            row[f"validation_balanced_{head}"] = found["balanced"]
    return row
