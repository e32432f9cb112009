"""Progress for a person at a terminal (one live line) and in a log file (a line now and then)."""

import sys
import time
from typing import Any

from tqdm import tqdm

LOG_SECONDS = 60.0
# What is shown of an epoch, where its row has it.
SHOWN = {
    "loss": ("loss", "{:.3f}".format),
    "train_accuracy": ("accuracy", "{:.1%}".format),
    "projector_std": ("projector std", "{:.4f}".format),
    "test_accuracy_knn": ("kNN accuracy", "{:.1%}".format),
}


class Progress:
    """Report epochs with loss, accuracy and time left, on stderr."""

    def __init__(self, epochs: int, done: int, quiet: bool = False) -> None:
        self._quiet = quiet
        self._epochs, self._first = epochs, done
        self._start = self._last = time.monotonic()
        self._bar = tqdm(total=epochs, initial=done, unit="epoch", disable=quiet or None, dynamic_ncols=True)

    def epoch(self, done: int, row: dict[str, Any]) -> None:
        """Say that `done` epochs are finished; `row` is the last one's line of the history."""
        text = ", ".join(f"{name} {form(row[key])}" for key, (name, form) in SHOWN.items() if key in row)
        if not self._bar.disable:
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
        if self._quiet:
            return
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()

    def close(self) -> None:
        """End the live line."""
        self._bar.close()
