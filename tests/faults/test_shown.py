"""What is only shown may fail, and never fails a run: the same bytes, with stderr, stdout or its folder full."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, TINY
from tests.helpers.patience import PATIENCE
from tests.helpers.runs import results

CLOSED = "closed"


def run(
    folder: Path, *words: str, out: Path | None = None, to: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Train in `folder` with stdout and stderr redirected as the shell does it."""
    folder.mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(TINY))
    where = [str(folder / "run.yaml"), "--out", str(out or folder / "out"), "--state", str(folder / "state")]
    command = [sys.executable, "-m", "csa_core", "train", *where, "--threads", "1", "--checkpoint-seconds", "0", *words]
    redirected = " ".join(f"{n}>&-" if name == CLOSED else f"{n}>{name}" for n, name in (to or {}).items())
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirected}', "sh", *command],
        capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    done = run(folder)
    assert done.returncode == 0, done.stderr
    return results(folder / "out")


@pytest.mark.parametrize(
    "to",
    [
        {"1": "/dev/full", "2": "/dev/full"},
        pytest.param({"2": "/dev/full"}, marks=pytest.mark.slow),
        pytest.param({"1": "/dev/full"}, marks=pytest.mark.slow),
        pytest.param({"2": CLOSED}, marks=pytest.mark.slow),
        pytest.param({"1": CLOSED, "2": CLOSED}, marks=pytest.mark.long),
        pytest.param({"0": CLOSED, "1": CLOSED, "2": CLOSED}, marks=pytest.mark.slow),
    ],
    ids=str,
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_run_that_nobody_hears_of_ends_with_the_same_bytes(
    to: dict[str, str], whole: dict[str, bytes], tmp_path: Path
) -> None:
    done = run(tmp_path, to=to)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out") == whole
    assert "Traceback" not in done.stderr
    if to == {"1": "/dev/full"}:
        assert "warning: the accuracies could not be printed (No space left on device)" in done.stderr


@pytest.mark.long
def test_a_full_disk_of_results_beside_a_state_with_room(
    whole: dict[str, bytes], small_disk: Callable[[int], Path], tmp_path: Path
) -> None:
    """Training ends, the results wait in the state, and nothing of them is on the full disk."""
    disk = small_disk(64)
    (disk / "ballast").write_bytes(bytes(60 * 1024))
    done = run(tmp_path, out=disk / "out")
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and "No space left on device" in lines[-1], done.stderr
    assert sum(line.startswith("warning: ") for line in lines) == 1 and "epoch 5/5" in done.stderr
    assert sorted(path.name for path in (disk / "out").iterdir() if path.stat().st_size) == []
    small_disk(16_000)
    done = run(tmp_path, out=disk / "out")
    assert done.returncode == 0 and "epoch" not in done.stderr, "it was trained again"
    assert results(disk / "out") == whole


@pytest.mark.long
def test_old_results_stay_where_new_ones_find_no_room(small_disk: Callable[[int], Path], tmp_path: Path) -> None:
    """All are on disk before the first takes its name."""
    disk = small_disk(16_000)
    assert run(tmp_path, out=disk / "out").returncode == 0
    before = results(disk / "out")
    used = sum(path.stat().st_blocks * 512 for path in disk.rglob("*") if path.is_file()) // 1024
    small_disk(used + 150)
    done = run(tmp_path, "--retrain", out=disk / "out")
    assert done.returncode == 2 and "No space left on device" in done.stderr.splitlines()[-1]
    assert results(disk / "out") == before
    assert not [path for path in (disk / "out").iterdir() if path.name.endswith(".tmp")]


def test_what_was_asked_for_and_cannot_be_printed_is_an_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "csa_core", "keys"], stdout=os.open("/dev/full", os.O_WRONLY), stderr=subprocess.PIPE,
        text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr == "csa_core: output: No space left on device\n"
