"""SIGKILL at any line of a training: the same bytes in the end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.patience import PATIENCE

MANY = pytest.mark.slow


@pytest.mark.parametrize(
    ("method", "kills"),
    [
        ("csa", 4),
        pytest.param("simsiam", 2, marks=pytest.mark.long),
        pytest.param("csa", 50, marks=MANY),
        pytest.param("simsiam", 10, marks=MANY),
    ],
)
def test_killed_at_any_line_it_ends_with_the_same_bytes(method: str, kills: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.killing", method, str(kills), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert all(lines > 50 for lines in report["lines"]), "lines in and out of the writing of checkpoints"
    each = report["kills"]
    assert [kill["killed"] for kill in each] == [-9] * kills
    assert sum(kill["writing"] for kill in each) == kills // 2
    assert [kill["same"] for kill in each] == [True] * kills
    assert not any(kill["left"] for kill in each), "temporary files of killed writers stay"
    assert any(kill["from_checkpoint"] for kill in each), "none continued from a checkpoint"
