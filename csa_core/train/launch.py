"""Start one run as several ranks, through torchrun."""

import logging
import os
import sys

from csa_core.errors import UserError


class RankLost(Exception):
    """A rank ended by a signal or an error; the others were stopped."""


def launch(ranks: int, words: list[str], config: str) -> None:
    """Run `python -m csa_core WORDS` as `ranks` processes of this machine, and wait for them.

    Args:
        words: the command line; a configuration that came through stdin stands in it as `-`, and its
            text is `config`.

    Raises:
        UserError: a rank found bad input, and has said so.
        RankLost: a rank was lost; the same command continues from the last checkpoint.
    """
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
        rank, failure = error.get_first_failure()
        if failure.exitcode == 2:
            raise SystemExit(2) from None
        what = f"signal {-failure.exitcode}" if failure.exitcode < 0 else f"exit code {failure.exitcode}"
        raise RankLost(f"rank {rank} ended with {what}; the same command continues from the last checkpoint") from None


def is_rank() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def join(device: str, ranks: int) -> str:
    """Join the other ranks; return the device of this one.

    Raises:
        UserError: torchrun started another number of them, or a device is named that all would share.
    """
    import torch
    import torch.distributed as dist

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
