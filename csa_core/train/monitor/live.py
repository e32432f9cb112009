"""What a run shows while it trains: a sign of life, the history so far, and TensorBoard's events.

For people and programs that look at files, from any machine. Nothing of it is read by a training:
a run continues from its checkpoints and ends with its results, whatever became of these.
"""

import os
import socket
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from csa_core import store
from csa_core.errors import say
from csa_core.train.monitor.events import EVENTS, event_file, events_of, record
from csa_core.train.run import Run
from csa_core.train.state.results import Row, history_csv

PARTIAL = "history.partial.csv"
SECONDS = 5.0
EPOCHS = 10  # the pace is that of so many


class Live:
    """Writes them at the first epoch, then at the end of an epoch when the last time was `SECONDS` ago."""

    def __init__(
        self,
        run: Run,
        folder: Path,
        shown: Path,
        digests: dict[str, str],
        history: list[Row],
        spent: float,
        warn: Callable[[str], None],
    ) -> None:
        """Begin after the epochs of `history`, which took `spent` seconds.

        Args:
            folder: the run's state, where its sign of life is.
            shown: where a person looks for history and events.
            warn: is told, once, what could not be written.
        """
        self._run, self._folder, self._shown, self._digests = run, folder, shown, digests
        self._history, self._spent, self._warn = history, spent, warn
        self._ends = deque([time.monotonic()], EPOCHS + 1)
        self._recorded, self._events = 0, b""
        self._has_warned = False
        self.show()
        self._last = float("-inf")

    def epoch(self) -> None:
        """An epoch has ended, and its row is in the history."""
        self._ends.append(time.monotonic())
        if time.monotonic() - self._last >= SECONDS:
            self.show()
            self._last = time.monotonic()

    def show(self) -> None:
        """Write all three, each whatever becomes of the others: a run never fails for what is only shown."""
        for write in (self._sign_of_life, self._partial_history, self._event_file):
            try:
                write()
            except Exception as error:
                if not self._has_warned:
                    self._warn(f"warning: {error}; training goes on without it")
                self._has_warned = True

    def _sign_of_life(self) -> None:
        done, head = len(self._history), self._run.method.scored_as(self._run.config).predicts

        def last(column: str) -> float | None:
            return next((row[column] for row in reversed(self._history) if column in row), None)

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
                "test_accuracy": last(f"test_accuracy_{head}"),
                "validation_balanced": last(f"validation_balanced_{head}"),
                "updated": datetime.now(UTC).isoformat(timespec="seconds"),
                "process": os.getpid(),
                "host": socket.gethostname(),
            },
            lasting=False,
        )

    def _partial_history(self) -> None:
        store.write_bytes(self._shown / PARTIAL, history_csv(self._history).encode(), lasting=False)

    def _event_file(self) -> None:
        """In place: TensorBoard holds the file open, and would not see another one that takes its name."""
        if not self._events:
            self._events, self._recorded = event_file(self._history, time.time(), self._spent), len(self._history)
        for row in self._history[self._recorded :]:
            self._events += record(row, time.time())
        self._recorded = len(self._history)
        store.write_in_place(self._shown / EVENTS, self._events)


def show_finished(state: Path, shown: Path) -> None:
    """Show what a finished run's state holds, and no longer what was shown while it trained."""
    try:
        store.write_bytes(shown / EVENTS, events_of(state))
        store.remove(shown / PARTIAL)
    except Exception as error:
        say(f"warning: {error}; the results are there")
