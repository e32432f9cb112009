"""What became of the context shift: refused where there is none, said where there is little.

The history counts what happened: the steps of each epoch, those that trained the re-sampling head
and those with context shift. That is the proof of training, and it is in every checkpoint.
"""

from typing import Any

from csa_core import models
from csa_core.errors import UserError
from csa_core.methods.base import Row


def check_possible(config: Any, images: int, size: tuple[int, int]) -> None:
    """See, before training, that enough images pass by the bank, and that the network sees where on them something is.

    Args:
        images: of the long-tailed training set; each step brings `batch_size` of them to the bank.
        size: height and width of an image.

    Raises:
        UserError: the bank cannot come to hold as many as it is drawn from, or a feature map is a single place.
    """
    if config.activation_map != "box" and max(size) <= models.reduction(config.model):
        raise UserError(
            f"model: {config.model} reduces images of {size[0]} x {size[1]} px to a single place, so there is no "
            "background to find; use resnet32 or resnet18_cifar, larger images, or activation_map: box"
        )
    if config.bank_start == "batch":
        return
    steps = -(-images // config.batch_size)
    if config.bank_reset == "never":
        steps *= config.epochs - config.plain_epochs
    if config.bank_batches > steps:
        often = "at each epoch" if config.bank_reset == "epoch" else "once"
        raise UserError(
            f"bank_batches {config.bank_batches}: the bank is emptied {often} and sees at most {steps} batches from "
            f"then on, so it never fills and no image is shifted; use at most {steps}, or bank_start: batch"
        )


def check(config: Any, history: list[Row]) -> None:
    """See that what had to be trained by now has been.

    Args:
        history: rows of all epochs so far; rows of an older version lack the counts and are not judged.

    Raises:
        UserError: the phase of context shift is over and no step had it, or nothing trained the head
            that predicts.
    """
    is_over = len(history) >= config.epochs - config.plain_epochs
    if config.bank_batches and is_over and not any(row.get("shifted", 1) for row in history):
        needs = "filled" if config.bank_start == "full" else "held a batch"
        raise UserError(
            f"the bank never {needs} (threshold {config.threshold:g}, bank_batches {config.bank_batches}, bank_reset "
            f"{config.bank_reset}), so no step had context shift; {_remedy(config)}"
        )
    if len(history) >= config.epochs and not any(row.get("resampling_steps", 1) for row in history):
        raise UserError("the re-sampling head, which predicts, was trained in no step; lower warmup_epochs")


def counts(history: list[Row]) -> dict[str, int]:
    """Return the steps with context shift and those of its phase, empty where the history does not count them."""
    if not history or not all("shifted" in row and "steps" in row for row in history):
        return {}
    return {
        "shifted_steps": sum(row["shifted"] for row in history),
        "context_shift_steps": sum(row["steps"] for row in history if row["phase"] == "context_shift"),
    }


def remark(config: Any, history: list[Row]) -> str | None:
    """Return a line for a person where under half of the steps that should have shifted did."""
    counted = counts(history)
    if not config.bank_batches or not counted or 2 * counted["shifted_steps"] >= counted["context_shift_steps"]:
        return None
    shifted, all_of_phase = counted.values()
    return f"note: {shifted:,} of {all_of_phase:,} steps of the context-shift phase shifted; {_remedy(config)}"


def _remedy(config: Any) -> str:
    if config.bank_start == "batch" or config.bank_batches == 1:
        return "lower threshold"
    return "lower threshold or bank_batches, or use bank_start: batch"
