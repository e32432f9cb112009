"""One process trains a run and fills its folder; another that wants to is told which one does, or waits for it."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from csa_core import store
from csa_core.errors import UserError, say

LOOK_SECONDS = 1.0


@contextmanager
def hold(state: Path, out: Path, wait: bool = False, meanwhile: Callable[[], object] = bool) -> Iterator[None]:
    """Hold the locks of a run's state and of the folder for its results; the system takes them back however we end.

    Who holds them is alone in both, so that temporary files there are of writers that were killed, and go.

    Args:
        wait: for a process that holds one, in place of refusing.
        meanwhile: is called again and again while it waits, to let others know.

    Raises:
        UserError: another process holds one, or a folder cannot be written to.
    """
    # The state first, whoever asks: two that wait can never wait for each other.
    waits = meanwhile if wait else None
    with _locked(state, "", "is training this run", waits), _locked(out, ".", "is filling this folder", waits):
        for folder in (state, out):
            store.remove_abandoned(folder)
        yield


@contextmanager
def _locked(folder: Path, prefix: str, does: str, meanwhile: Callable[[], object] | None) -> Iterator[None]:
    """Hold the lock file of a folder; its name, and that of the one that says who holds it, begin with `prefix`."""
    lock, note = FileLock(folder / f"{prefix}lock"), folder / f"{prefix}holder.json"
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if meanwhile is None:
                raise UserError(f"{folder}: {_holder(note)} {does}; wait for it or stop it") from None
            say(f"csa_core: {folder}: {_holder(note)} {does}; waiting for it")
            while not lock.is_locked:
                meanwhile()
                with suppress(Timeout):
                    lock.acquire(timeout=LOOK_SECONDS, poll_interval=LOOK_SECONDS / 2)
    except OSError as error:
        raise UserError(f"{folder}/{prefix}lock: cannot be written ({error.strerror}); choose another place") from None
    try:
        with suppress(UserError):  # it only says who we are
            store.write_json(note, {"process": os.getpid(), "host": socket.gethostname()}, lasting=False)
        yield
    finally:
        with suppress(OSError):
            note.unlink()
        lock.release()


def _holder(note: Path) -> str:
    """Say who holds the lock. Who took it a moment ago needs another one to write that down."""
    for _ in range(5):
        time.sleep(0.2)
        with suppress(UserError, KeyError, TypeError):
            stated = store.read_json(note)
            return f"process {stated['process']} on {stated['host']}"
    return "another process"
