"""Progress for a person at a terminal (one live line) and in a log file (a line now and then)."""

import sys
import time
from contextlib import suppress
from typing import Any

from tqdm import tqdm

from csa_core.errors import printable, say

UNSHOWN = (OSError, ValueError, AttributeError)
"""What standard error raises that is full, closed or not there."""
LOG_SECONDS = 60.0
# What is shown of an epoch, where its row has it.
SHOWN = {
    "loss": ("loss", "{:.3f}".format),
    "train_accuracy": ("accuracy", "{:.1%}".format),
    "projector_std": ("projector std", "{:.4f}".format),
    "test_accuracy_knn": ("kNN accuracy", "{:.1%}".format),
}


class Progress:
    """Report epochs with loss, accuracy and time left, on stderr; whatever becomes of that, training goes on."""

    def __init__(self, epochs: int, done: int, quiet: bool = False) -> None:
        self._quiet = quiet
        self._epochs, self._first = epochs, done
        self._start = self._last = time.monotonic()
        self._bar: tqdm[Any] | None = None
        with suppress(*UNSHOWN):
            is_live = not quiet and sys.stderr.isatty()
            self._bar = tqdm(total=epochs, initial=done, unit="epoch", dynamic_ncols=True) if is_live else None

    def epoch(self, done: int, row: dict[str, Any]) -> None:
        """Say that `done` epochs are finished; `row` is the last one's line of the history."""
        text = ", ".join(f"{name} {form(row[key])}" for key, (name, form) in SHOWN.items() if key in row)
        if self._bar is not None:
            with suppress(*UNSHOWN):
                self._bar.set_postfix_str(text, refresh=False)
                self._bar.update()
            return
        now = time.monotonic()
        if done in (self._first + 1, self._epochs) or now - self._last >= LOG_SECONDS:
            self._last = now
            each = (now - self._start) / (done - self._first)
            left = tqdm.format_interval(each * (self._epochs - done))
            self.say(f"epoch {done}/{self._epochs}: {text}, {each:.1f} s an epoch, {left} left")

    def say(self, line: str) -> None:
        """Print one line above the live one."""
        if self._bar is not None:
            with suppress(*UNSHOWN):
                tqdm.write(printable(line), file=sys.stderr)
        elif not self._quiet:
            say(line)

    def close(self) -> None:
        """End the live line."""
        if self._bar is not None:
            with suppress(*UNSHOWN):
                self._bar.close()
