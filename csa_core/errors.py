"""The error that a person can mend: one line that names the key or file, and what to do."""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches

NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")


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
    except Exception as error:  # parsers raise anything at all; a mistake of our own in there is found by its cause
        raise Damaged(message) from error


def printable(text: str) -> str:
    r"""Return text as a terminal may show it: what would move its cursor, or hide something, as `\x1b`."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def cell(text: str) -> str:
    """Return text as it may stand in CSV: no spreadsheet takes it for a formula, an apostrophe stands before `=cmd`."""
    return f"'{text}" if text[:1] in tuple("=+-@\t") and not NUMBER.fullmatch(text) else text


def say(line: object) -> None:
    """Tell a person one line, on stderr and at once; work goes on where nobody can be told: full, closed, not there."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{printable(str(line))}\n")
        sys.stderr.flush()


def write_any_name() -> None:
    r"""Let standard output write a name that its encoding lacks, as `\u732b`; nothing is lost by a name at the end."""
    with suppress(AttributeError):  # there is no output, or not of this kind
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


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


# What others call a key, and what it is called here; the paper's symbols among them.
SYNONYMS = {
    "lr": ("learning_rate", "learningrate", "base_lr", "init_lr", "initial_lr", "max_lr", "lr0", "eta"),
    "batch_size": ("batch", "bs", "batchsize", "b", "mini_batch", "train_batch_size"),
    "weight_decay": ("wd", "decay", "l2", "weightdecay"),
    "momentum": ("mom", "mu", "sgd_momentum"),
    "epochs": ("num_epochs", "n_epochs", "max_epochs", "epoch"),
    "lr_schedule": ("scheduler", "lr_scheduler", "schedule"),
    "lr_drops": ("milestones", "lr_steps", "lr_milestones", "step_size"),
    "lr_warmup_epochs": ("warmup", "lr_warmup"),
    "model": ("arch", "architecture", "backbone", "network", "net"),
    "seed": ("random_seed", "manual_seed", "rng_seed"),
    "seeds": ("seed", "random_seeds"),
    "precision": ("amp", "fp16", "bf16", "dtype", "mixed_precision"),
    "horizontal_flip": ("flip", "hflip"),
    "threshold": ("delta", "tau_conf", "confidence", "confidence_threshold"),
    "mix": ("lambda", "lam", "lambda_", "mixup", "alpha_beta"),
    "balance_ratio": ("gamma", "sampling_ratio"),
    "bank_batches": ("bank_size", "queue", "queue_size", "q", "v", "bank"),
    "mask_exponent": ("beta", "exponent"),
    "norm_exponent": ("tau",),
    "post_hoc_strength": ("tau",),
    "logit_adjustment_strength": ("tau",),
    "pretraining.sam_radius": ("rho",),
    "pretraining.density_exponent": ("alpha",),
    "data.source": ("dataset", "source"),
    "data.root": ("root", "data_dir", "data_path", "datadir"),
    "data.imbalance_ratio": ("imbalance_factor", "imb_factor", "imb_ratio", "imbalance", "if"),
    "data.image_size": ("img_size", "resolution", "image_size", "size"),
    "data.profile": ("imb_type", "imbalance_type", "profile"),
    "device": ("gpu", "accelerator"),
    "gpus": ("gpu_ids", "devices"),
    "workers": ("num_workers", "n_workers"),
    "threads": ("num_threads", "cores", "n_jobs"),
    "results": ("out", "output", "output_dir", "out_dir"),
    "cuda": ("gpu", "nvidia"),
    "ce": ("cross_entropy", "erm", "baseline"),
    "uniform": ("random",),
}


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a hint for a misspelt `name`: the closest valid one, else the whole list."""
    valid = sorted(set(valid))
    meant = likely(name, valid)
    return f"did you mean '{meant}'?" if meant else f"valid: {', '.join(valid)}"


def likely(name: str, valid: Iterable[str]) -> str | None:
    """Return the one of `valid` that `name` stands for: as others call it, in another case, or misspelt."""
    valid = sorted(valid)
    lower = name.lower().replace("-", "_")
    by_case = {each.lower(): each for each in valid}
    if lower in by_case:
        return by_case[lower]
    meanings = [meant for meant, others in SYNONYMS.items() if lower in others]
    for meant in meanings:
        outer, _, inner = meant.rpartition(".")
        if meant in valid or outer in valid:  # what lies within another key is named with it, as data.root
            return meant
        if outer and inner in valid:
            return inner
    close = get_close_matches(lower[:100], by_case, n=1)
    return by_case[close[0]] if close else None


def several(names: Sequence[str], most: int = 3) -> str:
    """Return a list of names for a message: the first few, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
