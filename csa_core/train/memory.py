"""What a run's memory goes to, said when there is not enough of it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from csa_core.config import RunConfig
from csa_core.errors import UserError
from csa_core.methods import METHODS

_SAID_BY_TORCH = re.compile("out of memory|can't allocate memory|not enough memory|alloc_failed", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is of memory that ran out, of the machine or of a GPU."""
    return isinstance(error, MemoryError) or bool(_SAID_BY_TORCH.search(str(error)))


@contextmanager
def one_line_when_out_of_memory(config: RunConfig, size: tuple[int, int]) -> Iterator[None]:
    """Name batch size and bank when memory runs out; nothing is tried again with less.

    Raises:
        UserError: the device, or the machine, has not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        taken = METHODS[config.method].memory(config, size)
        raise UserError(f"out of memory with {taken}; lower them, or use another device") from None
