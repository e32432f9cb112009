"""Snakemake killed, terminated, and asked again: the same tables, and nothing trained twice."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.helpers.leaves import LEAVES
from tests.helpers.patience import PATIENCE
from tests.helpers.workflows import RUN, Folder

pytestmark = pytest.mark.slow
TABLE = "results/table2.csv"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Table 2 and the method's rivals with one seed, made without a fault."""
    folder = Folder(tmp_path_factory.mktemp("whole"))
    folder.write(seeds=[1])
    done = folder.snakemake(TABLE, "results/baselines.csv")
    assert done.returncode == 0, done.stderr
    return folder


def begin(folder: Folder) -> "subprocess.Popen[bytes]":
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(folder.command(TABLE), cwd=ROOT, start_new_session=True, **quiet)  # type: ignore[call-overload]


def test_twenty_kills_at_random_moments(whole: Folder, tmp_path: Path) -> None:
    """SIGKILL to Snakemake and its jobs; then what the README says: --unlock, and the same command."""
    (tmp_path / "timed").mkdir()
    timed = Folder(tmp_path / "timed")
    timed.write(seeds=[1])
    began = time.monotonic()
    assert begin(timed).wait(timeout=PATIENCE) == 0
    took = time.monotonic() - began
    rng, kills, training, tables = random.Random(11), 0, 0, 0
    while kills < 20:
        path = tmp_path / str(tables)
        path.mkdir()
        folder = Folder(path)
        folder.write(seeds=[1])
        while kills < 20:
            process = begin(folder)
            try:
                process.wait(timeout=took * rng.uniform(0.1, 0.9))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                training += any(path.glob("results/state/*/lock"))
                assert folder.snakemake("--unlock").returncode == 0
            else:
                assert process.returncode == 0
                break
        done = folder.snakemake(TABLE)
        assert done.returncode == 0, done.stderr
        for name in (TABLE, "results/table2.seeds.csv", "results/table2.md", "results/table2.tex", RUN):
            assert folder.read(name) == whole.read(name), name
        tables += 1
    print(f"{kills} kills, {training} of them after a training had begun, {tables} tables")
    assert training > 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_snakemake_ends_it_and_the_same_command_goes_on(number: int, whole: Folder, tmp_path: Path) -> None:
    """To Snakemake and its jobs, as a terminal or a batch system sends it; no --unlock is needed."""
    folder = Folder(tmp_path)
    folder.write(seeds=[1])
    process = begin(folder)
    while not list(tmp_path.glob("results/state/*/lock")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, number)
    assert process.wait(timeout=PATIENCE) != 0
    assert not (tmp_path / TABLE).exists()
    done = folder.snakemake(TABLE)
    assert done.returncode == 0, done.stderr
    assert folder.read(TABLE) == whole.read(TABLE)


def test_snakemake_alone_killed_leaves_trainers_that_the_next_one_waits_for(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write(seeds=[1], overrides={"epochs": 60, "lr_drops": []})
    command = folder.command(RUN)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("results/state/*/holder.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert folder.snakemake("--unlock").returncode == 0
    done = folder.snakemake(RUN)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "results/tiny/logs/runs/csa/seed=1.log").read_text(errors="replace")
    assert "is training this run; waiting for it" in log, log


def test_twenty_orders_of_hashes_find_nothing_to_do(whole: Folder) -> None:
    for seed in range(20):
        done = subprocess.run([*whole.command(TABLE, "results/baselines.csv"), "--dry-run"], cwd=ROOT, text=True,
                              capture_output=True, env={**os.environ, "PYTHONHASHSEED": str(seed)})  # fmt: skip
        assert done.returncode == 0 and "Nothing to be done" in done.stdout + done.stderr, done.stdout


# Of six runs in the rivals' table, these read the leaf.
READERS = {
    "lr": 6, "horizontal_flip": 6, "threshold": 1, "mix": 1, "bank_reset": 1, "warmup_epochs": 2, "balance_ratio": 3,
    "logit_adjustment_strength": 1, "pretraining.epochs": 0, "pretraining.density_exponent": 0, "data.root": 0,
    "data.split_seed": 6, "data.imbalance_ratio": 6,
}  # fmt: skip


@pytest.mark.parametrize("leaf", READERS)
def test_a_changed_leaf_trains_what_reads_it(leaf: str, whole: Folder) -> None:
    key, _, inner = leaf.partition(".")
    value: Any = {"data.imbalance_ratio": 3, "horizontal_flip": False, "warmup_epochs": 0}.get(leaf, LEAVES[leaf][0])
    whole.write(overrides={key: {inner: value} if inner else value})
    try:
        jobs = whole.jobs("results/baselines.csv")
    finally:
        whole.write(overrides={})
    assert jobs.get("train", 0) == READERS[leaf]
    assert jobs.get("split", 0) == (leaf in ("data.split_seed", "data.imbalance_ratio")) and "data" not in jobs
