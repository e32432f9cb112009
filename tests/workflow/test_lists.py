"""The whole workflow on image lists with two ranks: killed once, continued, the same result."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, listed
from tests.helpers.patience import PATIENCE, wait_until
from tests.helpers.workflows import Folder
from workflow.plan import Plan

RUN = "results/lists/runs/csa/seed=1/metrics.json"
TABLE = "results/table4.csv"
ENVIRONMENT = {**os.environ, "CSA_CHECKPOINT_SECONDS": "0"}


def folder(path: Path, images: Path) -> Folder:
    """Return a working folder with a protocol of two ranks on these images."""
    path.mkdir()
    made = Folder(path)
    (path / "lists.yaml").write_text(yaml.safe_dump(listed(images, ranks=2, epochs=5)))
    made.write(protocol=str(path / "lists.yaml"), seeds=[1], device="cpu", workers=0)
    return made


def snakemake(made: Folder, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        made.command(*words), capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, env=ENVIRONMENT
    )


@pytest.mark.long
def test_killed_once_it_ends_with_the_same_table(image_lists: Path, tmp_path: Path) -> None:
    whole = folder(tmp_path / "whole", image_lists)
    assert whole.jobs(TABLE) == {"data": 1, "split": 1, "train": 1, "table": 1}
    done = snakemake(whole, TABLE)
    assert done.returncode == 0, done.stderr

    killed = folder(tmp_path / "killed", image_lists)
    process = subprocess.Popen(killed.command(TABLE), cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    wait_until(lambda: list(killed.path.glob("results/state/*/epoch-*.safetensors")), "a checkpoint")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed.path / RUN).exists()
    assert snakemake(killed, "--unlock").returncode == 0
    done = snakemake(killed, TABLE)
    assert done.returncode == 0, done.stderr
    log = (killed.path / "results/lists/logs/runs/csa/seed=1.log").read_text()
    assert "continuing after epoch" in log
    assert killed.read(RUN) == whole.read(RUN) and killed.read(TABLE) == whole.read(TABLE)
    metrics = json.loads(killed.read(RUN))
    assert metrics["config"]["ranks"] == 2 and metrics["class_counts"] == [40, 26, 18, 12, 9, 6, 5, 4]
    drawn = ("results/figures/contexts.png", "results/lists/figures/mistakes.safetensors")
    assert snakemake(whole, *drawn).returncode == 0, "contexts and mistakes of images from lists"
    # Lists that are as they were are not read again; a changed one is.
    assert snakemake(killed, TABLE).returncode == 0 and killed.jobs(TABLE) == {}


def test_the_protocol_of_imagenet_lt_has_its_own_table_and_asks_for_two_ranks(tmp_path: Path) -> None:
    made = Folder(tmp_path)
    made.write(protocol="imagenet_lt", seeds=[1])
    assert made.jobs() == {"data": 1, "split": 1, "train": 6, "table": 1, "page": 1, "all": 1}
    plan = Plan(made.config)
    runs = {run.name: run for run in plan.all_runs()}
    assert {run.ranks for run in runs.values()} == {2} and len(runs) == 6
    assert "csa/model=resnet50" in runs and plan.reference.name == "csa"
    config: Any = plan.reference.config
    assert (config.batch_size, config.epochs, config.lr, config.lr_schedule) == (256, 90, 0.2, "cosine")


@pytest.mark.parametrize("missing", ["root", "list"])
def test_what_is_missing_is_named(missing: str, image_lists: Path, tmp_path: Path) -> None:
    made = folder(tmp_path / "missing", image_lists)
    fields = listed(image_lists, ranks=2)
    data = dict(fields["data"])  # type: ignore[call-overload]
    data["root" if missing == "root" else "train_list"] = "nowhere"
    (made.path / "lists.yaml").write_text(yaml.safe_dump(fields | {"data": data}))
    done = made.snakemake(RUN)
    assert done.returncode == 1
    words = "data.root nowhere: no such folder" if missing == "root" else "nowhere: cannot be read; set data.train_list"
    assert f"csa_core: {words}" in done.stderr
