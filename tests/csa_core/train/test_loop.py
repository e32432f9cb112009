"""A run from start to results: repeatable, resumable at every epoch, and never silently wrong."""

import csv
import json
import os
import re
import shutil
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from csa_core import store
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split, make_split
from csa_core.errors import UserError
from csa_core.evaluation.scores import score
from csa_core.models.resnet import make_body, reduction
from csa_core.train.loop import Options, train, train_epoch
from csa_core.train.run import Run
from csa_core.train.state.lock import hold
from tests.conftest import TINY, Cli, tiny
from tests.helpers.patience import PATIENCE
from tests.helpers.runs import SAME, fit, results, start, wait_for_checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def uninterrupted(dataset: Dataset, split: Split, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return fit(tiny(), dataset, split, tmp_path_factory.mktemp("whole"))


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    uninterrupted: dict[str, bytes], dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    assert fit(tiny(), dataset, split, tmp_path / "same") == uninterrupted
    assert fit(tiny(), dataset, split, tmp_path / "a third time") == uninterrupted
    other = fit(tiny(seed=2), dataset, split, tmp_path / "other")
    assert all(other[name] != uninterrupted[name] for name in SAME)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": "class_balanced"},
        {"bank_reset": "epoch", "bank_batches": 2},
        {"bank_start": "batch", "bank_batches": 5, "threshold": 0.25},
        {"momentum": 0.0},
    ],
)
def test_resuming_at_any_epoch_changes_no_tensor(changes: dict[str, object], dataset: Dataset, split: Split) -> None:
    config = tiny(**changes)
    run = Run(config, dataset, split, CPU)
    states = [run.state()]
    for epoch in range(config.epochs):
        train_epoch(run, epoch)
        states.append(run.state())
    for epoch in range(config.epochs):
        resumed = Run(config, dataset, split, CPU)
        resumed.load(states[epoch])
        for later in range(epoch, config.epochs):
            train_epoch(resumed, later)
        state = resumed.state()
        assert state.keys() == states[-1].keys()
        for name, array in states[-1].items():
            assert np.array_equal(state[name], array), f"{name} differs after resuming at epoch {epoch}"


def test_a_run_goes_through_every_phase(uninterrupted: dict[str, bytes]) -> None:
    lines = [line.split(",") for line in uninterrupted["history.csv"].decode().splitlines()]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    assert [row["phase"] for row in rows] == ["warmup", "context_shift", "context_shift", "context_shift", "plain"]
    assert float(rows[0]["resampling_loss"]) == 0 < float(rows[2]["resampling_loss"])
    assert [bool(row["test_accuracy_ensemble"]) for row in rows] == [False, True, False, True, False]


def test_metrics_follow_from_the_predictions(uninterrupted: dict[str, bytes], dataset: Dataset, tmp_path: Path) -> None:
    metrics = json.loads(uninterrupted["metrics.json"])
    (tmp_path / "p").write_bytes(uninterrupted["predictions.safetensors"])
    logits, label, _ = store.read_tensors(tmp_path / "p")
    assert label["digests"] == metrics["digests"] and metrics["predicts"] == "resampling"
    assert set(metrics["heads"]) == {"uniform", "resampling", "ensemble"}
    assert metrics["class_names"] == list(dataset.class_names)
    for head in logits:
        assert metrics["heads"][head] == score(logits[head], dataset.test_labels, metrics["groups"])


@pytest.mark.long
def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = start(tmp_path / "whole" / "out")
    _, log = whole.communicate(timeout=PATIENCE)
    assert whole.returncode == 0, log
    out = tmp_path / "killed" / "out"
    for epoch in (1, 3, 6):
        process = start(out)
        wait_for_checkpoint(out, epoch)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (out / "metrics.json").exists()
    process = start(out)
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "continuing after epoch" in log
    assert results(out) == results(tmp_path / "whole" / "out")
    assert not list(out.glob("state/*/epoch-*")), "a finished run keeps no checkpoints"


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_a_signal_ends_it_with_one_line(number: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(out)
    wait_for_checkpoint(out, 1)
    process.send_signal(number)
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    (epoch,) = re.findall(
        r"^csa_core: interrupted; the same command continues from the last checkpoint, after epoch (\d+)$", log, re.M
    )
    assert list(out.glob(f"state/*/epoch-{int(epoch):06d}.safetensors")), "it continues from there"
    assert "Traceback" not in log


def test_a_finished_run_is_not_trained_again(
    uninterrupted: dict[str, bytes], dataset: Dataset, split: Split, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fit(tiny(), dataset, split, tmp_path)
    shutil.rmtree(tmp_path / "out")
    capfd.readouterr()
    assert fit(tiny(), dataset, split, tmp_path) == uninterrupted
    assert "epoch" not in capfd.readouterr().err
    assert fit(tiny(), dataset, split, tmp_path, retrain=True) == uninterrupted
    assert "epoch 5/5" in capfd.readouterr().err


def test_damaged_results_are_made_again(
    uninterrupted: dict[str, bytes], dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    fit(tiny(), dataset, split, tmp_path)
    (folder,) = (tmp_path / "state").iterdir()
    (folder / "metrics.json").write_text("{}")
    assert fit(tiny(), dataset, split, tmp_path) == uninterrupted


def test_two_processes_do_not_train_one_run(dataset: Dataset, split: Split, tmp_path: Path) -> None:
    fit(tiny(), dataset, split, tmp_path)
    (folder,) = (tmp_path / "state").iterdir()
    holder = rf"process {os.getpid()} on {socket.gethostname()} is training this run"
    with hold(folder, folder), pytest.raises(UserError, match=holder):
        fit(tiny(), dataset, split, tmp_path)


def test_python_sets_the_device_up_as_the_command_does(dataset: Dataset, split: Split, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="precision: tf32 is for NVIDIA GPUs, not for cpu; use float32"):
        train(tiny(precision="tf32"), dataset, split, Options(tmp_path / "out", tmp_path / "state", "cpu", "code"))


def test_other_data_code_or_configuration_has_its_own_state(dataset: Dataset, split: Split, tmp_path: Path) -> None:
    parts = (dataset.train_images, dataset.train_labels, dataset.test_images ^ 1, dataset.test_labels)
    other = Dataset("demo", dataset.class_names, *parts)
    fewer = make_split(dataset, tiny(data=TINY["data"] | {"split_seed": 3}).data)  # type: ignore[operator]
    cases = [(tiny(), dataset, split, "a"), (tiny(), dataset, split, "b"), (tiny(threshold=0.1), dataset, split, "a")]
    cases += [(tiny(), other, split, "a"), (tiny(), dataset, fewer, "a")]
    for config, data, kept, code in cases:
        train(config, data, kept, Options(tmp_path / "out", tmp_path / "state", CPU, code))
    assert len(list((tmp_path / "state").iterdir())) == len(cases)


def test_every_group_of_parameters_follows_the_schedule(dataset: Dataset, split: Split) -> None:
    run = Run(tiny(), dataset, split, CPU)
    train_epoch(run, 4)
    rates = [group["lr"] for group in run.optimizer.param_groups]
    assert len(rates) == 3 and rates == pytest.approx([0.01] * 3), "the body and each head"


def test_a_bank_that_is_reset_starts_each_epoch_empty(dataset: Dataset, split: Split) -> None:
    """With a bank larger than an epoch: kept, it fills over epochs; reset, it never does."""
    changes = {"bank_batches": 4, "threshold": 0.0}
    kept, reset = (Run(tiny(bank_reset=name, **changes), dataset, split, CPU) for name in ("never", "epoch"))
    for run in (kept, reset):
        fills = [train_epoch(run, epoch)["bank_fill"] for epoch in range(2)]
        assert fills == ([0.75, 1.0] if run is kept else [0.75, 0.75])


@pytest.mark.parametrize("plain_epochs", [0, 2])
@pytest.mark.parametrize("checkpoint_seconds", [0, 30])
def test_a_run_whose_bank_never_filled_is_no_result(
    checkpoint_seconds: float, plain_epochs: int, dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    """With plain epochs at the end its re-sampling head would be trained in those alone."""
    config = tiny(threshold=1.0, plain_epochs=plain_epochs)
    with pytest.raises(UserError, match=r"the bank never filled \(threshold 1, .* lower threshold"):
        fit(config, dataset, split, tmp_path, checkpoint_seconds=checkpoint_seconds)
    assert not (tmp_path / "out" / "metrics.json").exists()
    rows = (tmp_path / "out" / "history.partial.csv").read_text().splitlines()[1:]
    assert len(rows) == config.epochs - plain_epochs, "refused as soon as no later step could shift"


def test_asking_a_run_for_its_state_and_scores_changes_nothing(dataset: Dataset, split: Split) -> None:
    quiet, asked = (Run(tiny(), dataset, split, CPU) for _ in range(2))
    for epoch in range(5):
        before = {name: array.copy() for name, array in asked.state().items()}
        asked.scored_logits()["test"]
        after = asked.state()
        assert after.keys() == before.keys() and all(np.array_equal(after[name], before[name]) for name in before)
        assert len(asked.optimizer.state) == len(quiet.optimizer.state), "asking left something behind"
        assert train_epoch(asked, epoch) == train_epoch(quiet, epoch)


@pytest.mark.parametrize("method", ["ce", "csa"])
def test_without_momentum_a_run_trains_and_ends(method: str, dataset: Dataset, split: Split, tmp_path: Path) -> None:
    config = tiny(method=method, momentum=0.0)
    whole = fit(config, dataset, split, tmp_path / "whole")
    assert fit(config, dataset, split, tmp_path / "saved", checkpoint_seconds=0) == whole


def test_the_history_counts_the_steps_that_trained_each_head(uninterrupted: dict[str, bytes]) -> None:
    rows = [*csv.DictReader(uninterrupted["history.csv"].decode().splitlines())]
    metrics = json.loads(uninterrupted["metrics.json"])
    assert [int(row["steps"]) for row in rows] == [3] * 5, "36 images in batches of 16"
    assert int(rows[0]["resampling_steps"]) == 0, "the warm-up trains the uniform head alone"
    shifted = [int(row["shifted"]) for row in rows]
    assert shifted[0] == shifted[4] == 0 and shifted[2:4] == [3, 3]
    assert [int(row["resampling_steps"]) for row in rows] == [*shifted[:4], 3]
    assert (metrics["shifted_steps"], metrics["context_shift_steps"]) == (sum(shifted), 9)


# Three steps an epoch, four epochs until the plain one, and every image confident: 12 batches come to the bank.
@pytest.mark.parametrize(
    ("changes", "shifted"),
    [
        ({"bank_batches": 8}, 5),
        ({"bank_batches": 9}, 4),
        ({"bank_batches": 12}, 1),
        ({"bank_batches": 12, "bank_start": "batch"}, 9),
        ({"bank_batches": 3, "bank_reset": "epoch"}, 3),
        ({"bank_batches": 4, "bank_reset": "epoch", "bank_start": "batch"}, 9),
    ],
)
def test_few_steps_with_context_shift_are_said(
    changes: dict[str, object],
    shifted: int,
    dataset: Dataset,
    split: Split,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    made = fit(tiny(threshold=0.0, **changes), dataset, split, tmp_path)
    assert json.loads(made["metrics.json"])["shifted_steps"] == shifted
    notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]
    start = f"note: {shifted} of 9 steps of the context-shift phase shifted; lower threshold or bank_batches"
    assert [line.startswith(start) for line in notes] == [True] * (shifted < 4.5)


@pytest.mark.parametrize("changes", [{"bank_batches": 13}, {"bank_batches": 4, "bank_reset": "epoch"}])
def test_a_bank_that_cannot_fill_is_refused_before_training(
    changes: dict[str, object], dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"bank_batches \d+: .* use at most \d+, or bank_start: batch"):
        fit(tiny(threshold=0.0, **changes), dataset, split, tmp_path)
    assert not tmp_path.exists() or not list(tmp_path.iterdir()), "nothing was begun"


def test_a_network_that_sees_no_place_on_an_image_is_refused_before_training(
    dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    """Of 16 x 12 px resnet10 leaves 1 x 1: nothing tells an object from its background."""
    with pytest.raises(UserError, match="resnet10 reduces images of 16 x 12 px to a single place"):
        fit(tiny(model="resnet10"), dataset, split, tmp_path)
    for model in ("resnet8", "resnet18_cifar", "resnet10", "resnet50"):
        body = make_body(model).eval()
        for height, width in ((16, 12), (32, 32), (33, 8), (64, 64)):
            places = body(torch.zeros(1, 3, height, width)).shape[2:].numel()
            assert (max(height, width) <= reduction(model)) == (places == 1), (model, height, width)


@pytest.mark.parametrize("content", ["[]", "{}", "{", '{"metrics.json": "0"}'])
def test_a_damaged_list_of_results_is_no_dead_end(
    content: str, uninterrupted: dict[str, bytes], dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    fit(tiny(), dataset, split, tmp_path)
    (folder,) = (tmp_path / "state").iterdir()
    (folder / "finished.json").write_text(content)
    assert fit(tiny(), dataset, split, tmp_path) == uninterrupted


def test_a_loss_that_is_not_finite_stops_the_run(dataset: Dataset, split: Split, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not finite in epoch 1, step \d .*; lower lr"):
        fit(tiny(lr=1e20, lr_warmup_epochs=0), dataset, split, tmp_path)
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_it_learns(dataset: Dataset, split: Split, tmp_path: Path) -> None:
    metrics = json.loads(fit(tiny(epochs=50, lr_drops=[40]), dataset, split, tmp_path)["metrics.json"])
    assert metrics["heads"]["resampling"]["accuracy"]["all"] > 0.75, "chance is 0.25"


def test_cli_train_evaluate_and_contexts(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(TINY))
    out = tmp_path / "out"
    done = cli("train", config, "--out", out, "--set", "threshold=0.1", "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert "resampling" in done.stdout and "<- predicts" in done.stdout
    assert json.loads((out / "metrics.json").read_text())["config"]["threshold"] == 0.1
    assert "epoch 5/5: loss" in done.stderr and "\r" not in done.stderr, "a log file wants plain lines"
    again = cli("evaluate", out, "--threads", 1)
    assert again.returncode == 0 and "same as metrics.json" in again.stdout, again.stderr
    metrics = store.read_sealed(out / "metrics.json")
    metrics["heads"]["ensemble"]["correct"][0] += 1
    store.write_json(out / "metrics.json", store.sealed(metrics))
    again = cli("evaluate", out, "--threads", 1)
    assert again.returncode == 0 and "differs from metrics.json" in again.stdout, again.stderr
    shown = cli("contexts", out, "--images", 4, "--out", tmp_path / "contexts.safetensors")
    assert shown.returncode == 0, shown.stderr
    tensors, meta, _ = store.read_tensors(tmp_path / "contexts.safetensors")
    assert tensors["mixed"].shape == (4, 16, 16, 3) and len(meta["confidence"]) == 4
    weight = np.array(meta["mix"])[:, None, None, None] * tensors["mask"]
    inside = weight * tensors["context"] + (1 - weight) * tensors["resampled"]
    np.testing.assert_allclose(tensors["mixed"], inside, atol=1e-5)
