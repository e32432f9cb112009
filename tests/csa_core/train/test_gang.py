"""Several runs in one process: each comes out as if it were alone, and nobody else's fault stops it."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from csa_core import store
from csa_core.config import RunConfig, parse
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split, make_split, write_split
from csa_core.errors import UserError
from csa_core.train import checkpoint
from csa_core.train.gang import Job, pending_jobs
from csa_core.train.lock import hold
from csa_core.train.loop import train
from tests.conftest import ROOT, TINY, tiny
from tests.csa_core.train.test_loop import SAME, results

CPU = torch.device("cpu")
PRETRAINING = {"epochs": 2, "batch_size": 12, "projector_width": 16, "predictor_width": 4, "sam": "none"}


@pytest.fixture(scope="module")
def jobs(dataset: Dataset, split: Split) -> list[Job]:
    """Runs that differ in all that runs of one data set can differ in."""
    other = tiny(data=TINY["data"] | {"imbalance_ratio": 2})  # type: ignore[operator]
    return [
        Job(tiny(), split),
        Job(tiny(threshold=0.9, bank_batches=2, warmup_epochs=2), split),
        Job(tiny(method="class_balanced", epochs=7, model="resnet20"), split),
        Job(other, make_split(dataset, other.data)),
        Job(tiny(method="simsiam", pretraining=PRETRAINING), split),
    ]


def fit(
    job: Job, dataset: Dataset, folder: Path, *others: Job, gang: int = 1, asked: Iterable[Job] = ()
) -> dict[str, bytes]:
    out = folder / job.config.digest()[:8]
    rest: dict[str, Any] = {"others": others or asked, "gang": gang}
    train(job.config, dataset, job.split, out, folder / "state", CPU, "code", 30.0, False, job.encoder, **rest)
    return results(out)


@pytest.fixture(scope="module")
def alone(jobs: list[Job], dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bytes]]:
    return [fit(job, dataset, tmp_path_factory.mktemp("alone")) for job in jobs]


def finished(folder: Path) -> dict[str, dict[str, bytes]]:
    """The results that lie in states, by digest of the configuration."""
    paths = [path.parent for path in (folder / "state").glob("*/finished.json")]
    return {store.read_sealed(path / "metrics.json")["digests"]["config"]: results(path) for path in paths}


@pytest.mark.parametrize("first", [0, 4])
def test_a_run_does_not_depend_on_the_gang_that_it_was_in(
    first: int, jobs: list[Job], alone: list[dict[str, bytes]], dataset: Dataset, tmp_path: Path
) -> None:
    mine, others = jobs[first], jobs[:first] + jobs[first + 1 :]
    started = time.monotonic()
    assert fit(mine, dataset, tmp_path, *others, gang=5) == alone[first]
    whole = time.monotonic() - started
    shares = [store.read_json(path)["seconds"] for path in (tmp_path / "state").glob("*/provenance.json")]
    assert 0.5 * whole < sum(shares) < whole, "each counts its own time"
    states = finished(tmp_path)
    for job, wanted in zip(jobs, alone, strict=True):
        assert states[job.config.digest()] == wanted
    started = time.monotonic()
    for job, wanted in zip(jobs, alone, strict=True):
        assert fit(job, dataset, tmp_path) == wanted, "fetched from its state"
    assert time.monotonic() - started < 5 and len(finished(tmp_path)) == 5


def test_no_more_are_taken_than_asked_for_and_none_by_a_finished_run(
    jobs: list[Job], dataset: Dataset, tmp_path: Path
) -> None:
    asked: list[Job] = []

    def others() -> Iterator[Job]:
        for job in jobs[1:]:
            asked.append(job)
            yield job

    fit(jobs[0], dataset, tmp_path, asked=others(), gang=1)
    assert list(finished(tmp_path)) == [jobs[0].config.digest()]
    fit(jobs[0], dataset, tmp_path, asked=others(), gang=3)
    assert len(finished(tmp_path)) == 1, "it was finished, so there was nothing to train"
    fit(jobs[2], dataset, tmp_path, asked=others(), gang=2)
    assert len(finished(tmp_path)) == 3 and asked == jobs[1:2]


def test_a_run_that_fails_stops_no_other(
    jobs: list[Job], alone: list[dict[str, bytes]], dataset: Dataset, tmp_path: Path
) -> None:
    bad = Job(tiny(lr=1e30), jobs[0].split)
    assert fit(jobs[0], dataset, tmp_path / "theirs", bad, gang=2) == alone[0]
    with pytest.raises(UserError, match="is not finite in epoch"):
        fit(bad, dataset, tmp_path / "mine", jobs[0], jobs[2], gang=3)
    states = finished(tmp_path / "mine")
    assert [states[jobs[i].config.digest()] for i in (0, 2)] == [alone[0], alone[2]]
    missing = Job(tiny(pretrained=True), jobs[0].split, tmp_path / "no encoder")
    assert fit(jobs[0], dataset, tmp_path / "missing", missing, gang=2) == alone[0]


def test_a_run_that_another_process_trains_is_left_to_it(
    jobs: list[Job], alone: list[dict[str, bytes]], dataset: Dataset, tmp_path: Path
) -> None:
    fit(jobs[0], dataset, tmp_path / "first")
    (name,) = [path.name for path in (tmp_path / "first/state").iterdir()]
    theirs = tmp_path / "state" / name
    theirs.mkdir(parents=True)
    with hold(theirs):
        assert fit(jobs[2], dataset, tmp_path, jobs[0], jobs[1], gang=2) == alone[2]
        assert set(finished(tmp_path)) == {jobs[i].config.digest() for i in (1, 2)}, "the next one came in its place"
        with pytest.raises(UserError, match="is training this run"):
            fit(jobs[0], dataset, tmp_path)


def listed(path: Path, dataset: Dataset, jobs: list[RunConfig]) -> dict[str, Any]:
    """Write data, splits and the list of pending jobs as a workflow does."""
    dataset.write(path / "data.safetensors")
    for config in jobs:
        write_split(path / f"{config.digest()[:8]}.json", make_split(dataset, config.data), dataset, config.data)
    entries = [
        {
            "config": config.identity(),
            "data": str(path / "data.safetensors"),
            "split": str(path / f"{config.digest()[:8]}.json"),
            "encoder": None,
        }
        for config in jobs
    ]
    store.write_json(path / "pending.json", {"jobs": entries})
    return {"jobs": entries}


def test_a_gang_is_filled_with_what_follows_in_the_list(dataset: Dataset, tmp_path: Path) -> None:
    configs = [tiny(seed=seed) for seed in range(5)]
    wrong = [tiny(ranks=2), tiny(precision="bfloat16")]
    content = listed(tmp_path, dataset, [*configs, *wrong])
    data = tmp_path / "data.safetensors"
    found = list(pending_jobs(tmp_path / "pending.json", configs[2], data, dataset))
    assert [job.config.seed for job in found] == [3, 4, 0, 1]
    assert all(job.out is None and job.config == configs[job.config.seed] for job in found)
    (tmp_path / f"{configs[3].digest()[:8]}.json").unlink()  # its split is not made yet
    content["jobs"][4]["data"] = "elsewhere"
    store.write_json(tmp_path / "pending.json", content)
    found = list(pending_jobs(tmp_path / "pending.json", configs[2], data, dataset))
    assert [job.config.seed for job in found] == [0, 1]


def started(folder: Path, config: RunConfig, gang: int) -> "subprocess.Popen[bytes]":
    path = folder / f"{config.digest()[:8]}.yaml"
    store.write_json(path, config.identity())
    files = ["--data", folder / "data.safetensors", "--split", path.with_suffix(".json"), "--out", path.with_suffix("")]
    files += ["--state", folder / "state", "--pending", folder / "pending.json"]
    options = ["--gang", gang, "--threads", 1, "--device", "cpu", "--checkpoint-seconds", 0]
    command = [sys.executable, "-m", "csa_core", "train", path, *files, *options]
    with path.with_suffix(".log").open("a") as log:
        return subprocess.Popen([*map(str, command)], cwd=ROOT, stdout=log, stderr=log)


def test_two_gangs_share_the_work_and_a_killed_one_loses_none(dataset: Dataset, tmp_path: Path) -> None:
    """Both gangs want the same runs; one is killed; asking again for each run gives what it gives alone."""
    configs = [parse(TINY | {"seed": seed, "epochs": 40}, "test") for seed in range(5)]
    listed(tmp_path, dataset, configs)
    killed = started(tmp_path, configs[0], gang=3)
    for _ in range(600):
        states = list((tmp_path / "state").glob("*"))
        if len(states) == 3 and all(checkpoint.find(state) for state in states):
            break
        time.sleep(0.05)
    other = started(tmp_path, configs[1], gang=3)  # its own run is in the first gang: it trains others and waits
    time.sleep(1.0)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(60) == -signal.SIGKILL
    assert other.wait(300) == 0
    last = [started(tmp_path, config, gang=1) for config in configs]
    assert [process.wait(300) for process in last] == [0] * 5
    assert len(list((tmp_path / "state").glob("*/finished.json"))) == 5
    for config in (configs[0], configs[1]):
        split = make_split(dataset, config.data)
        train(config, dataset, split, tmp_path / "alone", tmp_path / "alone/state", CPU, store.code_digest())
        wanted, out = results(tmp_path / "alone"), results(tmp_path / config.digest()[:8])
        assert all(wanted[name] == out[name] for name in SAME)
