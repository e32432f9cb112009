"""One process trains a run; another that wants to is told which one does."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from csa_core import store
from csa_core.errors import UserError


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's state; the system takes it back however the holder ends.

    Raises:
        UserError: another process holds it, or the folder cannot be written to.
    """
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{folder}: {_holder(folder)} is training this run; wait for it or stop it") from None
    except OSError as error:
        raise UserError(f"{folder}/lock: cannot be written ({error.strerror}); choose another place") from None
    try:
        store.write_json(folder / "holder.json", {"process": os.getpid(), "host": socket.gethostname()})
        yield
    finally:
        with suppress(OSError):
            (folder / "holder.json").unlink()
        lock.release()


def _holder(folder: Path) -> str:
    """Say who holds the lock. Who took it a moment ago needs another one to write that down."""
    for _ in range(5):
        time.sleep(0.2)
        with suppress(UserError, KeyError, TypeError):
            stated = store.read_json(folder / "holder.json")
            return f"process {stated['process']} on {stated['host']}"
    return "another process"
