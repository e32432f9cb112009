"""Checkpoints of an unfinished run: the last two, each whole and checked, or not there."""

from pathlib import Path
from typing import Any

from csa_core import store
from csa_core.errors import Damaged

KEEP = 2


def save(folder: Path, epoch: int, tensors: store.Tensors, meta: dict[str, Any]) -> None:
    """Write the checkpoint after `epoch` epochs, then drop all but the newest `KEEP`."""
    store.write_tensors(folder / f"epoch-{epoch:06d}.safetensors", tensors, meta | {"epoch": epoch})
    for old in find(folder)[KEEP:]:
        store.remove(old)


def find(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, newest first.

    Raises:
        Unreadable: the folder cannot be listed.
    """
    names = store.names_in(folder)
    return [folder / name for name in reversed(names) if name.startswith("epoch-") and name.endswith(".safetensors")]


def load_newest(folder: Path, digests: dict[str, str]) -> tuple[store.Tensors, dict[str, Any], list[str]]:
    """Return the newest sound checkpoint, `({}, {}, ...)` if there is none, and a line for each that is not.

    A damaged one is removed. One of another configuration, data set, split, parent or code is kept under
    another name.

    Raises:
        Unreadable: one could not be read, of which nothing is known; all stay as they are.
    """
    damaged = []
    for path in find(folder):
        try:
            tensors, meta, _ = store.read_tensors(path)
        except Damaged as error:
            damaged.append(f"{str(error).partition(';')[0]}; going back to the one before")
            store.remove(path)
            continue
        have = meta["digests"] if isinstance(meta, dict) and isinstance(meta.get("digests"), dict) else {}
        if other := [key for key in digests if have.get(key) != digests[key]]:
            aside = path.replace(path.with_suffix(".other"))
            damaged.append(f"{path}: is of another run (differs in the digest of {', '.join(other)}); kept as {aside}")
            continue
        return tensors, meta, damaged
    return {}, {}, damaged
