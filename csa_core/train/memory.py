"""What a run's memory goes to, said when there is not enough of it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from csa_core.config import RunConfig
from csa_core.errors import UserError
from csa_core.method.bank import bank_bytes

_SAID_BY_TORCH = re.compile("out of memory|can't allocate memory|not enough memory|alloc_failed", re.IGNORECASE)


def check_bank_fits(config: RunConfig, size: tuple[int, int], device: torch.device) -> None:
    """See, before training, that the bank fits into the free memory of the device.

    Raises:
        UserError: it does not.
    """
    needed = bank_bytes(config.bank_batches * config.batch_size, size)
    if needed > (free := free_bytes(device)):
        height, width = size
        raise UserError(
            f"bank_batches {config.bank_batches}: a bank of {config.bank_batches} x batch_size {config.batch_size} "
            f"images of {height} x {width} px takes {needed:,} bytes, {free:,} are free on {device}; lower one of them"
        )


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device, or can be freed; bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with suppress(OSError, IndexError, ValueError):  # Linux
        return 1024 * int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@contextmanager
def one_line_when_out_of_memory(config: RunConfig, size: tuple[int, int]) -> Iterator[None]:
    """Name batch size and bank when memory runs out; nothing is tried again with less.

    Raises:
        UserError: the device, or the machine, has not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _SAID_BY_TORCH.search(str(error)):
            raise
        key, batch = "batch_size", config.batch_size
        if config.method == "simsiam":
            key, batch = "pretraining.batch_size", config.pretraining.batch_size
        volume = config.bank_batches * config.batch_size if config.method == "csa" else 0
        bank = bank_bytes(volume, size) if volume else 0
        more = f" and a context bank of {bank:,} bytes (bank_batches {config.bank_batches})" if bank else ""
        raise UserError(f"out of memory with {key} {batch}{more}; lower them, or use another device") from None
