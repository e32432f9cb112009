"""Jobs and the GPUs that they are given: a made-up list of devices, real processes and real locks."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.patience import PATIENCE, wait_until
from workflow.declarations import WorkflowConfig
from workflow.devices import present

# Writes one line when it starts and one when it ends: time, what happened, devices. It waits for so many starts.
JOB = """
import os, sys, time
def say(what):
    with open(sys.argv[1], "a") as file:
        file.write(f"{time.monotonic()} {what} {os.environ.get('CUDA_VISIBLE_DEVICES', 'none')}\\n")
say("start"); time.sleep(float(sys.argv[2]))
while open(sys.argv[1]).read().count("start") < int(sys.argv[3]):
    time.sleep(0.01)
say("end")
"""
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="sees by its files that a process waits")


def start(
    folder: Path, count: int, devices: str, seconds: float = 0.4, starts: int = 1, **env: str
) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-m", "workflow.devices", "--of", devices, "--state", str(folder / "state"), str(count)]
    words += ["--", sys.executable, "-c", JOB]
    environment = {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")}
    environment |= {"PYTHONPATH": str(ROOT)}
    with (folder / "said").open("a") as said:
        words += [str(folder / "lines"), str(seconds), str(starts)]
        return subprocess.Popen(words, env=environment | env, stderr=said)


def wait_for_its_turn(job: "subprocess.Popen[bytes]") -> None:
    """Wait until it has asked for the devices, after the job before it."""
    files = Path(f"/proc/{job.pid}/fd")

    def has_asked() -> bool:
        with suppress(FileNotFoundError):  # it closes one while we look
            return any(str(file.readlink()).endswith("-turn") for file in files.iterdir())
        return False

    wait_until(has_asked, "the second job's turn")


def most_at_once(folder: Path) -> dict[str, int]:
    """Return for each device how many jobs had it at the same time, at most."""
    now, most = dict[str, int](), dict[str, int]()
    for line in sorted((folder / "lines").read_text().splitlines(), key=lambda line: float(line.split()[0])):
        _, what, devices = line.split()
        for device in devices.split(","):
            now[device] = now.get(device, 0) + (1 if what == "start" else -1)
            most[device] = max(most.get(device, 0), now[device])
    return most


@pytest.mark.parametrize(
    ("devices", "counts", "most"),
    [
        ("3,7", [1] * 6, {"3": 1, "7": 1}),
        ("3,7,8", [2, 1, 2, 1, 3, 2], {"3": 1, "7": 1, "8": 1}),
        ("3,3", [1] * 4, {"3": 2}),
        ("GPU-a/b,MIG 1", [2, 1, 1], {"GPU-a/b": 1, "MIG 1": 1}),
    ],
)
def test_no_two_jobs_share_a_device_unless_asked(
    tmp_path: Path, devices: str, counts: list[int], most: dict[str, int]
) -> None:
    together = max(most.values())
    jobs = [start(tmp_path, count, devices.replace(" ", "_"), starts=together) for count in counts]
    assert [job.wait(timeout=PATIENCE) for job in jobs] == [0] * len(jobs)
    assert most_at_once(tmp_path) == {name.replace(" ", "_"): n for name, n in most.items()}


@needs_proc
def test_a_killed_job_gives_its_device_back(tmp_path: Path) -> None:
    first = start(tmp_path, 1, "0", seconds=PATIENCE)
    wait_until((tmp_path / "lines").exists, "the first job")
    second = start(tmp_path, 1, "0", seconds=0)
    wait_for_its_turn(second)
    time.sleep(0.5)
    assert second.poll() is None and (tmp_path / "lines").read_text().count("start") == 1, "it waits"
    first.kill()
    assert second.wait(timeout=PATIENCE) == 0
    first.wait()


@pytest.mark.parametrize(("sees", "order"), [(None, "PCI_BUS_ID"), ("0,1", "None")])
def test_numbers_are_the_drivers_unless_somebody_has_numbered_them(sees: str | None, order: str) -> None:
    """CUDA counts the fastest GPU first where nothing else is said, and nvidia-smi by their slots."""
    ask = [sys.executable, "-c", "import os; print(os.environ.get('CUDA_DEVICE_ORDER'))"]
    given = {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")}
    given |= {"PYTHONPATH": str(ROOT)} | ({"CUDA_VISIBLE_DEVICES": sees} if sees else {})
    with tempfile.TemporaryDirectory() as state:
        words = [sys.executable, "-m", "workflow.devices", "--of", "0,1", "--state", state, "1", "--", *ask]
        assert subprocess.run(words, env=given, capture_output=True, text=True, check=True).stdout == f"{order}\n"


def test_where_nothing_is_to_be_given_the_command_runs_as_it_is(tmp_path: Path) -> None:
    for count, devices, env in ((0, "0", {}), (1, "", {}), (1, "0", {"SLURM_JOB_ID": "7"})):
        assert start(tmp_path, count, devices, 0, 1, **env).wait(timeout=PATIENCE) == 0
    assert most_at_once(tmp_path) == {"none": 1} and not (tmp_path / "state").exists()


def test_jobs_side_by_side_within_one_of_slurms_share_what_it_has(tmp_path: Path) -> None:
    def within(job: str, sees: str, devices: str, starts: int = 1) -> "subprocess.Popen[bytes]":
        return start(tmp_path, 1, devices, starts=starts, SLURM_JOB_ID=job, CUDA_VISIBLE_DEVICES=sees)

    jobs = [within("7", "2,5", "2,5", starts=2) for _ in range(4)]
    # Another job of SLURM's numbers its own devices, which may be others; one that SLURM starts has what it may have.
    jobs += [within("8", "0", "0"), within("9", "GPU-3", "0,1")]
    assert [job.wait(timeout=PATIENCE) for job in jobs] == [0] * len(jobs)
    assert most_at_once(tmp_path) == {"2": 1, "5": 1, "0": 1, "GPU-3": 1}


def test_more_devices_than_there_are_is_one_line(tmp_path: Path) -> None:
    job = start(tmp_path, 3, "0,1")
    assert job.wait(timeout=PATIENCE) == 2
    assert (
        tmp_path / "said"
    ).read_text() == "devices: 3 GPUs for one run and 2 here (0, 1); lower ranks or list more\n"


@pytest.mark.parametrize(
    ("config", "visible", "expected"),
    [
        ({}, "2,5", ["2", "5"]),
        ({}, "", []),
        ({"device": "cpu"}, "2,5", []),
        ({"device": "cuda:1"}, "2,5", ["5"]),
        ({"gpus": [0, "GPU-1"], "jobs_per_gpu": 2}, "2,5", ["0", "0", "GPU-1", "GPU-1"]),
    ],
)
def test_devices_that_jobs_are_given(
    config: dict[str, object], visible: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert present(WorkflowConfig.model_validate(config)) == expected


def test_devices_are_those_of_the_drivers_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\nprintf 'GPU 0: NVIDIA H100 (UUID: GPU-1)\\n  MIG 1g.10gb     Device  0: (UUID: MIG-2)\\n"
        "  MIG 1g.10gb     Device  1: (UUID: MIG-3)\\nGPU 1: NVIDIA H100 (UUID: GPU-4)\\n'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert present(WorkflowConfig()) == ["MIG-2", "MIG-3", "1"], "a divided GPU is used by its parts"
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert present(WorkflowConfig()) == []


@needs_proc
def test_an_interrupt_while_it_waits_is_one_line(tmp_path: Path) -> None:
    first = start(tmp_path, 1, "0", seconds=PATIENCE)
    wait_until((tmp_path / "lines").exists, "the first job")
    second = start(tmp_path, 1, "0")
    wait_for_its_turn(second)
    second.send_signal(signal.SIGINT)
    assert second.wait(timeout=PATIENCE) == 128 + signal.SIGINT
    said = (tmp_path / "said").read_text()
    assert said == "workflow: interrupted; the same command continues from where it stopped\n"
    first.kill()
    first.wait()
