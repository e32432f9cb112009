"""Runs trained here or in a process of their own, and what they leave."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from csa_core.config import RunConfig
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.train.loop import Options, train
from tests.conftest import ROOT, tiny_fields
from tests.helpers.patience import wait_until

CPU = torch.device("cpu")
SAME = ("metrics.json", "history.csv", "weights.safetensors", "predictions.safetensors")


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in SAME}


def fit(config: RunConfig, dataset: Dataset, split: Split, folder: Path, **options: object) -> dict[str, bytes]:
    train(config, dataset, split, Options(folder / "out", folder / "state", CPU, "code", **options))  # type: ignore[arg-type]
    return results(folder / "out")


class PowerCut(Exception):
    """The end of a run that has written its checkpoints and not its results."""


def cut_short(
    config: RunConfig,
    dataset: Dataset,
    split: Split,
    folder: Path,
    by: type[BaseException] = PowerCut,
    **options: object,
) -> None:
    """Train until nothing but the results is to be written."""

    def cut(*arguments: object) -> None:
        raise by

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("csa_core.train.loop.finish", cut)
        with pytest.raises(by):
            fit(config, dataset, split, folder, **{"checkpoint_seconds": 0} | options)


def start(out: Path, **changes: object) -> "subprocess.Popen[str]":
    config = out.parent / "run.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(tiny_fields(**{"epochs": 12} | changes)))
    command = [sys.executable, "-m", "csa_core", "train", str(config), "--out", str(out), "--checkpoint-seconds", "0"]
    return subprocess.Popen(
        [*command, "--threads", "1"], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def wait_for_checkpoint(out: Path, epoch: int) -> None:
    checkpoints = "state/*/epoch-*.safetensors"
    wait_until(lambda: any(int(path.stem[6:]) >= epoch for path in out.glob(checkpoints)), f"checkpoint {epoch}")
