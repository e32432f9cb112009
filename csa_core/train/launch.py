"""Start one run as several ranks, through torchrun."""

import ctypes
import logging
import os
import re
import signal
import sys
from pathlib import Path

from csa_core.errors import UserError

PR_SET_PDEATHSIG = 1
AGAIN = "the same command continues from the last checkpoint"


class RankLost(Exception):
    """A rank ended early, and the others were stopped; `code` is what the command then ends with."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(f"{message}; {AGAIN}")
        self.code = code


def keep_compiled(folder: Path) -> None:
    """Let torch.compile keep what it makes in `folder`, unless the user has named another place.

    Raises:
        UserError: it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is in the way of the folder that torch.compile keeps its work in; remove it")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder.resolve()))


def launch(ranks: int, words: list[str], config: str) -> None:
    """Run `python -m csa_core WORDS` as `ranks` processes of this machine, and wait for them.

    Args:
        words: the command line; a configuration that came through stdin stands in it as `-`, and its
            text is `config`.

    Raises:
        SystemExit: with 2; a rank found bad input, and has said so.
        RankLost: a rank was lost; the same command continues from the last checkpoint.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # it reports failures by a page of text
    os.environ["CSA_STDIN"] = config
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP's advice on parameters that a phase does not use
    options = [
        "--nnodes",
        "1",
        "--nproc-per-node",
        str(ranks),
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "localhost:0",
    ]
    try:
        torchrun([*options, "-m", "csa_core", *words])
    except ChildFailedError as error:
        codes = {failure.exitcode: rank for rank, failure in error.failures.items()}
        if 2 in codes:
            raise SystemExit(2) from None
        code = min(codes)  # a signal, which is negative, comes before those who then missed their peer
        what = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise RankLost(f"rank {codes[code]} ended with {what}", 1) from None
    except SignalException as error:
        raise RankLost("interrupted", 128 + error.sigval.value) from None


def is_rank() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_about_a_lost_peer(error: RuntimeError) -> bool:
    """Whether a rank fails because another one has gone, which the one that started them says."""
    return is_rank() and bool(re.search(r"by peer|broken pipe", str(error), re.IGNORECASE))


def is_of_ranks(error: RuntimeError) -> bool:
    """Whether ranks cannot work together for another reason, which NCCL or gloo says."""
    from torch.distributed import DistError

    return is_rank() and (isinstance(error, DistError) or "gloo" in str(error).lower())


def join(device: str, ranks: int) -> str:
    """Join the other ranks; return the device of this one.

    Raises:
        UserError: torchrun started another number of them, or a device is named that all would share.
    """
    import torch
    import torch.distributed as dist

    if sys.platform == "linux":
        # torchrun gives each rank a session of its own: it would outlive a killed parent, unseen.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    local, started = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    if started != ranks:
        raise UserError(f"ranks: torchrun started {started} processes, the run asks for {ranks}; set ranks: {started}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        if local >= torch.cuda.device_count():
            found = torch.cuda.device_count()
            raise UserError(f"ranks: {started} ranks on {found} GPUs; use as many ranks as GPUs, or device cpu")
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    elif device != "cpu":
        raise UserError(f"device: {device} is one device and there are several ranks; use auto, cuda or cpu")
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return device


def leave() -> None:
    """Leave the group in peace, if this process is in one."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
