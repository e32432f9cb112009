"""Commands run in this process, which has imported torch and Snakemake already: a second or more less for each."""

import io
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import torch


def run_inside(
    main: Callable[[list[str]], object],
    words: list[str],
    cwd: Path,
    stdin: str = "",
    program: str = "python -m csa_core",
    **env: str,
) -> "subprocess.CompletedProcess[str]":
    """Call the `main` of a command as its process would be called; what it changes of this one is changed back."""
    code = 0
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with ExitStack() as stack:
        out, err = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
        with (
            _descriptor(1, out.fileno()),
            _descriptor(2, err.fileno()),
            redirect_stdout(out),
            redirect_stderr(err),
            chdir(cwd),
            patch.dict(os.environ, env),
            patch.object(sys, "path", list(sys.path)),
            patch.object(sys, "argv", [program, *words]),
            patch.object(sys, "stdin", io.StringIO(stdin)),
            patch.object(sys, "unraisablehook", sys.unraisablehook),
            warnings.catch_warnings(action="ignore"),
        ):
            try:
                code = int(main(words) or 0)  # type: ignore[call-overload]
            except SystemExit as left:  # --help, options that argparse refuses, and Snakemake always
                code = left.code if isinstance(left.code, int) else int(bool(left.code))
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
                torch.set_num_threads(1)
        said = []
        for file in (out, err):
            file.flush()
            file.seek(0)
            said.append(file.read())
    return subprocess.CompletedProcess(words, code, *said)


@contextmanager
def _descriptor(number: int, other: int) -> Iterator[None]:
    """Let what is written to a descriptor, by processes that are started too, go to another file."""
    before = os.dup(number)
    os.dup2(other, number)
    try:
        yield
    finally:
        os.dup2(before, number)
        os.close(before)
