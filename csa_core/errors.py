"""The error that a person can mend: one line that names the key or file, and what to do."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class UserError(Exception):
    """Bad input. The command line prints its message as one line and exits with code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a hint for a misspelt `name`: the closest valid one, else the whole list."""
    valid = sorted(valid)
    close = get_close_matches(name, valid, n=1)
    return f"did you mean '{close[0]}'?" if close else f"valid: {', '.join(valid)}"


def several(names: Sequence[str], most: int = 3) -> str:
    """Return a list of names for a message: the first few, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
