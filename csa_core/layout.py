"""Which files a folder of images consists of."""

from collections.abc import Sequence
from pathlib import Path

from csa_core.errors import UserError

PARTS = ("train", "test")
JUNK = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "__pycache__"}


def is_junk(name: str) -> bool:
    """Whether a file or folder is what systems and tools leave: `.DS_Store`, `._a.png`, `Thumbs.db`, `__MACOSX`."""
    return name.startswith(".") or name.lower() in JUNK


def below(folder: Path) -> list[Path]:
    """Return what lies in a folder, without junk, in the order of names; nothing where there is no folder.

    Raises:
        UserError: it cannot be read.
    """
    if not folder.is_dir():
        return []
    try:
        return sorted(path for path in folder.iterdir() if not is_junk(path.name))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); change its permissions") from None


def image_files(root: Path, parts: Sequence[str] = PARTS) -> list[Path]:
    """Return the files of all classes: `train/<class>/*`, then `test/<class>/*`."""
    folders = [folder for part in parts for folder in below(root / part) if folder.is_dir()]
    return [path for folder in folders for path in below(folder) if not path.is_dir()]
