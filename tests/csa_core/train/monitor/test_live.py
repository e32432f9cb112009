"""What a run shows while it trains, and what TensorBoard makes of it."""

import csv
import io
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from csa_core import store
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.errors import UserError
from csa_core.train.monitor import live
from csa_core.train.monitor.events import EVENTS, TAGS, events_of
from csa_core.train.monitor.live import PARTIAL
from tests.conftest import tiny
from tests.helpers.patience import PATIENCE
from tests.helpers.runs import fit, start, wait_for_checkpoint

CPU = torch.device("cpu")
PRETRAINING = {"epochs": 3, "batch_size": 12, "projector_width": 16, "predictor_width": 4, "sam": "none"}


def shown_by_tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every point that TensorBoard itself reads, by tag."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def of_history(text: str) -> dict[str, list[tuple[int, float]]]:
    """The same, from a history."""
    points: dict[str, list[tuple[int, float]]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        for column, value in row.items():
            if column not in ("epoch", "phase") and value:
                tag = column.replace("test_accuracy_", "accuracy/test_") if column not in TAGS else TAGS[column]
                points.setdefault(tag, []).append((int(row["epoch"]), float(np.float32(value))))
    return points


def sign_of_life(state: Path) -> dict[str, Any]:
    (path,) = state.glob(f"*/{store.PROGRESS}")
    return store.read_json(path)


@pytest.mark.parametrize("changes", [{}, {"method": "ce"}, {"method": "simsiam", "pretraining": PRETRAINING}])
def test_tensorboard_shows_the_history(
    changes: dict[str, object], dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    history = fit(tiny(**changes), dataset, split, tmp_path)["history.csv"].decode()
    shown = shown_by_tensorboard(tmp_path / "out")
    assert shown == of_history(history)
    assert {"loss/train", "schedule/lr"} <= set(shown) and all("/" in tag for tag in shown)
    assert len(shown["loss/train"]) == len(history.splitlines()) - 1
    if not changes:
        assert {
            "loss/train_resampling",
            "accuracy/train",
            "accuracy/test_resampling",
            "bank/fill",
            "bank/shifted_steps",
        } <= set(shown)


def test_a_finished_run_shows_the_same_whenever_it_is_fetched(dataset: Dataset, split: Split, tmp_path: Path) -> None:
    began = time.time()
    fit(tiny(), dataset, split, tmp_path)
    ended = time.time()
    out, (state,) = tmp_path / "out", (tmp_path / "state").iterdir()
    before = (out / EVENTS).read_bytes()
    assert sorted(path.name for path in out.iterdir()) == sorted([".lock", EVENTS, *store.RESULTS])
    assert not (state / store.PROGRESS).exists()
    (out / EVENTS).write_bytes(b"of another configuration, and longer: " + before)
    (out / PARTIAL).write_text("left by a killed trainer")
    fit(tiny(), dataset, split, tmp_path)
    assert (out / EVENTS).read_bytes() == before == events_of(out)
    assert not (out / PARTIAL).exists()
    times = [event.wall_time for event in EventAccumulator(str(out)).Reload().Scalars("loss/train")]
    assert times == sorted(times) and began - 1 <= times[0] <= times[-1] <= ended, "an epoch's time is when it was"


@pytest.mark.long
def test_a_run_can_be_watched_killed_and_continued(tmp_path: Path) -> None:
    out = tmp_path / "out"
    began = time.monotonic()
    process = start(out, epochs=40)
    wait_for_checkpoint(out, 3)
    beat = sign_of_life(out / "state")
    took = time.monotonic() - began
    process.kill()
    process.communicate()
    assert beat["process"] == process.pid and beat["host"] == socket.gethostname() and beat["out"] == str(out)
    assert beat["epochs"] == 40 and beat["epoch"] >= 1 and 0 < beat["seconds_per_epoch"] < took
    assert 0 <= beat["train_accuracy"] <= 1 and set(beat["digests"]) == {"config", "data", "split", "code", "precision"}
    rows = (out / PARTIAL).read_text()
    assert len(rows.splitlines()) == 1 + sign_of_life(out / "state")["epoch"]
    assert shown_by_tensorboard(out) == of_history(rows), "live"
    # What a kill in the middle of a write may leave, or a person who tidies up.
    (out / EVENTS).write_bytes((out / EVENTS).read_bytes()[:-7] + b"torn")
    (out / PARTIAL).unlink()
    process = start(out, epochs=40)
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "continuing after epoch" in log, log
    shown = shown_by_tensorboard(out)
    assert shown == of_history((out / "history.csv").read_text()), "no step twice, none missing"
    assert [step for step, _ in shown["loss/train"]] == list(range(1, 41))
    assert not (out / PARTIAL).exists() and not list(out.glob(f"state/*/{store.PROGRESS}"))


def test_tensorboard_goes_on_reading_the_file_that_it_opened(
    dataset: Dataset, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorBoard keeps a file open and its place in it: each write must leave what it has read as it was."""
    monkeypatch.setattr(live, "SECONDS", 0.0)
    opened: list[Any] = []
    seen = [b""]
    whole = store.write_in_place

    def follow(path: Path, content: bytes) -> None:
        whole(path, content)
        if not opened:
            opened.append(path.open("rb"))
        seen.append(seen[-1] + opened[0].read())
        assert seen[-1] == content

    monkeypatch.setattr(store, "write_in_place", follow)
    fit(tiny(), dataset, split, tmp_path)
    opened[0].close()
    assert len({len(content) for content in seen}) == tiny().epochs + 2, "nothing, the start, and each epoch"
    assert len(seen[-1]) == len((tmp_path / "out" / EVENTS).read_bytes()), "the final file differs in times alone"


def test_a_run_that_fails_leaves_its_history(dataset: Dataset, split: Split, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the bank never filled"):
        fit(tiny(threshold=1.0, plain_epochs=0), dataset, split, tmp_path)
    assert len((tmp_path / "out" / PARTIAL).read_text().splitlines()) == 1 + 5
    assert sign_of_life(tmp_path / "state")["epoch"] == 5
    assert len(shown_by_tensorboard(tmp_path / "out")["loss/train"]) == 5


def test_whatever_becomes_of_what_it_shows_a_run_ends_the_same(
    dataset: Dataset, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = fit(tiny(), dataset, split, tmp_path / "undisturbed")
    monkeypatch.setattr(live, "SECONDS", 0.0)
    show = live.Live.show

    def disturbed(self: live.Live) -> None:
        show(self)
        shutil.rmtree(tmp_path / "out")
        for path in tmp_path.glob(f"state/*/{store.PROGRESS}"):
            path.unlink()

    monkeypatch.setattr(live.Live, "show", disturbed)
    assert fit(tiny(), dataset, split, tmp_path) == wanted


def test_no_place_for_what_is_shown_is_one_warning(
    dataset: Dataset, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = fit(tiny(), dataset, split, tmp_path / "undisturbed")
    capfd.readouterr()

    def full(path: Path, content: bytes) -> None:
        raise UserError(f"{path}: cannot be written (No space left on device); free or choose another place")

    monkeypatch.setattr(store, "write_in_place", full)
    monkeypatch.setattr(live, "SECONDS", 0.0)
    assert fit(tiny(), dataset, split, tmp_path) == wanted
    said = [line for line in capfd.readouterr().err.splitlines() if "cannot be written" in line]
    assert len(said) == 1 and said[0].startswith(f"warning: {tmp_path}/out/{EVENTS}: "), said
