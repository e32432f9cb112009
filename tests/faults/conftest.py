"""File systems that tests may fill."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def mounted(*words: str) -> bool:
    return bool(shutil.which("mount")) and subprocess.run(["mount", *words], capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A file system that can be given another size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mounted("-t", "tmpfs", "-o", "size=64k", "faults", str(folder)):
        pytest.skip("mounting is not allowed here")

    def resize(kilobytes: int) -> Path:
        assert mounted("-o", f"remount,size={max(kilobytes, 4)}k", str(folder))
        return folder

    yield resize
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
