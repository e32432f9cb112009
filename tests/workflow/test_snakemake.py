"""Whole workflows, run as a person runs them: `snakemake` in a folder of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.conftest import ROOT, TINY

RUN = "results/runs/tiny/csa/seed=1/metrics.json"


class Folder:
    """A working folder with a protocol of seconds and two seeds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"epochs": 3, "lr_drops": [2]}))
        self.config: dict[str, Any] = {
            "protocol": str(path / "tiny.yaml"),
            "seeds": [1, 2],
            "sweeps": {"threshold": [0.05, 0.5]},
        }
        self.write()

    def write(self, **changes: Any) -> None:
        """Write the configuration with some keys changed."""
        self.config |= changes
        (self.path / "mine.yaml").write_text(yaml.safe_dump(self.config))

    def command(self, *words: str) -> list[str]:
        """Return the command line; targets come first."""
        options = ["--directory", str(self.path), "--configfile", str(self.path / "mine.yaml"), "--cores", "2"]
        return [sys.executable, "-m", "snakemake", *words, "--snakefile", str(ROOT / "Snakefile"), *options]

    def snakemake(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run it."""
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=300, cwd=ROOT)

    def jobs(self, *words: str) -> dict[str, int]:
        """Return how many jobs of each rule a dry run announces."""
        done = self.snakemake(*words, "--dry-run")
        assert done.returncode == 0, done.stderr
        lines = [line.split() for line in (done.stdout + done.stderr).splitlines()]
        rules = ("data", "split", "train", "table", "all", "gallery")
        return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[0] in rules}

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        return (self.path / name).read_bytes()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Table 2 and Table 4 of the tiny protocol, trained for real."""
    folder = Folder(tmp_path_factory.mktemp("finished"))
    assert folder.jobs("results/table2.csv", "results/table4.csv") == {"data": 1, "split": 1, "train": 4, "table": 2}
    done = folder.snakemake("results/table2.csv", "results/table4.csv")
    assert done.returncode == 0, done.stderr
    return folder


def test_tables_are_what_their_runs_say(finished: Folder) -> None:
    table = pd.read_csv(finished.path / "results/table2.csv", dtype={"label": str})
    assert table["label"].unique().tolist() == ["0.05", "0.5"] and set(table["seeds"]) == {2}
    for label, run in (("0.05", "csa"), ("0.5", "csa/threshold=0.5")):
        runs = [json.loads(finished.read(f"results/runs/tiny/{run}/seed={seed}/metrics.json")) for seed in (1, 2)]
        wanted = [100 * run["heads"]["resampling"]["accuracy"]["all"] for run in runs]
        line = table[(table["label"] == label) & (table["group"] == "all")].iloc[0]
        assert line["mean_percent"] == pytest.approx(sum(wanted) / 2)
    assert table["paper_percent"].isna().all()
    heads = pd.read_csv(finished.path / "results/table4.csv")
    assert heads["head"].unique().tolist() == ["uniform", "resampling", "ensemble"]


def test_a_second_call_does_nothing(finished: Folder) -> None:
    before = finished.read("results/table2.csv")
    assert finished.jobs("results/table2.csv", "results/table4.csv") == {}
    done = finished.snakemake("results/table2.csv")
    assert "Nothing to be done" in done.stdout + done.stderr
    assert finished.read("results/table2.csv") == before


def test_redrawing_trains_nothing(finished: Folder) -> None:
    assert finished.jobs("results/table2.csv", "--forcerun", "table") == {"table": 1}
    before = finished.read("results/table2.csv")
    (finished.path / "results/table2.csv").unlink()
    done = finished.snakemake("results/table2.csv")
    assert done.returncode == 0 and "Train" not in done.stdout + done.stderr
    assert finished.read("results/table2.csv") == before


@pytest.mark.parametrize(
    ("changes", "trains"),
    [
        ({"sweeps": {"threshold": [0.05, 0.6]}}, 2),
        ({"seeds": [1, 2, 3]}, 2),
        ({"overrides": {"mix": ["beta", 2.0, 2.0]}}, 4),
        ({"overrides": {"data": {"split_seed": 1}}}, 4),
        ({"threads": 2}, 0),
        ({"device": "cpu"}, 0),
    ],
)
def test_a_changed_value_trains_the_runs_it_touches(changes: dict[str, Any], trains: int, finished: Folder) -> None:
    before = dict(finished.config)
    finished.write(**changes)
    try:
        assert finished.jobs("results/table2.csv").get("train", 0) == trains
    finally:
        finished.config = before
        finished.write()


def test_one_ablation_by_the_path_that_a_person_types(finished: Folder) -> None:
    target = "results/runs/tiny/csa/activation_map=cam+threshold=0.25/seed=7/metrics.json"
    done = finished.snakemake(target)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(finished.read(target))
    assert metrics["config"]["activation_map"] == "cam" and metrics["config"]["seed"] == 7


def test_a_deleted_run_comes_back_from_its_state_the_same(finished: Folder) -> None:
    before = finished.read(RUN)
    (finished.path / RUN).unlink()
    assert finished.snakemake(RUN).returncode == 0
    assert finished.read(RUN) == before
    log = (finished.path / "results/logs/runs/tiny/csa/seed=1.log").read_text()
    assert "epoch" not in log, "it was trained again"


@pytest.mark.parametrize("words", [["--dry-run"], ["--dag"], ["--lint"]])
def test_nothing_needs_the_data_to_plan(words: list[str], tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write(protocol="paper")
    done = folder.snakemake(*words)
    if words == ["--lint"]:  # what remains asks for a container or conda environment for each rule
        complaints = [line for line in done.stderr.splitlines() if line.strip().startswith("*")]
        assert complaints and all("conda environment or container" in line for line in complaints)
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        ([], {"seedz": [1]}, "config.yaml: unknown key 'seedz': did you mean 'seeds'?"),
        ([], {"overrides": {"threshold": 7}}, "overrides: threshold: input should be less than or equal to 1, got 7"),
        (["results/runs/tiny/csa/threshold=0.050/seed=1/metrics.json"], {}, "is called results/runs/tiny/csa/seed=1"),
        (["results/runs/tiny/csa/treshold=0.5/seed=1/metrics.json"], {}, "did you mean 'threshold'?"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: list[str], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = Folder(tmp_path)
    folder.write(**changes)
    done = folder.snakemake(*words)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("snakemake: ") and message in done.stderr.splitlines()[-1]


def test_missing_images_are_named_and_leave_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write(overrides={"data": {"source": "folder", "root": "nowhere", "profile": "as_is"}})
    done = folder.snakemake(RUN)
    assert done.returncode == 1
    assert "csa_core: nowhere/train: no such folder" in done.stderr, "the log of a failed job is shown"
    assert not list(tmp_path.glob("results/data/*/dataset.safetensors"))


def test_killed_with_everything_it_continues(finished: Folder, tmp_path: Path) -> None:
    """SIGKILL to Snakemake and its jobs in the middle; unlock; the same bytes in the end."""
    folder = Folder(tmp_path)
    process = subprocess.Popen(folder.command("results/table2.csv"), cwd=ROOT, stderr=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    for _ in range(6000):
        if list(tmp_path.glob("results/state/*/lock")):
            break
        time.sleep(0.01)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "results/table2.csv").exists()
    assert folder.snakemake("--unlock").returncode == 0
    done = folder.snakemake("results/table2.csv")
    assert done.returncode == 0, done.stderr
    assert folder.read("results/table2.csv") == finished.read("results/table2.csv")
    assert folder.read(RUN) == finished.read(RUN)
