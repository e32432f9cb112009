"""How long a test waits for something that hangs: far longer than anything takes on a slow and busy machine."""

import os

PATIENCE = 1800 * float(os.environ.get("CSA_TEST_PATIENCE", "1"))
"""Seconds. No test passes or fails by the clock; CSA_TEST_PATIENCE scales this for a machine slower still."""
