"""Table 2 through a live slurmctld and slurmd: a cancelled job, GPUs, arrays and groups; the bytes of a local run.

The cluster keeps no accounts of jobs: `sacct` fails, as does what asks for several clusters.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from csa_core.train.monitor.events import EVENTS
from tests.cluster.slurm import Cluster, missing
from tests.conftest import ROOT, TINY
from tests.helpers.patience import PATIENCE, wait_until

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(missing()), reason=f"needs {', '.join(missing())}: `make test-slurm` installs them"),
    pytest.mark.skipif(os.getuid() != 0, reason="needs root, to make the device nodes of its GPUs"),
]
TABLE = "results/table2.csv"
MADE = ["results/table2.csv", "results/table2.md", "results/table2.tex", "results/table2.seeds.csv"]
# A person's cluster answers within seconds, not at once; this one does.
QUICK = ["--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2"]
ON_SLURM = ["--workflow-profile", str(ROOT / "profiles/slurm"), "--slurm-status-command", "squeue", *QUICK]


def command(*words: str, seconds: int) -> list[str]:
    """Return the command line; SIGINT cancels its jobs, and SIGKILL is for a Snakemake that does not listen."""
    limit = ["timeout", "--signal=INT", "--kill-after=30", str(seconds)]
    files = ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "mine.yaml"]
    return [*limit, sys.executable, "-m", "snakemake", *words, *files]


def folder(path: Path, config: dict[str, Any]) -> Path:
    """Make a working folder with its configuration."""
    path.mkdir(exist_ok=True)
    (path / "mine.yaml").write_text(yaml.safe_dump(config))
    return path


def local(path: Path) -> Path:
    """Make Table 2 there, without a cluster."""
    done = subprocess.run(command(TABLE, "--cores", "2", seconds=600), cwd=path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path


def contents(path: Path) -> dict[str, bytes]:
    """Return the table and the results of its runs, without what names a time: provenance and TensorBoard's events."""
    timed = ("provenance.json", EVENTS)
    runs = [file for file in path.glob("results/*/runs/**/*") if file.is_file() and file.name not in timed]
    return {str(file.relative_to(path)): file.read_bytes() for file in [*runs, *(path / name for name in MADE)]}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@dataclass
class Seen:
    """A run of the workflow through SLURM, and what was seen of its jobs meanwhile."""

    path: Path
    submissions: list[str]
    cancelled: str = ""
    killed_run: str = ""
    devices: dict[str, set[str]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def demo(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """The demo's Table 2 through SLURM; the first job that trains is cancelled after its first epochs."""
    path = folder(tmp_path_factory.mktemp("demo"), {"seeds": [1]})
    seen, before = Seen(path, []), len(cluster.submissions())
    env = {**cluster.env, "CSA_CHECKPOINT_SECONDS": "0"}
    with (path / "said").open("wb") as said:
        process = subprocess.Popen(command(TABLE, *ON_SLURM, seconds=900), cwd=path, env=env, stdout=said, stderr=said)
        try:
            while process.poll() is None:
                _look(cluster, seen)
                time.sleep(0.5)
        finally:
            process.terminate()
            process.wait()
    assert process.returncode == 0, (path / "said").read_text()
    seen.submissions = cluster.submissions()[before:]
    return seen


def _look(cluster: Cluster, seen: Seen) -> None:
    """Note which GPUs running jobs got; cancel the first job that has a checkpoint."""
    for line in cluster("squeue", "--noheader", "--states=RUNNING", "--format=%i %k").splitlines():
        number, comment = line.split(maxsplit=1)
        name = re.sub(r"^rule_train_wildcards_csa_?(.*)_1$", r"\1", comment.strip())
        log = seen.path / "results/demo/logs/runs/csa" / name / "seed=1.log"
        if not seen.cancelled and log.exists() and "epoch 1/" in log.read_text():
            cluster("scancel", number)
            seen.cancelled, seen.killed_run = number, name
    for number, devices in cluster.devices().items():
        seen.devices.setdefault(number, set()).add(devices)


def test_table_2_is_that_of_a_local_run(demo: Seen, tmp_path: Path) -> None:
    expected = contents(local(folder(tmp_path, {"seeds": [1]})))
    assert len(expected) == 10 * 4 + len(MADE)
    found = contents(demo.path)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_a_cancelled_job_is_submitted_again_and_continues(demo: Seen, cluster: Cluster) -> None:
    assert "JobState=CANCELLED" in cluster("scontrol", "show", "job", demo.cancelled)
    assert len(demo.submissions) == 10 + 1, "each run once, and the cancelled one again"
    log = (demo.path / "results/demo/logs/runs/csa" / demo.killed_run / "seed=1.log").read_text()
    assert re.search(r"continuing after epoch \d+ of 30", log) and "epoch 1/30" not in log, log


def test_each_job_gets_the_gpu_that_the_profile_asks_for(demo: Seen, cluster: Cluster) -> None:
    for number in demo.devices:
        assert "TresPerJob=gres:gpu:1" in cluster("scontrol", "show", "job", number)
    assert len(demo.devices) >= 10 and set.union(*demo.devices.values()) == {"0", "1"}
    assert all(len(devices) == 1 for devices in demo.devices.values())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Four runs of a second: their configuration, and what a local run makes of it."""
    path = tmp_path_factory.mktemp("tiny")
    (path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    config = {"protocol": str(path / "tiny.yaml"), "seeds": [1, 2], "sweeps": {"threshold": [0.05, 0.06]}}
    return config, contents(local(folder(path / "local", config)))


ARRAY = ["--slurm-array-jobs", "train"]
GROUP = ["--groups", "train=runs", "--group-components", "runs=4"]
ONE_GPU = ["--resources", "gpu=1", "--set-resource-scopes", "gpu=local"]


@pytest.mark.parametrize(
    ("options", "asks"),
    [
        (ARRAY, ["--array=1-4", "--gpus=1", "-t 240"]),
        ([*GROUP, *ONE_GPU], ["--gpus=1", "-t 960"]),
        ([*ARRAY, "--set-resources", "train:gpu=0"], ["--array=1-4"]),
    ],
    ids=["array", "group", "without a GPU"],
)
def test_many_small_runs_are_one_submission(
    options: list[str],
    asks: list[str],
    cluster: Cluster,
    tiny: tuple[dict[str, Any], dict[str, bytes]],
    tmp_path: Path,
) -> None:
    config, expected = tiny
    before = len(cluster.submissions())
    words = command(TABLE, *ON_SLURM, *options, seconds=240)
    done = subprocess.run(words, cwd=folder(tmp_path, config), env=cluster.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (submission,) = cluster.submissions()[before:]
    assert all(word in submission for word in asks), submission
    assert ("--gpus" in submission) == ("--gpus=1" in asks)
    assert contents(tmp_path) == expected


LONG = "results/tiny/runs/csa/seed=1/metrics.json"


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, bytes]]:
    """One run of half a minute and more: its configuration, and what a local run makes of it."""
    path = tmp_path_factory.mktemp("lasting")
    (path / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"epochs": 200, "lr_drops": [], "evaluate_every": 0}))
    config = {"protocol": str(path / "tiny.yaml"), "seeds": [1]}
    alone = folder(path / "local", config)
    done = subprocess.run(command(LONG, "--cores", "1", seconds=600), cwd=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return config, results(alone)


def results(path: Path) -> dict[str, bytes]:
    """Return the results of the long run, without what names a time."""
    files = [file for file in (path / LONG).parent.iterdir() if file.name not in ("provenance.json", EVENTS)]
    return {file.name: file.read_bytes() for file in files}


@dataclass
class Watched:
    """A Snakemake that submits the long run, and the trainers of its jobs as they were seen to have its lock."""

    cluster: Cluster
    path: Path
    env: dict[str, str]
    submitted: int
    process: "subprocess.Popen[bytes]"
    together: int = 0
    """The most processes that were seen to write checkpoints of the run at one time."""

    def until(self, holds: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, complaint
            self.together = max(self.together, len(holders(self.cluster)))
            time.sleep(0.3)

    def jobs(self) -> dict[str, str]:
        """Return the numbers and states of all jobs that were submitted for the run."""
        lines = self.cluster("squeue", "--noheader", "--states=all", "--sort=i", "--format=%i %T %Z").splitlines()
        found = dict(line.split()[:2] for line in lines if line.split()[2] == str(self.path))
        return dict(sorted(found.items(), key=lambda item: int(item[0])))

    def has_checkpoint(self) -> bool:
        return any(self.path.glob("results/state/*/epoch-*.safetensors"))


def holders(cluster: Cluster) -> set[int]:
    """Return the trainers that hold the lock of a run's state now, by what the system says of locks."""
    locked = {line.split()[4] for line in Path("/proc/locks").read_text().splitlines() if "FLOCK" in line}
    return {pid for pid in cluster.trainers() if str(pid) in locked}


@pytest.fixture
def watched(cluster: Cluster, lasting: tuple[dict[str, Any], dict[str, bytes]], tmp_path: Path) -> Iterator[Watched]:
    env = {**cluster.env, "CSA_CHECKPOINT_SECONDS": "1"}
    path, before = folder(tmp_path, lasting[0]), len(cluster.submissions())
    with (path / "said").open("wb") as said:
        words = command(LONG, *ON_SLURM, seconds=0)[4:]  # `timeout` would hand a signal on twice
        process = subprocess.Popen(words, cwd=path, env=env, stdout=said, stderr=said)
    try:
        yield Watched(cluster, path, env, before, process)
    finally:
        process.terminate()
        process.wait()
        cluster("scancel", "--user=root")


def test_this_cluster_keeps_no_accounts_of_jobs(cluster: Cluster) -> None:
    """As of the clusters that the guide speaks of: what the plugin asks by default is answered by an error."""
    for words in ("sacct -X --clusters all", "squeue --clusters=all", "scancel --clusters=all 1"):
        assert subprocess.run(words.split(), env=cluster.env, capture_output=True).returncode != 0, words


def test_without_accounts_sacct_never_says_that_a_job_has_ended(
    cluster: Cluster, tiny: tuple[dict[str, Any], dict[str, bytes]], tmp_path: Path
) -> None:
    """The trap that the guide names; should a later plugin do without it, the guide is shorter."""
    path = folder(tmp_path, tiny[0])
    by_sacct = ["sacct" if word == "squeue" else word for word in ON_SLURM]
    with (path / "said").open("wb") as said:
        words = command(LONG, *by_sacct, seconds=0)[4:]
        process = subprocess.Popen(words, cwd=path, env=cluster.env, stdout=said, stderr=said)
    try:
        jobs = ("squeue", "--noheader", "--states=COMPLETED", "--format=%Z")
        wait_until(lambda: str(path) in cluster(*jobs).splitlines(), "the end of the job")
        time.sleep(20)  # it asks every two seconds to begin with
        assert process.poll() is None and (path / LONG).exists()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def test_an_interrupted_snakemake_cancels_its_jobs_and_continues(
    watched: Watched, lasting: tuple[dict[str, Any], dict[str, bytes]]
) -> None:
    watched.until(watched.has_checkpoint, "a checkpoint")
    watched.process.send_signal(signal.SIGINT)
    assert watched.process.wait(PATIENCE) != 0
    watched.until(lambda: set(watched.jobs().values()) == {"CANCELLED"}, f"cancelled: {watched.jobs()}")
    last = (watched.path / "said").read_text().rstrip().splitlines()[-1]
    assert last.startswith("snakemake: interrupted; what is done is kept"), last
    again = command(LONG, *ON_SLURM, seconds=600)
    done = subprocess.run(again, cwd=watched.path, env=watched.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "continuing after epoch" in (watched.path / "results/tiny/logs/runs/csa/seed=1.log").read_text()
    assert results(watched.path) == lasting[1]


def test_a_job_that_slurm_puts_back_is_not_submitted_a_second_time(
    watched: Watched, lasting: tuple[dict[str, Any], dict[str, bytes]]
) -> None:
    watched.until(watched.has_checkpoint, "a checkpoint")
    (number,) = watched.jobs()
    watched.cluster("scontrol", "requeue", number)
    watched.until(lambda: watched.process.poll() is not None, "the end")
    assert watched.process.returncode == 0, (watched.path / "said").read_text()
    assert "Restarts=1" in watched.cluster("scontrol", "show", "job", number)
    assert len(watched.cluster.submissions()) - watched.submitted == 1 and watched.together == 1
    assert "continuing after epoch" in (watched.path / "results/tiny/logs/runs/csa/seed=1.log").read_text()
    assert results(watched.path) == lasting[1]


def test_a_job_put_back_while_snakemake_has_submitted_it_again(
    watched: Watched, lasting: tuple[dict[str, Any], dict[str, bytes]]
) -> None:
    watched.until(watched.has_checkpoint, "a checkpoint")
    (first,) = watched.jobs()
    watched.cluster("scancel", first)
    watched.until(lambda: list(watched.jobs().values()) == ["CANCELLED", "RUNNING"], "the second try")
    watched.cluster("scontrol", "requeue", first)
    watched.cluster("scontrol", "update", f"JobId={first}", "StartTime=now")
    watched.until(lambda: list(watched.jobs().values()) == ["RUNNING"] * 2, f"both at once: {watched.jobs()}")
    watched.until(lambda: len(watched.cluster.trainers()) == 2, "both trainers")
    watched.until(lambda: set(watched.jobs().values()) == {"COMPLETED"}, f"both end well: {watched.jobs()}")
    assert watched.process.wait(PATIENCE) == 0, (watched.path / "said").read_text()
    assert watched.together == 1
    assert results(watched.path) == lasting[1]
