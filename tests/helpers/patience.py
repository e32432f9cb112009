"""How long a test waits for something that hangs: far longer than anything takes on a slow and busy machine."""

import os
import time
from collections.abc import Callable

PATIENCE = 1800 * float(os.environ.get("CSA_TEST_PATIENCE", "1"))
"""Seconds. No test passes or fails by the clock; CSA_TEST_PATIENCE scales this for a machine slower still."""


def wait_until(happened: Callable[[], object], what: str) -> None:
    """Wait for `what`, looking a hundred times a second."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, f"{what} never came"
        time.sleep(0.01)
