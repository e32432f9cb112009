"""Files: written whole or not at all, read whole or not at all, and only where they are files."""

import fcntl
import io
import os
import re
import secrets
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from csa_core.errors import Missing, Unreadable, UserError

MOST_TEXT = 64 * 2**20
"""Bytes of the longest text that is read: JSON, lists, tables."""
TEMPORARY = re.compile(r"\..+\.\d+(-[0-9a-f]{8})?\.tmp")
"""Names of our temporary files, and of nobody else's: the file's, the process, a random part (not long ago none)."""


def from_home(text: str | Path) -> Path:
    """Return a path with `~` expanded; the home of nobody stays as it is, as a file may be called `~a.png`."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - pathlib's fails there


def write_bytes(path: Path, content: bytes | bytearray, lasting: bool = True) -> None:
    """Write a file so that a reader, or a crash, meets the old content or the new, never half.

    Args:
        lasting: wait until a power cut cannot take it back; what is written again in seconds need not.
    """
    path = Path(path)
    if not path.name:
        raise UserError(f"{path}: is a folder; name a file")
    write_together(path.parent, [(path.name, content)], lasting)


def write_together(folder: Path, contents: Iterable[tuple[str, bytes | bytearray]], lasting: bool = True) -> None:
    """Write files that belong together: all are on disk before one takes its name, and the last one's name comes last.

    So where the last one is, they are all of one kind; where there is no room for all, those from before stay.
    """
    staged: list[tuple[Path, io.BufferedWriter, Path]] = []
    path = folder
    try:
        for name, content in contents:
            path = folder / name
            folder.mkdir(parents=True, exist_ok=True)
            remove_abandoned(folder, name)
            staged.append((*_own_temporary(path), path))
            file = staged[-1][1]
            file.write(content)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        if len(staged) > 1:
            path.unlink(missing_ok=True)
        for temporary, _, path in staged:
            temporary.replace(path)
        if lasting:
            _sync_folder(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written ({_reason(error)}); free or choose another place") from None
    finally:  # a signal, too, may arrive in the middle
        for temporary, file, _ in staged:
            with suppress(OSError):
                temporary.unlink()
            with suppress(OSError):
                file.close()


def write_in_place(path: Path, content: bytes) -> None:
    """Write a file that readers hold open while it grows, and that is no result: a crash may leave half of it."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if path.exists() else "wb") as file:
            file.write(content)
            file.truncate()
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({_reason(error)}); free or choose another place") from None


def read_bytes(path: Path, most: int | None = None) -> bytearray:
    """Return the content of a regular file.

    Args:
        most: bytes that it may have.

    Raises:
        Missing: there is none.
        Unreadable: naming the cause; nothing is known of its content then.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if most is not None and size > most:
                raise Unreadable(f"{path}: has {size:,} bytes, more than {most:,}; name another file")
            content = bytearray(size)
            del content[file.readinto(content) :]
            return content
    except OSError as error:
        raise _unreadable(path, error) from None
    except MemoryError:
        raise Unreadable(f"{path}: cannot be read (not enough memory); it stays as it is") from None


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """Return the content of a regular file of UTF-8 text.

    Raises:
        Unreadable: missing, unreadable, too long.
        UserError: other bytes than UTF-8.
    """
    try:
        return read_bytes(path, most).decode()
    except UnicodeDecodeError:
        raise UserError(f"{path}: cannot be read (not UTF-8 text); name a text file") from None


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file to read it; a pipe or a device, which could keep us waiting for ever, is refused.

    Raises:
        Missing: there is none.
        Unreadable: naming the cause.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        file = os.fdopen(descriptor, "rb") if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except (FileNotFoundError, NotADirectoryError):
        raise Missing(f"{path}: cannot be read (no such file); check the path") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if file is None:
        os.close(descriptor)
        raise Unreadable(f"{path}: cannot be read (no regular file); name a file")
    return file


def names_in(folder: Path) -> list[str]:
    """Return the sorted names in a folder; none where there is no folder.

    `glob` would take one that cannot be read for an empty one.

    Raises:
        Unreadable: it is there, and cannot be listed.
    """
    try:
        return sorted(path.name for path in Path(folder).iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(folder, error) from None


def remove(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        UserError: it is not allowed.
    """
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be removed ({_reason(error)}); remove it or choose another place") from None


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        UserError: something is in the way, or it is not allowed.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be made ({_reason(error)}); choose another folder") from None


def remove_abandoned(folder: Path, name: str = "") -> None:
    """Remove the temporary files in a folder whose writers were killed; those of living ones are locked, and stay.

    Args:
        name: of the file that they were to become; empty is any.
    """
    with suppress(UserError):
        for path in (folder / each for each in names_in(folder) if each.startswith(f".{name}")):
            if TEMPORARY.fullmatch(path.name):
                with suppress(OSError, UserError), open_regular(path) as file:  # gone meanwhile, or not ours to remove
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()


def _own_temporary(path: Path) -> tuple[Path, io.BufferedWriter]:
    """Return a new file beside `path`, locked for as long as it is open."""
    while True:
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        file = temporary.open("xb")
        is_ours = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = temporary.exists()
        except BlockingIOError:  # somebody tidies up, and has taken it for abandoned
            is_ours = False
        except OSError:  # a file system without locks, where nobody tidies up
            pass
        if is_ours:
            return temporary, file
        file.close()


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unreadable(path: Path, error: Exception) -> Unreadable:
    return Unreadable(f"{path}: cannot be read ({_reason(error)}); it stays as it is, see to disk and rights")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
