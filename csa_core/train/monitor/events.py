"""TensorBoard's event file of a run, made from its history: `tensorboard --logdir results/demo/runs`."""

import csv
import struct
from datetime import datetime
from pathlib import Path
from typing import Any

from csa_core import store

EVENTS = "events.out.tfevents.csa"
# The same tag for the same quantity of every method: TensorBoard draws them into one plot.
TAGS = {
    "loss": "loss/train",
    "resampling_loss": "loss/train_resampling",
    "train_accuracy": "accuracy/train",
    "confident": "bank/confident",
    "bank_fill": "bank/fill",
    "shifted": "bank/shifted_steps",
    "resampling_steps": "bank/resampling_steps",
    "steps": "schedule/steps",
    "lr": "schedule/lr",
    "projector_std": "projector/std",
    "projector_std_expected": "projector/std_expected",
}
SCORED = {
    "test_accuracy_": "accuracy/test_",
    "validation_accuracy_": "accuracy/validation_",
    "validation_balanced_": "balanced/validation_",
}


def events_of(folder: Path) -> bytes:
    """Return the file of finished results, which depends on nothing else: not on how often the run was killed."""
    provenance = store.read_json(folder / "provenance.json")
    finished, seconds = datetime.fromisoformat(provenance["finished"]).timestamp(), provenance["seconds"]
    with (folder / "history.csv").open(newline="") as file:
        return event_file(list(csv.DictReader(file)), finished, seconds)


def event_file(history: list[dict[str, Any]], until: float, seconds: float) -> bytes:
    """Return the file of a history that took `seconds` until a time, each epoch as long as the others."""
    from tensorboardX.proto.event_pb2 import Event  # here, so that only who writes events waits for it

    each = seconds / max(len(history), 1)
    first = Event(wall_time=until - seconds, file_version="brain.Event:2")
    rows = (record(row, until - (len(history) - n) * each) for n, row in enumerate(history, 1))
    return _framed(first.SerializeToString()) + b"".join(rows)


def record(row: dict[str, Any], now: float) -> bytes:
    """Return the record of one row of a history, at the step that is its epoch."""
    from tensorboardX.proto.event_pb2 import Event

    event = Event(wall_time=now, step=int(row["epoch"]))
    for column, value in row.items():
        start = next((start for start in SCORED if column.startswith(start)), None)
        tag = SCORED[start] + column[len(start) :] if start else TAGS.get(column)
        if tag and value != "":  # as a CSV file has it where an epoch was not evaluated
            event.summary.value.add(tag=tag, simple_value=float(value))
    return _framed(event.SerializeToString())


def _framed(content: bytes) -> bytes:
    """Return a record: its length and its content, each followed by a checksum."""
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(content))
    return b"".join(part + struct.pack("<I", masked_crc32c(part)) for part in (length, content))
