"""Two trainers and one folder: whole results of one of them, and the other waits or is told."""

import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from csa_core import files
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.errors import UserError
from csa_core.train.state import lock
from tests.conftest import ROOT, tiny
from tests.helpers.patience import PATIENCE
from tests.helpers.runs import fit, results


@pytest.mark.long
@pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_two_trainers_of_one_folder(rounds: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.sharing", str(rounds), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert len(report) == rounds
    for each in report:
        assert each["of"] == 1 and not each["left"], each
        refused = [said for said in each["said"] if said != "own"]
        assert len(refused) <= 1, each
        # Who waited finds the other's results, and does not put its own in their place.
        reason = "holds a finished run with seed" if each["waits"] else "is filling this folder; wait for it or stop it"
        assert all(reason in said for said in refused), each
    print(f"{rounds} rounds, {sum(said != 'own' for each in report for said in each['said'])} refusals")


def test_who_waits_gets_the_folder_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.01)
    for name in ("one", "two", "out"):
        (tmp_path / name).mkdir()
    order: list[str] = []
    looked = threading.Event()

    def second() -> None:
        with lock.hold(tmp_path / "two", tmp_path / "out", wait=True, meanwhile=looked.set):
            order.append("second")

    with lock.hold(tmp_path / "one", tmp_path / "out"):
        with pytest.raises(UserError, match=f"process {os.getpid()} on .* is filling this folder"):
            lock.hold(tmp_path / "two", tmp_path / "out").__enter__()
        thread = threading.Thread(target=second)
        thread.start()
        assert looked.wait(PATIENCE)
        order.append("first")
    thread.join(PATIENCE)
    assert order == ["first", "second"]
    assert "is filling this folder; waiting for it" in capfd.readouterr().err


def test_who_waited_puts_nothing_in_the_place_of_what_came_meanwhile(
    dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    first = fit(tiny(method="ce"), dataset, split, tmp_path)
    with pytest.raises(UserError, match="holds a finished run with seed 1, asked for is 2; name another folder"):
        fit(tiny(method="ce", seed=2), dataset, split, tmp_path, wait=True)
    assert results(tmp_path / "out") == first
    assert fit(tiny(method="ce"), dataset, split, tmp_path, wait=True) == first, "the same run is no other"


def test_who_waits_lets_others_know_each_time_that_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As rank 0 of several does: the others ask it meanwhile, and would give up where it kept silent."""
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.01)
    asked = threading.Event(), threading.Event()

    def meanwhile() -> None:
        asked[asked[0].is_set()].set()

    def second() -> None:
        with lock.hold(tmp_path, tmp_path / "out", wait=True, meanwhile=meanwhile):
            pass

    (tmp_path / "out").mkdir()
    thread = threading.Thread(target=second)
    with lock.hold(tmp_path, tmp_path / "out"):
        thread.start()
        assert all(event.wait(PATIENCE) for event in asked)
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_temporary_files_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    (tmp_path / ".x.json.123.tmp").write_text("left by a killed writer")
    (tmp_path / ".y.json.123-0123abcd.tmp").write_text("another's")
    with (tmp_path / ".x.json.7-0123abcd.tmp").open("w") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        files.write_bytes(tmp_path / "x.json", b"{}")
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            ".x.json.7-0123abcd.tmp",
            ".y.json.123-0123abcd.tmp",
            "x.json",
        ]
        with lock.hold(tmp_path, tmp_path):
            assert sorted(p.name for p in tmp_path.glob(".*.tmp")) == [".x.json.7-0123abcd.tmp"]
    os.mkfifo(tmp_path / ".z.json.5.tmp")
    (tmp_path / ".mine.tmp").write_text("of another program")
    files.remove_abandoned(tmp_path)
    assert sorted(p.name for p in tmp_path.glob(".*.tmp")) == [".mine.tmp", ".z.json.5.tmp"], "a pipe is nobody's"


def test_killed_while_it_writes_a_checkpoint_leaves_nothing_for_the_next(tmp_path: Path) -> None:
    writing = """
import os, signal, sys
from pathlib import Path
from csa_core import files
whole = os.fsync
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
files.write_bytes(Path(sys.argv[1], "epoch-000001.safetensors"), bytes(10_000))
"""
    for _ in range(3):
        subprocess.run([sys.executable, "-c", writing, str(tmp_path)], cwd=ROOT)
        assert len(list(tmp_path.glob(".*.tmp"))) == 1, "each removes that of the one before"
    with lock.hold(tmp_path, tmp_path):
        assert not list(tmp_path.glob(".*.tmp"))


def test_files_that_belong_together_are_all_new_or_all_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {"a": b"1", "b": b"2"}
    files.write_together(tmp_path, old.items())
    written = []

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"/b: cannot be written \(No space left on device\)"):
        files.write_together(tmp_path, {"a": b"3", "b": b"4"}.items())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old
