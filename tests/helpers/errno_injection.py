"""A disk that fails, in this process: opening or reading some files, or listing a folder, gives an error."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class FailingFile(io.BufferedReader):
    """A file whose content cannot be read."""

    error: int

    def readinto(self, buffer: Any) -> int:
        raise OSError(self.error, os.strerror(self.error))

    read = readline = readinto  # type: ignore[assignment]


@contextmanager
def failing(error: int, is_meant: Callable[[Path], bool], at: str) -> Iterator[None]:
    """Let the files that are meant fail with an errno, `at` their opening or reading, or a folder at its listing."""
    whole_open, whole_list = os.open, os.listdir

    def opened(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        is_read = not flags & (os.O_WRONLY | os.O_RDWR)
        if isinstance(path, str | Path) and is_read and at == "open" and is_meant(Path(path)):
            raise OSError(error, os.strerror(error))
        return whole_open(path, flags, *arguments, **options)

    def file_of(descriptor: int, *arguments: Any, **options: Any) -> Any:
        if at == "read" and is_meant(Path(f"/proc/self/fd/{descriptor}").readlink()):
            file = FailingFile(io.FileIO(descriptor))
            file.error = error
            return file
        return os.fdopen.__wrapped__(descriptor, *arguments, **options)  # type: ignore[attr-defined]

    def listed(path: Any = ".") -> list[str]:
        if at == "list" and is_meant(Path(path)):
            raise OSError(error, os.strerror(error))
        return whole_list(path)

    file_of.__wrapped__ = os.fdopen  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", opened)
        patch.setattr(os, "fdopen", file_of)
        patch.setattr(os, "listdir", listed)
        yield
