"""What changes from epoch to epoch: the learning rate and the phase. Epochs count from 0."""

import math
from typing import Literal

from csa_core.config import RunConfig

Phase = Literal["single", "warmup", "context_shift", "plain"]


def learning_rate(config: RunConfig, epoch: int) -> float:
    """Return the learning rate: a linear rise over the first epochs, then drops to tenths, or half a cosine."""
    rise = min(1.0, (epoch + 1) / config.lr_warmup_epochs) if config.lr_warmup_epochs else 1.0
    if config.lr_schedule == "cosine":
        return config.lr * rise * (1 + math.cos(math.pi * epoch / config.epochs)) / 2
    return config.lr * rise * 0.1 ** sum(epoch >= drop for drop in config.lr_drops)


def phase(config: RunConfig, epoch: int) -> Phase:
    """Return what the step does: one branch; uniform branch alone; both; both without the shift."""
    if config.method != "csa":
        return "single"
    if epoch < config.warmup_epochs:
        return "warmup"
    return "plain" if epoch >= config.epochs - config.plain_epochs else "context_shift"
