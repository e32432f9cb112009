"""Give a training job GPUs of its own: `python -m workflow.devices --of GPUS --state FOLDER N -- COMMAND ...`.

Snakemake counts GPUs and does not say which is whose. A job that has one holds a lock file for it,
which the system takes back when the job's last process ends, however it ends. SLURM hands out devices
itself: a job that it starts runs as it is, and jobs that run side by side within one of its share what that one has.
"""

import argparse
import fcntl
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from csa_core.errors import UserError, say
from csa_core.files import make_folder
from workflow.declarations import WorkflowConfig

POLL_SECONDS = 0.5


def main(argv: list[str] | None = None) -> int:
    """Wait for devices, then become the command; return an exit code only where that is not possible."""
    parser = argparse.ArgumentParser("python -m workflow.devices", description=__doc__.split("\n\n")[0])
    parser.add_argument("--of", default="", metavar="GPUS", help="their names, with a comma between; none is no choice")
    parser.add_argument("--state", type=Path, required=True, metavar="FOLDER", help="where locks of devices lie")
    parser.add_argument("count", type=int, metavar="N", help="how many devices; 0 runs the command as it is")
    parser.add_argument("command", nargs="+", help="what to run, behind --")
    args = parser.parse_args(argv)
    try:
        devices = [name for name in args.of.split(",") if name]
        job = os.environ.get("SLURM_JOB_ID", "")  # of several devices that it was given, jobs within it share
        if args.count and devices and (not job or set(devices) <= set(_seen())):
            folder = args.state / "devices" / (f"slurm-{_safe(job)}" if job else "")
            if "CUDA_VISIBLE_DEVICES" not in os.environ:  # CUDA counts the fastest first; the names are the driver's
                os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(take(args.count, devices, folder))
        os.execvp(args.command[0], args.command)  # noqa: S606
    except (UserError, OSError) as error:
        say(f"devices: {error}")
        return 2


def take(count: int, devices: list[str], folder: Path) -> list[str]:
    """Return `count` devices that nobody else has, once there are as many.

    Args:
        devices: their names; one that stands there twice may be shared by two jobs.
        folder: where the locks lie; one for all jobs of this machine.

    Raises:
        UserError: more than there are.
    """
    distinct = len(set(devices))
    if count > distinct:
        raise UserError(
            f"{count} GPUs for one run and {distinct} here ({', '.join(devices)}); lower ranks or list more"
        )
    make_folder(folder)
    slots = [(name, f"{_safe(name)}-{devices[:i].count(name)}") for i, name in enumerate(devices)]
    host = _safe(os.uname().nodename)
    # One job at a time collects its devices, so that two which want several never wait for each other.
    turn = _open(folder / f"{host}-turn")
    fcntl.flock(turn, fcntl.LOCK_EX)
    taken: dict[str, int] = {}
    while True:
        for name, slot in slots:
            if len(taken) < count and name not in taken:
                lock = _open(folder / f"{host}-{slot}")
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(lock)
                else:
                    taken[name] = lock
        if len(taken) == count:
            break
        time.sleep(POLL_SECONDS)
    for lock in taken.values():
        os.set_inheritable(lock, True)  # the command holds it on
    os.close(turn)
    return list(taken)


def present(config: WorkflowConfig) -> list[str]:
    """Return the GPUs that jobs are given, by name, once for each job that may use one at a time; [] without GPUs."""
    if config.device == "cpu" or config.device == "mps":
        return []
    names = [str(name) for name in config.gpus] if config.gpus != "auto" else _seen()
    if config.device.startswith("cuda:") and config.gpus == "auto":
        number = int(config.device.partition(":")[2])
        names = names[number : number + 1]
    return [name for name in names for _ in range(config.jobs_per_gpu)]


def _seen() -> list[str]:
    """Return the GPUs that this process may use, as the driver's tool lists them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return []
    names: list[str] = []
    for number, instance in re.findall(r"^GPU (\d+):|^\s+MIG .*UUID: ([^)]+)", listed.stdout, re.MULTILINE):
        if instance and names and names[-1].isdigit():
            names.pop()  # a GPU that is divided is used by its parts alone
        names.append(number or instance)
    return names if listed.returncode == 0 else []


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)


if __name__ == "__main__":
    sys.exit(main())
