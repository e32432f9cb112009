"""The workflow: a plan of runs, the rules that make them, and what is drawn from them."""

import sys

from csa_core.errors import write_any_name
from csa_core.interrupt import end_at_once

if sys.argv[:1] == ["-m"]:  # as Python has it while `python -m workflow.NAME` begins, and nobody who imports this
    end_at_once("workflow")
    write_any_name()
