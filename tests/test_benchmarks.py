"""Benchmarks that no other test runs still run, at their smallest; what they measure here means nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.long


def run(*words: str) -> str:
    """Run a benchmark; return what it printed."""
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_decoding_is_timed() -> None:
    words = ["--images", "8", "--longest", "100", "--side", "32", "--batch", "2", "--rounds", "1"]
    assert "\nratio " in run("benchmarks.decoding", *words)


def test_what_surrounds_training_is_timed(tmp_path: Path) -> None:
    words = ["--rounds", "1", "--jobs", "1", "--only", "workflow", "--out", str(tmp_path)]
    assert "start of a process to its first step" in run("benchmarks.workflow", *words)
    assert len((tmp_path / "workflow.csv").read_text().splitlines()) >= 3


def test_copies_of_runs_make_the_tables_of_a_large_sweep(tmp_path: Path) -> None:
    words = ["--runs", "12", "--seeds", "1", "--classes", "4", "--epochs", "4", "--keep", str(tmp_path)]
    printed = run("benchmarks.sweep", *words, "--cores", "2", "--draw", "results/table2.csv")
    assert "dry run, nothing to do" in printed
    assert (tmp_path / "results/table2.csv").exists() and (tmp_path / "results/sweep/runs/ce/seed=1").is_dir()
