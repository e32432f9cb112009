"""The error that a person can mend: one line that names the key or file, and what to do."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches


class UserError(Exception):
    """Bad input. The command line prints its message as one line and exits with code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(message.split())))


class Unreadable(UserError):
    """A file could not be opened or read: nothing is known of its content, so it stays as it is."""


class Missing(Unreadable):
    """There is no such file."""


class Damaged(UserError):
    """A file was read whole, and is not what was written."""


@contextmanager
def untrusted(message: str) -> Iterator[None]:
    """The boundary around what parses a file: whatever it raises is said as `message`.

    Raises:
        Damaged: with the message.
        Unreadable: disk or memory failed, which says nothing of the content.
    """
    try:
        yield
    except UserError:
        raise
    except (MemoryError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not enough memory"
        raise Unreadable(f"{message.partition(': ')[0]}: cannot be read ({reason}); it stays as it is") from None
    except Exception:
        raise Damaged(message) from None


def printable(text: str) -> str:
    r"""Return text as a terminal may show it: what would move its cursor, or hide something, as `\x1b`."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def say(line: object) -> None:
    """Tell a person one line, on stderr and at once; work goes on where nobody can be told: full, closed, not there."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{printable(str(line))}\n")
        sys.stderr.flush()


def settle() -> None:
    """Write out what was printed; give up what cannot be, as Python would otherwise end with 120.

    Raises:
        OSError: of standard output; what it could not take is given up then.
    """
    failed = None
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (ValueError, AttributeError):  # closed, not there
            pass
        except OSError as error:
            failed = error if stream is sys.stdout else failed
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if failed:
        raise failed


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a hint for a misspelt `name`: the closest valid one, else the whole list."""
    valid = sorted(valid)
    close = get_close_matches(name[:100], valid, n=1)
    return f"did you mean '{close[0]}'?" if close else f"valid: {', '.join(valid)}"
