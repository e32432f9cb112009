"""The results of a finished run: what lies beside `metrics.json`, and how it is made."""

import csv
import hashlib
import io
import os
import platform
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import csa_core
from csa_core import store
from csa_core.code import code_digest
from csa_core.config import RunConfig
from csa_core.data.ranks import rank
from csa_core.errors import Damaged, Missing, UserError
from csa_core.models.precision import instruction_sets
from csa_core.train.metrics import make_metrics
from csa_core.train.run import Run
from csa_core.train.state import checkpoint
from csa_core.train.state.parent import differences
from csa_core.use import describe

HISTORY = (
    *("epoch", "phase", "lr", "loss", "resampling_loss", "train_accuracy", "confident", "bank_fill"),
    *("shifted", "resampling_steps", "steps"),
)
Row = dict[str, Any]


def see_same_run(out: Path, config: RunConfig, digests: dict[str, str]) -> None:
    """See that no finished run of another configuration, or on other images, lies where results will be written.

    Args:
        digests: of data and split.

    Raises:
        UserError: one does.
    """
    path = out / "metrics.json"
    try:
        stored = store.read_sealed(path)
        have, made = dict(stored["config"]), {key: str(stored["digests"][key]) for key in digests}
    except (Missing, Damaged, KeyError, TypeError, ValueError):  # none there, or none that means something
        return
    found = differences(have, config.identity())
    found = found or [(key, made[key][:12], want[:12]) for key, want in digests.items() if made[key] != want]
    said = [f"{key} {there}, asked for is {want}" for key, there, want in found]
    if said:
        more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
        raise UserError(
            f"--out {out}: holds a finished run with {said[0]}{more}; name another folder, or remove {path}"
        )


def finish(
    run: Run, folder: Path, digests: dict[str, str], history: list[Row], seconds: float, computed: list[Row]
) -> None:
    """Evaluate the final epoch and write all results, then their list, then drop what only a training needs.

    Args:
        computed: how the processes that trained the run computed, without repetition.
    """
    logits = run.method.logits_by_part(run.network, final=True)
    if rank() > 0:
        return
    metrics = make_metrics(run.config, run.dataset, run.split, logits, digests)
    metrics |= run.method.counts(history)
    metrics["class_names"] = list(run.dataset.class_names)
    metrics["computed"] = {key: _each([how[key] for how in computed]) for key in how_computed(run)}
    weights = {k: v.detach().cpu().numpy() for k, v in run.network.state_dict().items()}
    label = {"config": run.config.identity(), "digests": digests}
    store.write_bytes(folder / "history.csv", history_csv(history).encode())
    store.write_tensors(folder / "weights.safetensors", weights, label | {"use": describe(run.method, run.network)})
    held_out = {f"validation/{head}": z for head, z in logits.get("validation", {}).items()}
    store.write_tensors(folder / "predictions.safetensors", logits["test"] | held_out, label)
    store.write_json(folder / "provenance.json", _provenance(run, seconds))
    store.write_json(folder / "metrics.json", store.sealed(metrics))
    store.write_json(folder / "finished.json", {name: _sha256(folder / name) for name in store.RESULTS})
    tidy(folder)


def tidy(folder: Path) -> None:
    """Drop what only a training needs."""
    for path in [*checkpoint.find(folder), folder / store.PROGRESS]:
        store.remove(path)


def how_computed(run: Run) -> Row:
    """Return what can change digits of a run and is no part of what it is."""
    return {
        "device": _device(run),
        "precision": run.precision,
        "compiled": run.is_compiled,
        "threads": torch.get_num_threads() if run.device.type == "cpu" else None,
    }


def _device(run: Run) -> str:
    """Return what a run computes on, a GPU with its name: GPUs of two kinds round differently."""
    name = f" ({torch.cuda.get_device_name(run.device)})" if run.device.type == "cuda" else ""
    return run.device.type + name


def _each(values: list[Any]) -> Any:
    """Return the value that all have, or a text of those that there are."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else ", ".join(map(str, different))


def is_finished(folder: Path) -> bool:
    """Whether the results are all there and as they were written; damaged ones are trained again.

    Raises:
        Unreadable: one is there and could not be read.
    """
    try:
        listed = store.read_json(folder / "finished.json")
        return bool(listed == {name: _sha256(folder / name) for name in store.RESULTS})
    except (Missing, Damaged):
        return False


def history_csv(history: list[Row]) -> str:
    """Return a history as text: a line for each epoch; empty where an epoch lacks a column."""
    columns = [*HISTORY, *sorted({key for row in history for key in row} - set(HISTORY))]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def _provenance(run: Run, seconds: float) -> dict[str, Any]:
    """What differs from machine to machine, kept apart from the metrics, which must not."""
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "device": _device(run) if run.device.type == "cuda" else f"{run.device.type} ({platform.machine()})",
        "processor": processor(),
        "precision": run.precision,
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "threads": torch.get_num_threads(),
        "compiled": run.is_compiled,
        "captured": run.replay is not None and run.replay.was_used,
        "code": code_digest(run.config.method),
        "versions": {
            "csa_core": csa_core.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def processor() -> dict[str, Any]:
    """Return the name of this machine's processor, and the instruction sets it has and torch uses."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        stated = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        name = stated[1].strip() if stated else name
    return {"name": name, "has": sorted(instruction_sets()), "torch_uses": torch.backends.cpu.get_cpu_capability()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(store.read_bytes(path)).hexdigest()
