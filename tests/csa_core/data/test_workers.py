"""Processes that decode: what they lack, and how they end, is one line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from csa_core.data import decode
from csa_core.data.augment import evaluation_batches
from csa_core.data.listed import with_workers
from csa_core.data.sources import load_source
from csa_core.errors import UserError
from tests.conftest import ROOT, listed
from tests.csa_core.data.test_own_images import data_of_lists, load_lists, write_lists
from tests.helpers.patience import PATIENCE, wait_until


def test_too_little_shared_memory_is_said_before_anything_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a worker it would be an error that nobody hears, and the trainer would wait for its images."""
    dataset = load_lists(write_lists(tmp_path))
    needed = (2 * decode.PREFETCHED + 1) * 2 * 32 * 32 * 3  # two test images
    monkeypatch.setattr(decode, "free_shared_memory", lambda: needed - 1)
    with pytest.raises(UserError, match=r"--workers 2: /dev/shm has 0 MB free, .* use fewer, 0 uses none; or start"):
        next(evaluation_batches(with_workers(dataset, 2), torch.device("cpu")))
    assert len(next(evaluation_batches(dataset, torch.device("cpu")))) == 2
    monkeypatch.setattr(decode, "free_shared_memory", lambda: needed)
    assert len(next(evaluation_batches(with_workers(dataset, 2), torch.device("cpu")))) == 2


class Dying(decode._Files):
    """What the system's killer does to a worker."""

    def __getitem__(self, item: object) -> tuple[bytes, bool]:
        os.kill(os.getpid(), signal.SIGKILL)
        return b"", True


def test_a_killed_worker_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lists(tmp_path)
    monkeypatch.setattr(decode, "_Files", Dying)
    with pytest.raises(UserError, match="--workers 1: they were killed, perhaps for want of memory; use fewer"):
        list(decode.check_images(data_of_lists(tmp_path), 1))


@pytest.mark.long
def test_ctrl_c_with_workers_is_one_line(image_lists: Path, tmp_path: Path) -> None:
    """The terminal sends it to them, too."""
    run = tmp_path / "run.yaml"
    run.write_text(yaml.safe_dump(listed(image_lists, epochs=4000)))
    words = [sys.executable, "-m", "csa_core", "train", str(run), "--out", str(tmp_path / "out"), "--workers", "2"]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    history = tmp_path / "out/history.partial.csv"
    wait_until(lambda: history.is_file() and history.read_text().count("\n") > 2, "the second epoch")
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 130 and "Traceback" not in said, said
    assert said.splitlines()[-1].startswith(
        "csa_core: interrupted; the same command continues from the last checkpoint"
    )


def test_lists_without_workers_need_no_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "free_shared_memory", lambda: 0)
    dataset = load_source(data_of_lists(write_lists(tmp_path)))
    assert len(next(evaluation_batches(dataset, torch.device("cpu")))) == 2


def test_a_run_on_the_cpu_takes_nothing_of_a_gpu_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinned memory is the GPU's: asking for it takes some of the GPU's own, and fails where that is full."""
    dataset = load_lists(write_lists(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    files = decode._Files(dataset.root, dataset.test_paths, dataset.sizes, dataset.side, dataset.resize)
    assert [decode._loader(files, [], 0, torch.device(kind)).pin_memory for kind in ("cpu", "cuda")] == [False, True]
