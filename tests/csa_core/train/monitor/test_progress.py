"""The live line at a terminal: what is said of an epoch, and nothing lost when the terminal goes."""

import os
import pty
import sys
import termios
from collections.abc import Callable
from typing import Any, TextIO

import pytest

from csa_core.train.monitor.progress import Progress

ROW = {"loss": 0.5, "train_accuracy": 0.25}


def terminal(monkeypatch: pytest.MonkeyPatch) -> tuple[int, TextIO]:
    """A terminal of 80 columns as standard error, and the end that a person looks at."""
    seen, shown = pty.openpty()
    termios.tcsetwinsize(seen, (24, 80))
    stream = os.fdopen(shown, "w")
    monkeypatch.setattr(sys, "stderr", stream)
    return seen, stream


def test_a_terminal_has_one_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, stream = terminal(monkeypatch)
    progress = Progress(4, 1)
    progress.epoch(2, ROW)
    progress.say("a line above\x1b[2J")
    progress.close()
    print("the end", file=stream)
    text = ""
    while "the end" not in text:
        text += os.read(seen, 10_000).decode()
    assert "2/4" in text and "loss 0.500, accuracy 25.0%" in text
    assert "a line above\\x1b[2J" in text


GONE: dict[str, Callable[[int, TextIO], Any]] = {
    "hung up": lambda seen, stream: os.close(seen),
    "closed": lambda seen, stream: stream.close(),
    "not there": lambda seen, stream: setattr(sys, "stderr", None),
}


@pytest.mark.parametrize("how", GONE)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the lost stream's own end
def test_training_goes_on_without_its_terminal(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = terminal(monkeypatch)
    progress = Progress(4, 0)
    GONE[how](*ends)
    progress.epoch(1, ROW)
    progress.say("a line above")
    progress.close()


def test_a_terminal_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    progress = Progress(4, 0)
    progress.epoch(1, ROW)
    progress.close()
