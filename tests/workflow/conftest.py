"""Result folders that many tests of the report read."""

import json
from pathlib import Path

import pytest

from csa_core.store import sealed
from tests.helpers.workflows import ACCURACY, metrics, table


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Result folders as a finished sweep leaves them, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for number, row in enumerate(table()["rows"]):
        for seed in ACCURACY:
            folder = tmp_path / "results/demo/runs" / row["run"] / f"seed={seed}"
            folder.mkdir(parents=True)
            (folder / "metrics.json").write_text(json.dumps(sealed(metrics(row["run"], seed, number))))
    return tmp_path
