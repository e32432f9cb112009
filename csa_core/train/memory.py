"""What a run's memory goes to, said when there is not enough of it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from csa_core.config import RunConfig
from csa_core.errors import UserError
from csa_core.method.bank import bank_bytes

_SAID_BY_TORCH = re.compile("out of memory|can't allocate memory|not enough memory|alloc_failed", re.IGNORECASE)


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
