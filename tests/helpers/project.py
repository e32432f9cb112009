"""A copy of the project for a reader to change."""

import shutil
import subprocess
from pathlib import Path

from tests.conftest import ROOT


def copy_project(folder: Path) -> None:
    """Copy the files under version control into a folder."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
