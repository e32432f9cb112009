"""A whole SLURM cluster of one node on this machine: its own munged, slurmctld and slurmd below one folder.

Everything listens on the loopback only and nothing is written outside the folder. Every process of the cluster,
jobs included, carries `MARK` in its environment, by which `stop` finds and ends all of them.
"""

import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MARK = "CSA_TEST_CLUSTER"
TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "setpriv")
# Debian keeps daemons where a person's PATH does not look.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

CONF = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A job that is put back into the queue starts again after so many seconds, and not after two minutes.
AuthInfo=socket={folder}/munge.socket,cred_expire=30
CryptoType=crypto/munge
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/node
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=200
KillWait=2
MinJobAge=3600
ReturnToService=2
GresTypes=gpu
# What the node claims to have need not be there: jobs are small, and its GPUs are files.
SlurmdParameters=config_overrides
NodeName=node NodeAddr=127.0.0.1 NodeHostname={host} Port={node_port} CPUs={cpus} RealMemory=64000 Gres=gpu:{gpus}
PartitionName=main Nodes=node MaxTime=INFINITE State=UP Default=YES
"""


def missing() -> list[str]:
    """Return the programs of SLURM and munge that this machine lacks."""
    return [name for name in TOOLS if shutil.which(name, path=PATH) is None]


class Cluster:
    """It runs from `start` to `stop`; `env` is what a person on its login node would have."""

    def __init__(self, folder: Path, cpus: int = 2, gpus: int = 2) -> None:
        self.folder = folder
        self.daemons: list[subprocess.Popen[bytes]] = []
        ports = _free_ports(2)
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_", "SRUN_"))},
            "PATH": f"{folder}/bin:{PATH}",
            "SLURM_CONF": f"{folder}/slurm.conf",
            MARK: str(folder),
        }
        for name in ("bin", "controller", "node"):
            (folder / name).mkdir()
        for i in range(gpus):
            os.mknod(folder / f"gpu{i}", 0o600 | stat.S_IFCHR, os.makedev(1, 3))  # as /dev/null is
        (folder / "gres.conf").write_text(
            f"NodeName=node Name=gpu Flags=nvidia_gpu_env File={folder}/gpu[0-{gpus - 1}]\n"
        )
        user = subprocess.check_output(["id", "-un"], text=True).strip()
        host = socket.gethostname().partition(".")[0]
        (folder / "slurm.conf").write_text(
            CONF.format(
                folder=folder, user=user, host=host, cpus=cpus, gpus=gpus, controller_port=ports[0], node_port=ports[1]
            )
        )
        # The executor's job step runs srun without any SLURM_ variable; on a cluster srun finds /etc/slurm.
        srun = folder / "bin/srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun", path=PATH)} "$@"\n')
        srun.chmod(0o755)
        # Every submission leaves a line.
        sbatch = folder / "bin/sbatch"
        sbatch.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$*" | head -n 1 >> {folder}/submissions\n'
            f'exec {shutil.which("sbatch", path=PATH)} "$@"\n'
        )
        sbatch.chmod(0o755)

    def start(self) -> None:
        """Start the daemons and wait until the node takes jobs."""
        folder = self.folder
        (folder / "munge.key").touch(0o600)
        (folder / "munge.key").write_bytes(os.urandom(128))
        files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid"}
        files |= {"log-file": "munge.log", "seed-file": "munge.seed"}
        # --force: only jobs of one user pass the folder, so it need not be open to all.
        munge = [f"--{option}={folder}/{name}" for option, name in files.items()]
        self._daemon("munged", "--foreground", "--force", *munge)
        _until(lambda: (folder / "munge.socket").exists(), "munged does not answer")
        self._daemon("slurmctld", "-D", "-i")
        self._daemon("slurmd", "-D", "-N", "node")
        _until(lambda: self("sinfo", "--noheader", "--format=%T") == "idle", "the node is not idle")

    def _daemon(self, name: str, *words: str) -> None:
        # Were this process killed, they would not stay.
        call = ["setpriv", "--pdeathsig", "KILL", str(shutil.which(name, path=PATH)), *words]
        with (self.folder / f"{name}.out").open("wb") as out:
            self.daemons.append(
                subprocess.Popen(
                    call,
                    env=self.env,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def stop(self) -> None:
        """End every process of the cluster, whatever it is doing."""
        deadline = time.monotonic() + 30
        while pids := self.processes():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert time.monotonic() < deadline, f"processes of the cluster stay: {list(pids)}"
            time.sleep(0.1)
        for daemon in self.daemons:
            daemon.wait()

    def processes(self) -> dict[int, dict[str, str]]:
        """Return the processes that carry this cluster's mark, and the environment of each."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # gone meanwhile
                words = (path / "environ").read_bytes().decode(errors="replace").split("\0")
                variables = dict(word.split("=", 1) for word in words if "=" in word)
                if variables.get(MARK) == str(self.folder):
                    found[int(path.name)] = variables
        return found

    def devices(self) -> dict[str, str]:
        """Return the GPUs that trainers see now, by the number of their job."""
        trainers = self.trainers().values()
        return {each["SLURM_JOB_ID"]: each.get("CUDA_VISIBLE_DEVICES", "none") for each in trainers}

    def trainers(self) -> dict[int, dict[str, str]]:
        """Return the processes that train, or wait for one that does, and the environment of each."""
        found = {}
        for pid, variables in self.processes().items():
            with suppress(OSError):
                if b"csa_core\0train" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found[pid] = variables
        return found

    def __call__(self, *words: str) -> str:
        """Run a command of SLURM; return what it says."""
        done = subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=30)
        return done.stdout.strip()

    def submissions(self) -> list[str]:
        """Return the calls of sbatch so far."""
        path = self.folder / "submissions"
        return path.read_text().splitlines() if path.exists() else []


def _free_ports(count: int) -> list[int]:
    """Return ports of the loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _until(holds: Callable[[], bool], complaint: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.2)
