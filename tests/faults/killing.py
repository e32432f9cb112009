"""Kill a training again and again, each time at another line of its code, and let it continue.

    python -m tests.faults.killing METHOD KILLS FOLDER

A process of its own, because it forks: torch is imported once and has no threads yet. The first run
is not killed and counts the lines that it executes, apart for those within the writing of a
checkpoint. Each further one gets SIGKILL at a line drawn at random, every second one within that
writing. Prints, as JSON, what became of each.
"""

import dataclasses
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import csa_core
from csa_core.data.dataset import Dataset
from csa_core.data.sources import load_source
from csa_core.data.split import make_split
from csa_core.train.loop import Options, train
from csa_core.train.monitor import live
from csa_core.train.state import checkpoint
from tests.conftest import tiny
from tests.helpers.runs import results

PACKAGE = str(Path(csa_core.__file__).parent)
PRETRAINING = {"epochs": 4, "batch_size": 12, "projector_width": 16, "predictor_width": 4, "sam": "sam"}


class Tracer:
    """Counts executed lines, in (key 1) and out of (key 0) the writing of checkpoints; kills at one."""

    def __init__(self, kill_at: tuple[int, int] | None = None) -> None:
        self.lines = [0, 0]
        self.writing = 0
        self.kill_at = kill_at

    def __call__(self, frame: FrameType, event: str, argument: Any) -> "Tracer | None":
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if frame.f_code is checkpoint.save.__code__ and event in ("call", "return"):
            self.writing = int(event == "call")
        if event == "line":
            self.lines[self.writing] += 1
            if (self.writing, self.lines[self.writing]) == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def in_a_process(work: Callable[[], None]) -> int:
    """Do it in a fork of this process; return how that ended."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(method: str, kills: int, folder: Path) -> None:
    """Kill and continue."""
    config = tiny(method=method, pretraining=PRETRAINING)
    whole = load_source(config.data)
    assert isinstance(whole, Dataset)
    few = slice(None, None, 10)  # of the test images: most of the time would go there
    dataset = dataclasses.replace(
        whole, test_images=whole.test_images[few], test_labels=whole.test_labels[few], digest=""
    )
    split = make_split(dataset, config.data)

    live.SECONDS = 0.0  # at every epoch: the clock has no part in how many lines a run has

    def run(out: Path, tracer: Tracer | None = None) -> None:
        sys.settrace(tracer)
        train(config, dataset, split, Options(out, out / "state", torch.device("cpu"), "code", checkpoint_seconds=0))
        sys.settrace(None)
        if tracer:
            (out / "lines.json").write_text(json.dumps(tracer.lines))

    if in_a_process(lambda: run(folder / "whole", Tracer())):
        raise SystemExit("the run that nobody kills did not end")
    lines = json.loads((folder / "whole/lines.json").read_text())
    rng, report = random.Random(7), []
    for number in range(kills):
        place = (number % 2, rng.randint(1, lines[number % 2]))
        out = folder / str(number)
        killed = in_a_process(lambda out=out, place=place: run(out, Tracer(place)))  # type: ignore[misc]
        found = bool(list(out.glob("state/*/epoch-*")))
        ended = in_a_process(lambda out=out: run(out))  # type: ignore[misc]
        same = not ended and results(out) == results(folder / "whole")
        left = sorted(p.name for p in [*out.iterdir(), *out.glob("state/*/*")] if p.name.endswith(".tmp"))
        report.append({"killed": killed, "writing": place[0], "from_checkpoint": found, "same": same, "left": left})
    print(json.dumps({"lines": lines, "kills": report}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
