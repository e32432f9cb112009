"""Progress for a person at a terminal (one live line) and in a log file (a line now and then)."""

import sys
import time

from tqdm import tqdm

LOG_SECONDS = 60.0


class Progress:
    """Report epochs with loss, training accuracy and time left, on stderr."""

    def __init__(self, epochs: int, done: int) -> None:
        self._epochs, self._first = epochs, done
        self._start = self._last = time.monotonic()
        self._bar = tqdm(total=epochs, initial=done, unit="epoch", disable=None, dynamic_ncols=True)

    def epoch(self, done: int, loss: float, accuracy: float) -> None:
        """Say that `done` epochs are finished; `accuracy` is a fraction."""
        text = f"loss {loss:.3f}, accuracy {100 * accuracy:.1f} %"
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
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()

    def close(self) -> None:
        """End the live line."""
        self._bar.close()
