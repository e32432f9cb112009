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
    whole_open = os.open

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

    def listed_by(function: Callable[..., Any]) -> Callable[..., Any]:
        def listed(path: Any = ".") -> Any:
            if at == "list" and not isinstance(path, int) and is_meant(Path(path)):
                raise OSError(error, os.strerror(error))
            return function(path)

        return listed

    file_of.__wrapped__ = os.fdopen  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", opened)
        patch.setattr(os, "fdopen", file_of)
        for function in (os.listdir, os.scandir):  # pathlib's iterdir is of the second from Python 3.13 on
            patch.setattr(os, function.__name__, listed_by(function))
        yield
