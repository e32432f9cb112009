"""A gang: several runs that one process trains at once, a step of each in turn.

One small run cannot fill a large GPU. Each run of a gang has a stream of its own there, so that
their kernels work side by side. Runs share nothing but the device: what comes out of one does not
depend on the others. A run alone is a gang of one.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from csa_core import store
from csa_core.config import RunConfig, parse
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split, read_split
from csa_core.errors import UserError
from csa_core.train.lock import Busy


@dataclass(frozen=True)
class Job:
    """A run to train, what it is trained from, and where its results are wanted."""

    config: RunConfig
    split: Split
    encoder: Path | None = None
    out: Path | None = None
    """None leaves them with the run's state, from where the run's own command fetches them."""
    shown: Path | None = None
    """Where a person looks for the run meanwhile; where `out` is, that is `out`."""


Training = Generator[None, None, None]
"""A run being trained: goes on by one step at each `next`. It yields first when it holds the run's lock."""


def train_in_turn(
    start: Callable[[Job, bool], Training], own: Job, others: Iterable[Job], size: int, device: torch.device
) -> None:
    """Train `own`, and with it up to `size - 1` others that nobody trains yet.

    Where another gang already trains `own`, this one trains others and then waits for it.

    Args:
        start: begins to train a job; told whether to wait for its lock.
        others: asked for no more than are taken.

    Raises:
        UserError: `own` could not be trained. Another run that cannot be tells so to its own command.
    """
    members: list[tuple[Training, torch.cuda.Stream | None]] = []

    def enter(job: Job) -> None:
        training = start(job, False)
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        with suppress(StopIteration), torch.cuda.stream(stream):  # it is finished
            next(training)
            members.append((training, stream))

    is_elsewhere, failure = False, None
    try:
        try:
            enter(own)
        except Busy:
            if size == 1:
                raise
            is_elsewhere = True
        mine = members[0][0] if members else None
        candidates = iter(others if mine or is_elsewhere else ())
        while len(members) < size and (job := next(candidates, None)):
            with suppress(UserError):
                enter(job)
        while members:
            for member in list(members):
                training, stream = member
                try:
                    with torch.cuda.stream(stream):
                        next(training)
                except StopIteration:
                    members.remove(member)
                except UserError as error:
                    members.remove(member)
                    failure = error if training is mine else failure
    finally:
        for training, _ in members:
            training.close()
    if failure:
        raise failure
    if is_elsewhere:
        for _ in start(own, True):
            pass


def pending_jobs(path: Path, own: RunConfig, data: Path | None, dataset: Dataset) -> Iterator[Job]:
    """Yield the jobs that a workflow has listed and that may be trained in one gang with `own`.

    The list is a hint: who comes first is whatever follows `own` in it, and what cannot be used,
    because its split or encoder is not made yet or something is wrong with it, is left out.

    Args:
        path: JSON, {jobs: [{config, data, split, encoder, out}]}; a configuration and the files of its rule.
        data: the data set file of `own`, which all of a gang share.

    Raises:
        UserError: the list is damaged.
    """
    listed = [entry | {"config": parse(entry["config"], str(path))} for entry in store.read_json(path)["jobs"]]
    after = next((i + 1 for i, entry in enumerate(listed) if entry["config"].digest() == own.digest()), 0)
    for entry in listed[after:] + listed[: max(after - 1, 0)]:
        config = entry["config"]
        if entry["data"] != str(data) or config.ranks > 1 or config.precision != own.precision:
            continue
        with suppress(UserError):
            split = read_split(Path(entry["split"]), dataset, config.data)
            encoder = Path(entry["encoder"]) if entry["encoder"] else None
            yield Job(config, split, encoder, shown=Path(entry["out"]) if entry.get("out") else None)
