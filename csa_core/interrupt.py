"""Ctrl-C and SIGTERM while a command still imports what it needs, which takes seconds: one line, and no traceback."""

import os
import signal
from types import FrameType


def end_at_once(command: str) -> None:
    """Let a signal end this process with one line and 128 + its number; commands that have to tidy up take it over."""

    def end(number: int, frame: FrameType | None) -> None:
        if "TORCHELASTIC_RUN_ID" not in os.environ:  # of ranks, the process that started them speaks
            os.write(2, f"{command}: interrupted; the same command continues from where it stopped\n".encode())
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
