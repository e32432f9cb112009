"""Several ranks train the run that one trains: same samples, same parameters; and a lost rank is no loss."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml

from csa_core import cli, store
from csa_core.data.dataset import Dataset
from csa_core.data.ranks import gather_rows
from csa_core.data.split import make_split
from csa_core.errors import UserError
from csa_core.train.loop import Options, train
from csa_core.train.state.lock import hold
from tests.conftest import ROOT, TINY, Cli, listed, tiny, tiny_fields
from tests.helpers.patience import PATIENCE, wait_until
from tests.helpers.runs import results

SCRIPT = "tests/csa_core/train/rank_script.py"
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}


def test_ranks_that_do_not_find_each_other_say_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def meet(_: object) -> None:
        dist.TCPStore("localhost", 1, is_master=False, timeout=timedelta(milliseconds=100))  # type: ignore[attr-defined]

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a rank")
    assert cli._run(argparse.Namespace(run=meet)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("csa_core: ") and "localhost" in lines[0] and "NCCL" in lines[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1", ""),
        ("[gloo/transport/tcp/pair.cc:144] Read error: Connection reset by peer", ""),
        ("[gloo/transport/tcp/device.cc:84] Unable to find address for: nowhere", "Unable to find address"),
    ],
)
def test_what_gloo_says_of_anything_but_a_lost_rank_is_said(
    text: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a rank")
    assert cli._run(argparse.Namespace(run=fails)) == 1
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == bool(said)


def by(ranks: int, config: dict[str, Any], out: Path) -> tuple[store.Tensors, list[dict[str, Any]]]:
    """Return tensors and history of a run without batch norm, trained by so many ranks."""
    launcher = [] if ranks == 1 else [*TORCHRUN, "localhost:0"]
    command = [
        sys.executable,
        *launcher,
        SCRIPT,
        json.dumps(config | {"ranks": ranks, "precision": "float32"}),
        str(out),
    ]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    tensors, meta, _ = store.read_tensors(out)
    return tensors, meta["rows"]


ONE_BRANCH: dict[str, dict[str, Any]] = {
    "pairs with class weights": {"method": "remix", "loss": "ldam", "reweighting": "always"},
}

MORE = ["mixup and boxes", "images of lists", *ONE_BRANCH]


@pytest.mark.parametrize("kind", ["images in memory", *(pytest.param(kind, marks=pytest.mark.long) for kind in MORE)])
def test_two_ranks_train_what_one_trains(kind: str, image_lists: Path, tmp_path: Path) -> None:
    config: dict[str, Any] = TINY | {"lr": 0.005, "epochs": 3, "lr_drops": [2], "threshold": 0.02, "batch_size": 8}
    if kind == "images of lists":
        config = listed(
            image_lists, model="resnet8", lr=0.002, epochs=3, threshold=0.02, bank_batches=12, bank_start="batch"
        )
    if kind == "mixup and boxes":
        config |= {"uniform_mixup": 1.0, "activation_map": "box"}
    if kind in ONE_BRANCH:
        config = tiny_fields(**config | ONE_BRANCH[kind])
    one, one_rows = by(1, config, tmp_path / "one.safetensors")
    two, two_rows = by(2, config, tmp_path / "two.safetensors")
    assert one.keys() == two.keys()
    if kind not in ONE_BRANCH:
        assert int(one["method/bank/pushed"]) > 0 and one_rows[1]["resampling_loss"] > 0, "else the bank was not tested"
    for name, tensor in one.items():
        np.testing.assert_allclose(two[name], tensor, rtol=1e-5, atol=1e-5, err_msg=name)
    for a, b in zip(one_rows, two_rows, strict=True):
        assert a["phase"] == b["phase"] and a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        counts = ("train_accuracy", "confident", "shifted", "resampling_steps", "steps")
        assert [a.get(name) for name in counts] == [b.get(name) for name in counts]


def write(config: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(config))
    return path


def start(config: Path, out: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "csa_core", "train", str(config), "--out", str(out), "--checkpoint-seconds", "0"]
    return subprocess.Popen(
        [*command, "--threads", "2", "--workers", "0", "--device", "cpu"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def children(process: int) -> list[int]:
    found = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal() and _parent(p) == process]
    return sorted(found)


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the ranks through /proc")
def test_a_lost_rank_is_said_and_the_run_ends_with_the_same_bytes(image_lists: Path, tmp_path: Path) -> None:
    config = write(listed(image_lists, model="resnet8", ranks=2, epochs=6), tmp_path / "run.yaml")
    whole = start(config, tmp_path / "whole")
    out, log = whole.communicate(timeout=PATIENCE)
    assert whole.returncode == 0, log
    assert "<- predicts" in out and out.count("accuracy, %") == 1, "one rank speaks"
    assert "Warning" not in log and log.count("epoch 6/6") == 1

    process = start(config, tmp_path / "killed")
    wait_until(lambda: len(list((tmp_path / "killed").glob("state/*/epoch-*.safetensors"))) > 1, "two checkpoints")
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert log.splitlines()[-1].endswith("ended with signal 9; the same command continues from the last checkpoint")
    assert "Traceback" not in log and not (tmp_path / "killed/metrics.json").exists()

    process = start(config, tmp_path / "killed")
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "continuing after epoch" in log, log
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    metrics = json.loads((tmp_path / "whole/metrics.json").read_text())
    assert metrics["config"]["ranks"] == 2
    assert sum(metrics["heads"]["uniform"]["images"]) == 48, "each test image once, whoever looked at it"


@pytest.mark.long
def test_a_signal_ends_all_ranks_with_one_line(tmp_path: Path) -> None:
    process = start(write(TINY | {"ranks": 2, "epochs": 200}, tmp_path / "run.yaml"), tmp_path / "out")
    wait_until(lambda: list((tmp_path / "out").glob("state/*/epoch-*.safetensors")), "a checkpoint")
    ranks = children(process.pid)
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM
    assert log.splitlines()[-1] == "csa_core: interrupted; the same command continues from the last checkpoint"
    assert "Traceback" not in log and not any(Path(f"/proc/{rank}").exists() for rank in ranks)


IMPATIENT = """
import datetime, sys
import torch.distributed as dist
from csa_core.cli import main
whole = dist.init_process_group
dist.init_process_group = lambda backend: whole(backend, timeout=datetime.timedelta(seconds=15))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.long
def test_ranks_wait_for_another_trainer_for_longer_than_they_wait_for_each_other(tmp_path: Path) -> None:
    """torchrun itself starts them; `tests/faults/test_sharing.py` shows in no time that rank 0 tells the others so."""
    config, out = write(TINY | {"ranks": 2}, tmp_path / "run.yaml"), tmp_path / "out"
    (tmp_path / "impatient.py").write_text(IMPATIENT)
    words = [str(tmp_path / "impatient.py"), "train", str(config), "--out", str(out), "--device", "cpu"]
    command = [sys.executable, *TORCHRUN, "localhost:0", *words, "--threads", "2"]
    for folder in ("another", "out"):
        (tmp_path / folder).mkdir()
    with hold(tmp_path / "another", out):
        refused = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)
        assert f"process {os.getpid()} on" in refused.stderr and "is filling this folder; wait for it" in refused.stderr
        waits = [*command, "--wait"]
        process = subprocess.Popen(waits, cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        assert process.stderr
        said = next(line for line in process.stderr if "is filling this folder" in line)
        assert said.endswith("; waiting for it\n")
        time.sleep(18)  # longer than their patience
        assert process.poll() is None and not (out / "metrics.json").exists()
    log = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 0 and (out / "metrics.json").exists(), log


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ranks": 3}, "batch_size 16 cannot be shared by 3 ranks; use a multiple"),
        ({"ranks": 16}, "batch_size 16 with 16 ranks leaves batch norm one image each; use a larger"),
        ({"ranks": 2, "sync_batch_norm": True}, "sync_batch_norm: works on GPUs only; set it to false"),
    ],
)
def test_a_mistake_with_ranks_is_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    process = start(write(TINY | changes, tmp_path / "run.yaml"), tmp_path / "out")
    _, log = process.communicate(timeout=PATIENCE)
    lines = set(log.splitlines())  # each rank may say it
    assert process.returncode == 2 and len(lines) == 1, log
    assert message in lines.pop()


def test_each_rank_has_an_image_to_score(dataset: Dataset, tmp_path: Path) -> None:
    few = replace(dataset, test_images=dataset.test_images[::20], test_labels=dataset.test_labels[::20])
    config = tiny(ranks=8)
    with pytest.raises(UserError, match="ranks: 8 ranks share 6 images that are scored; use 6 at most"):
        train(
            config, few, make_split(few, config.data), Options(tmp_path / "o", tmp_path / "s", torch.device("cpu"), "c")
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_what_torchrun_cannot_start_is_one_line(tmp_path: Path) -> None:
    config = write(TINY | {"ranks": 2}, tmp_path / "run.yaml")
    words = [
        "-m",
        "csa_core",
        "train",
        str(config),
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--threads",
        "2",
    ]
    command = [sys.executable, *TORCHRUN, "localhost:0", *words]
    done = subprocess.run(
        [*command[: command.index(str(config))], "-", *command[command.index(str(config)) + 1 :]],
        cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "csa_core: stdin: torchrun does not share it among its processes" in done.stderr
    config = write(TINY | {"ranks": 4}, config)
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)
    assert "ranks: torchrun started 2 processes, the run asks for 4; set ranks: 2" in done.stderr


@pytest.mark.long
def test_a_broken_image_met_by_a_rank_is_named(image_lists: Path, tmp_path: Path, cli: Cli) -> None:
    import shutil

    shutil.copytree(image_lists, tmp_path / "images")
    path = tmp_path / "images/train/n1000/1.JPEG"
    path.write_bytes(path.read_bytes()[:200])
    process = start(write(listed(tmp_path / "images", ranks=2), tmp_path / "run.yaml"), tmp_path / "out")
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, log
    assert f"csa_core: {path}: cannot be decoded; replace it or take it out" in log.splitlines()
    assert "Traceback" not in log


def test_one_process_gathers_nothing() -> None:
    rows = np.arange(6.0).reshape(3, 2)
    assert gather_rows(rows, 3, torch.device("cpu")) is rows
