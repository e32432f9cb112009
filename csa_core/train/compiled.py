"""Whether a run compiles its network with torch.compile, and the cache that its next run finds.

Compiling takes the time of hundreds of steps, a tenth of it where the cache has it already, and
saves 2 to 10 % of a step on the CPUs where it was measured, with one thread (benchmarks/README.md). What is
compiled rounds otherwise, so the choice must not depend on how far a run has come.
"""

import os
import shutil

from csa_core.config import COMPILE_CHOICES
from csa_core.errors import UserError
from csa_core.train.run import Run

PAYS_FROM = 1_000_000
"""Training images over all epochs and branches from which `auto` compiles on a CPU."""


def compile_where_it_pays(run: Run, choice: str) -> bool:
    """Compile the network of `run` where `choice` (auto, yes, no) says so; return whether.

    `auto` compiles long runs on a CPU. On a GPU it does not: nobody has measured it there.

    Raises:
        UserError: there is no such choice, or it is yes and there is no C++ compiler.
    """
    if choice not in COMPILE_CHOICES:
        raise UserError(f"--compile {choice}: unknown; write auto, yes or no")
    images = run.method.branches * run.config.total_epochs * len(run.split.indices)
    # In bfloat16 it saves nothing (benchmarks/README.md).
    pays = run.device.type == "cpu" and run.precision == "float32" and images >= PAYS_FROM
    if choice == "no" or not run.method.compiles or (choice == "auto" and not pays):
        return False
    if not shutil.which(os.environ.get("CXX", "g++")) and not shutil.which("clang++"):
        if choice == "auto":
            return False
        raise UserError("--compile yes: torch.compile needs a C++ compiler, as g++; install one or leave it at auto")
    run.network.body.compile(dynamic=False)
    return True
