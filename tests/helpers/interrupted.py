"""A command that is interrupted at each of its imports.

    python -m tests.helpers.interrupted START EVERY FOLDER MODULE WORDS...

From the import of START on, at each EVERY-th one, a copy of the process (a fork) gets the signal and goes its way;
the command itself goes on to the next. Of each copy FOLDER holds what it said, in a file that is named by its number,
module and exit code.
"""

import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

start, every, folder, module = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]).resolve(), sys.argv[4]
number, seen, begun = 0, set[str](), os.getpid()


def interrupt(event: str, args: tuple[Any, ...]) -> None:
    """Fork at an import; the copy interrupts itself and is not copied again."""
    global number
    if event != "import" or args[0] in seen or os.getpid() != begun:
        return
    seen.add(args[0])
    if start in seen:
        number += 1
    if number % every != 1:
        return
    said = folder / f"{number:04d}-{args[0][-80:]}"
    if child := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.rename(f"{said}:{code}")
        return
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)
    os.dup2(2, 1)
    signal.raise_signal(signal.SIGINT)


sys.argv[:] = ["-m", *sys.argv[5:]]
sys.addaudithook(interrupt)
runpy.run_module(module, run_name="__main__", alter_sys=True)
