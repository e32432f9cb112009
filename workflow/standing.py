"""Where every planned run stands, told by files alone: no lock is taken, no process and no scheduler is asked.

A run's results say that it is finished; its state says how far it is, and when it last gave a sign
of life (`csa_core.train.monitor.live`); its log says why it failed. So any machine that sees the files can tell.
"""

import json
import os
import re
import statistics
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from csa_core.config import Strict, validate
from csa_core.errors import UserError, printable, untrusted
from csa_core.files import names_in, open_regular, read_bytes
from csa_core.store import PROGRESS, read_json
from workflow.devices import present
from workflow.fresh import wanted_digests
from workflow.naming import Run
from workflow.plan import Plan
from workflow.sources import stated_digest

START_SECONDS = 3.0  # imports and reading the data, a run
# A sign of life comes at the end of an epoch: older than so many epochs, and so many seconds, is silence.
SILENT_SECONDS, SILENT_EPOCHS = 120.0, 5
LONG_EPOCH = 720.0  # seconds; taken for one of which none is measured yet
INTERRUPTED = "csa_core: interrupted"
ERROR = re.compile(r"csa_core: |.*(error|exception|killed|\bfault|aborted|denied|not found)\b", re.IGNORECASE)
NO_ERROR = re.compile(INTERRUPTED + r"|.* is (training this run|filling this folder); ")
LONGEST_LINE = 2**16  # bytes of the digests of a result
CHECKPOINT = re.compile(r"epoch-\d{6}\.safetensors")

State = Literal["finished", "running", "stopped", "failed", "pending"]


@dataclass
class RunStatus:
    """How far one run is."""

    run: Run
    state: State
    note: str = ""
    """Why it does not run: the last line of its log, what a stopped one continues from."""
    epoch: int = 0
    """Epochs that need not be trained again."""
    left: float = float("nan")
    """Seconds that it takes from here; NaN where nothing like it was measured."""
    train_accuracy: float | None = None
    test_accuracy: float | None = None
    validation_balanced: float | None = None
    """Mean over classes of the accuracy on validation images."""
    process: tuple[str, int] | None = None
    """Host and number of the process that trains it."""
    ago: float | None = None
    """Seconds since its sign of life, or since it failed."""


@dataclass
class Survey:
    """How far the runs of a plan are."""

    runs: list[RunStatus]
    """Those that `all` needs."""
    tables: dict[str, list[RunStatus]]
    """Those of each of its tables."""
    extra: dict[str, list[RunStatus]]
    """Those of the tables beside `all` of which a run of their own has begun."""
    pace: dict[str, float]
    """Measured seconds of an epoch by kind of run."""

    @property
    def told(self) -> list[RunStatus]:
        """Every run, each once."""
        return list({run.run.folder: run for run in sum(self.extra.values(), self.runs)}.values())


class Heartbeat(Strict):
    """A run's last sign of life, as `csa_core.train.monitor.live` writes it."""

    digests: dict[str, str]
    out: str
    epoch: Annotated[int, Field(ge=0, le=10**6)]
    epochs: Annotated[int, Field(ge=0, le=10**6)]
    seconds_per_epoch: Annotated[float, Field(ge=0, le=1e9)] | None
    train_accuracy: Annotated[float, Field(ge=0, le=1)] | None
    test_accuracy: Annotated[float, Field(ge=0, le=1)] | None
    validation_balanced: Annotated[float, Field(ge=0, le=1)] | None = None
    updated: AwareDatetime
    process: Annotated[int, Field(ge=0, lt=2**63)]
    host: Annotated[str, Field(max_length=255)]

    @property
    def time(self) -> float:
        """When it was."""
        return self.updated.timestamp()


@dataclass
class StateFolder:
    """What lies in the state of one configuration; without a sign of life its results."""

    beat: Heartbeat | None = None
    is_held: bool = False
    checkpoint: int = 0


Key = tuple[str, str, str, str]
"""Digests of configuration, code, data set and split."""
StateFolders = dict[str, dict[Key, StateFolder]]
"""By the digest of the configuration, and by all digests."""


def survey(plan: Plan, now: float) -> Survey:
    """Look at the files of every run of a plan, once each."""
    runs = plan.every_run()
    there = {run.folder: digests_of(Path(run.folder, "metrics.json")) for run in runs}
    stated_by = cache(stated_digest)
    wanted = {run.folder: _key(wanted_digests(plan, run, stated_by)) for run in runs}
    is_all = all(_is_same(there[folder], key) for folder, key in wanted.items())
    state_folders = {} if is_all else _state_folders(Path(plan.state))
    pace = _pace(runs, there, wanted, state_folders)
    # The last sign of life at a run's place may be of another configuration.
    beats = [trace.beat for alike in state_folders.values() for trace in alike.values() if trace.beat]
    last = {beat.out: beat for beat in sorted(beats, key=lambda beat: beat.time)}
    standings = {}
    for run in runs:
        mine, stated = wanted[run.folder], there[run.folder]
        if _is_same(stated, mine):
            standing = RunStatus(run, "finished", epoch=run.epochs, left=0.0)
        else:
            each = pace[run.kind] if run.epochs else 0.0  # what trains no epoch has no pace
            standing = _unfinished(run, _of(state_folders, mine), last.get(run.folder), each, now)
            if stated and standing.state == "pending" and not standing.note:
                what = "with another configuration or code" if stated[:2] != mine[:2] else "on other images"
                standing.note = f"was trained {what}"
        standings[run.folder] = standing
    tables = {t: [standings[run.folder] for run in plan.with_parents(plan.runs_of(t))] for t in plan.tables}
    of_all = [standings[run.folder] for run in plan.all_runs()]
    shared = {run.run.folder for run in of_all}
    begun = [run for run in standings.values() if run.state != "pending" and run.run.folder not in shared]
    extra = {t: tables[t] for t in plan.extra if any(run in begun for run in tables[t])}
    return Survey(of_all, {t: tables[t] for t in plan.usual}, extra, pace)


def doing(plan: Plan) -> Callable[[Run], str]:
    """Return what a job does with a run: train it, continue it, or take what is finished from the state."""
    stated_by = cache(stated_digest)

    @cache
    def traces() -> StateFolders:
        return _state_folders(Path(plan.state))

    def what(run: Run) -> str:
        trace = _of(traces(), _key(wanted_digests(plan, run, stated_by)))
        return "Train" if trace is None else "Continue" if trace.beat else "Fetch from the state, finished before:"

    return what


def _unfinished(run: Run, trace: StateFolder | None, last: Heartbeat | None, each: float, now: float) -> RunStatus:
    """Return how far a run without results is.

    Args:
        last: the last sign of life at its place.
        each: seconds of an epoch of its kind.
    """
    if trace and not trace.beat:
        return RunStatus(run, "pending", "is trained; snakemake has only to fetch it", run.epochs, START_SECONDS)
    beat, epoch = (trace.beat, trace.checkpoint) if trace else (None, 0)
    line, is_error, written = _end_of_log(Path(run.log))
    has_ended, silence = True, 0.0
    if trace and beat:
        own = beat.seconds_per_epoch or each
        silence = max(now - beat.time, 0.0)
        has_ended = not trace.is_held or (written > beat.time and (is_error or line.startswith(INTERRUPTED)))
        if not has_ended and silence <= max(SILENT_SECONDS, SILENT_EPOCHS * (own if own == own else LONG_EPOCH)):
            left = max((run.epochs - beat.epoch) * own - silence, 0.0)
            accuracies = beat.train_accuracy, beat.test_accuracy, beat.validation_balanced
            return RunStatus(run, "running", "", beat.epoch, left, *accuracies, (beat.host, beat.process), silence)
    left = (run.epochs - epoch) * each + START_SECONDS
    is_of_another = last is not None and last != beat and written - last.time < SILENT_SECONDS
    if is_error and not is_of_another:
        return RunStatus(run, "failed", line, epoch, left, ago=now - written)
    if beat:
        silent = f"no sign of life for {about(silence)} (process {beat.process} on {beat.host})"
        where = f"continues after epoch {epoch}" if epoch else "starts again"
        note = f"{'interrupted' if has_ended else silent}; {where}"
        return RunStatus(run, "stopped", note, epoch, left, ago=silence)
    return RunStatus(run, "pending", "", epoch, left)


def _is_same(key: Key | None, wanted: Key) -> bool:
    """Whether digests are those that are wanted, as far as these are known."""
    return key is not None and all(want in ("", have) for have, want in zip(key, wanted, strict=True))


def _of(state_folders: StateFolders, wanted: Key) -> StateFolder | None:
    """Return what lies in the state of a run: who is at it counts more than who has finished, and the latest most."""
    found = [folder for key, folder in state_folders.get(wanted[0], {}).items() if _is_same(key, wanted)]
    return max(found, key=lambda folder: folder.beat.time if folder.beat else 0.0, default=None)


def digests_of(metrics: Path) -> Key | None:
    """Return the digests of configuration, code, data and split that results carry; None where there are none."""
    with suppress(UserError), open_regular(metrics) as file, untrusted(f"{metrics}: no digests"):
        file.readline(LONGEST_LINE)  # written with a line for each key, the digests first
        line = file.readline(LONGEST_LINE).decode()
        stated = json.loads(line.strip().removeprefix('"digests": ').removesuffix(","))
        return _key(stated)
    return None


def _key(digests: dict[str, str]) -> Key:
    config, code, data, split = (str(digests[name]) for name in ("config", "code", "data", "split"))
    return config, code, data, split


def _state_folders(state: Path) -> StateFolders:
    """Return what lies in each folder of the state; of several of one run, as of other parents, the latest."""
    state_folders: StateFolders = {}
    for folder in sorted(state.glob("*/")):
        with suppress(OSError, UserError, KeyError, TypeError, ValueError):  # gone meanwhile, or not ours
            names = set(names_in(folder))
            if PROGRESS in names:
                beat = validate(Heartbeat, read_json(folder / PROGRESS), str(folder / PROGRESS))
                digests = _key(beat.digests)
                checkpoint = max((int(name[6:12]) for name in names if CHECKPOINT.fullmatch(name)), default=0)
                alike = state_folders.setdefault(digests[0], {})
                before = alike.get(digests, StateFolder())
                if not before.beat or before.beat.time < beat.time:
                    alike[digests] = StateFolder(beat, "holder.json" in names, checkpoint)
            elif "finished.json" in names and (finished := digests_of(folder / "metrics.json")):
                state_folders.setdefault(finished[0], {}).setdefault(finished, StateFolder())
    return state_folders


def _pace(
    runs: list[Run], there: dict[str, Key | None], wanted: dict[str, Key], state_folders: StateFolders
) -> dict[str, float]:
    """Return the median seconds of an epoch for each kind of run, finished or at it; NaN where none was measured."""
    times: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        times[run.kind]
        trace = _of(state_folders, wanted[run.folder])
        if there[run.folder]:
            with suppress(UserError, KeyError, TypeError, ArithmeticError):
                seconds = read_json(Path(run.folder, "provenance.json"))["seconds"]
                is_of_plan = _is_same(there[run.folder], wanted[run.folder])
                epochs = run.epochs if is_of_plan else read_bytes(Path(run.folder, "history.csv")).count(b"\n") - 1
                times[run.kind].append(seconds / epochs)
        elif trace and trace.beat and trace.beat.seconds_per_epoch:
            times[run.kind].append(trace.beat.seconds_per_epoch)
    return {kind: statistics.median(each) if each else float("nan") for kind, each in times.items()}


def _end_of_log(path: Path) -> tuple[str, bool, float]:
    """Return the last line with something in it, whether that is an error, and when it was written."""
    try:
        with open_regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 4096, 0))
            text = file.read().decode(errors="replace").strip()
            written = os.fstat(file.fileno()).st_mtime
    except (OSError, UserError):
        return "", False, 0.0
    line = printable(text.splitlines()[-1].strip()) if text else ""
    is_error = bool(ERROR.match(line)) or "Traceback (most recent call last)" in text
    return line, is_error and not NO_ERROR.match(line), written


def about(seconds: float) -> str:
    """Return a duration for a person."""
    if seconds != seconds:
        return "?"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 2 else f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"


def side_by_side(plan: Plan, cores: int) -> int:
    """Return how many runs train at once on so many cores, and on the GPUs of this machine."""
    ranks = plan.reference.ranks
    gpus = present(plan.config)
    return max(1, min([cores // (plan.config.threads * ranks)] + [len(gpus) // ranks] * bool(gpus)))


def together(standings: list[RunStatus], jobs: int) -> float:
    """Return the seconds that runs take with so many processes side by side."""
    left = [standing.left for standing in standings]
    return max(sum(left) / jobs, max(left, default=0.0))  # no sooner than the longest


def measured(pace: dict[str, float]) -> str:
    """Return the seconds of an epoch in words."""
    said = ", ".join(f"{seconds:.2f} s with {kind}" for kind, seconds in pace.items() if seconds == seconds)
    return f"Measured for an epoch: {said or 'nothing yet: ask again after one'}."
