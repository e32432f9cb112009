"""Working folders of the workflow, and tables and metrics as it hands them to the report."""

import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import snakemake.cli  # type: ignore[import-untyped]
import yaml

from tests.conftest import ROOT, TINY
from tests.helpers.inside import run_inside
from workflow.report.collect import MEASURES

RUN = "results/tiny/runs/csa/seed=1/metrics.json"
SHIPPED: dict[str, list[Any]] = yaml.safe_load((ROOT / "config.yaml").read_text())["sweeps"]
SWEEPS: dict[str, list[Any]] = {key: values[:2] for key, values in SHIPPED.items()} | {
    "threshold": [0.05, 0.06],
    "bank_batches": [1, 4],
    "mix": [["uniform", 0.0, 1.0], ["beta", 2.0, 2.0]],
    "balance_ratio": [0.0, 1.0],
}
ACCURACY = {1: [0.90, 0.80], 2: [0.92, 0.85], 3: [0.91, 0.81]}
SAME = {"code": "c" * 64, "data": "d" * 64, "split": "s" * 64}


class Folder:
    """A working folder with a protocol of seconds and two seeds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        pretraining = {"epochs": 2, "batch_size": 12, "projector_width": 16, "predictor_width": 4}
        protocol = TINY | {"epochs": 3, "lr_drops": [2], "pretraining": pretraining}
        (path / "tiny.yaml").write_text(yaml.safe_dump(protocol))
        self.config: dict[str, Any] = {
            "protocol": str(path / "tiny.yaml"),
            "seeds": [1, 2],
            "sweeps": SWEEPS,
        }
        self.write()

    def write(self, **changes: Any) -> None:
        """Write the configuration with some keys changed."""
        self.config |= changes
        (self.path / "mine.yaml").write_text(yaml.safe_dump(self.config))

    def words(self, *words: str) -> list[str]:
        """Return what stands behind `snakemake`; targets come first."""
        options = ["--directory", str(self.path), "--configfile", str(self.path / "mine.yaml"), "--cores", "2"]
        return [*words, "--snakefile", str(ROOT / "Snakefile"), *options]

    def command(self, *words: str) -> list[str]:
        """Return the command line, for a process that is killed or has an environment of its own."""
        return [sys.executable, "-m", "snakemake", *self.words(*words)]

    def snakemake(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run Snakemake in this process, which then need not import it; its jobs have their own."""
        with patch.object(sys.modules["snakemake.shell"], "STDOUT", None):  # what it was when pytest's capture began
            return run_inside(snakemake.cli.main, self.words(*words), ROOT, program="snakemake")

    def jobs(self, *words: str) -> dict[str, int]:
        """Return how many jobs of each rule a dry run announces."""
        done = self.snakemake(*words, "--dry-run")
        assert done.returncode == 0, done.stderr
        lines = [line.split() for line in (done.stdout + done.stderr).splitlines()]
        rules = ("data", "split", "train", "table", "figure", "page", "all")
        return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[0] in rules}

    def read(self, name: str) -> bytes:
        """Return a file's content."""
        return (self.path / name).read_bytes()


def table(**changes: Any) -> dict[str, Any]:
    rows = [
        {
            "label": label,
            "series": "",
            "head": None,
            "reference": label == "Ours",
            "pool": None,
            "paper": paper,
            "run": run,
            "code": SAME["code"],
            "digests": [f"{run}-{seed}" for seed in ACCURACY],
            "parents": [None] * len(ACCURACY),
        }
        for label, run, paper in (("Ours", "csa", {"all": 45.8}), ("Other", "ce", {}))
    ]
    shown = {"name": "table0", "title": "A title", "row_name": "Method", "source": "Table 0", "columns": ["all", "few"]}
    facts: dict[str, Any] = {
        "protocol": "demo",
        "overrides": {},
        "results": "results/demo",
        "seeds": list(ACCURACY),
        "draw": "no",
        "claims": [],
        "note": "",
        "paper_heading": "paper",
        "paper_sd": None,
    }
    return shown | facts | {"rows": rows} | changes


def metrics(run: str, seed: int, number: int) -> dict[str, Any]:
    value = ACCURACY[seed][number]
    accuracy = {"all": value, "many": None, "medium": value, "few": value / 2}
    return {
        "digests": SAME | {"config": f"{run}-{seed}"},
        "config": {"data": {"source": "demo"}},
        "class_counts": [9, 3],
        "groups": ["few", "few"],
        "predicts": "single",
        "heads": {"single": {"accuracy": accuracy} | dict.fromkeys(MEASURES, 0.5)},
    }
