"""Checkpoints of an unfinished run: the last two, each whole and checked, or not there."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csa_core import store
from csa_core.errors import Damaged, UserError

KEEP = 2


@dataclass
class Unsaved:
    """The epochs done, the state after them and its meta, while no checkpoint holds them."""

    last: tuple[int, store.Tensors, dict[str, Any]] | None = None


@contextmanager
def no_epoch_lost(folder: Path) -> Iterator[Unsaved]:
    """Write what is still unsaved when a signal ends the block; whatever ends it gets a note that says what continues.

    Within an epoch the network is somewhere else, so who trains puts a copy here at the end of each.
    """
    unsaved = Unsaved()
    try:
        yield unsaved
    except BaseException as error:
        if unsaved.last and _is_signal(error) and not (folder / "finished.json").exists():
            with suppress(UserError):
                save(folder, *unsaved.last)
        done = [int(path.stem.partition("-")[2]) for path in find(folder)]
        error.add_note(f"from the last checkpoint, after epoch {done[0]}" if done else "from the start")
        raise


def _is_signal(error: BaseException | None) -> bool:
    """Whether a signal is behind it, which may surface as something else where it meets decoding workers."""
    return error is not None and (not isinstance(error, Exception) or _is_signal(error.__cause__ or error.__context__))


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
