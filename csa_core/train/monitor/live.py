"""What a run shows while it trains: a sign of life, the history so far, and TensorBoard's events.

For people and programs that look at files, from any machine. Nothing of it is read by a training:
a run continues from its checkpoints and ends with its results, whatever became of these.
"""

import os
import socket
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from csa_core import store
from csa_core.errors import UserError
from csa_core.train.monitor.events import EVENTS, event_file, record
from csa_core.train.run import Run
from csa_core.train.state.results import Row, history_csv

PARTIAL = "history.partial.csv"
SECONDS = 5.0
EPOCHS = 10  # the pace is that of so many


class Live:
    """Writes them at the first epoch, then at the end of an epoch when the last time was `SECONDS` ago."""

    def __init__(
        self, run: Run, folder: Path, shown: Path, digests: dict[str, str], history: list[Row], spent: float
    ) -> None:
        """Begin after the epochs of `history`, which took `spent` seconds.

        Args:
            folder: the run's state, where its sign of life is.
            shown: where a person looks for history and events.
        """
        self._run, self._folder, self._shown, self._digests = run, folder, shown, digests
        self._history = history
        self._ends = deque([time.monotonic()], EPOCHS + 1)
        self._events = event_file(history, time.time(), spent)
        self.show()
        self._last = float("-inf")

    def epoch(self) -> None:
        """An epoch has ended, and its row is in the history."""
        self._ends.append(time.monotonic())
        self._events += record(self._history[-1], time.time())
        if time.monotonic() - self._last >= SECONDS:
            self.show()
            self._last = time.monotonic()

    def show(self) -> None:
        """Write all three.

        Raises:
            UserError: one cannot be written.
        """
        done, head = len(self._history), self._run.method.scored_as(self._run.config).predicts
        tested = (row[f"test_accuracy_{head}"] for row in reversed(self._history) if f"test_accuracy_{head}" in row)
        epochs = len(self._ends) - 1
        store.write_json(
            self._folder / store.PROGRESS,
            {
                "digests": self._digests,
                "out": str(self._shown),
                "epoch": done,
                "epochs": self._run.config.total_epochs,
                "seconds_per_epoch": round((self._ends[-1] - self._ends[0]) / epochs, 3) if epochs else None,
                "train_accuracy": self._history[-1].get("train_accuracy") if done else None,
                "test_accuracy": next(tested, None),
                "updated": datetime.now(UTC).isoformat(timespec="seconds"),
                "process": os.getpid(),
                "host": socket.gethostname(),
            },
            lasting=False,
        )
        store.write_bytes(self._shown / PARTIAL, history_csv(self._history).encode(), lasting=False)
        # In place: TensorBoard holds the file open, and would not see another one that takes its name.
        store.write_in_place(self._shown / EVENTS, self._events)

    def end(self) -> None:
        """Write the last epochs, however training ended, if that is possible."""
        with suppress(UserError):
            self.show()
