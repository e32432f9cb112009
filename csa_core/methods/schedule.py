"""The learning rate from epoch to epoch. Epochs count from 0."""

import math

from csa_core.config import Supervised


def learning_rate(config: Supervised, epoch: int) -> float:
    """Return the learning rate: a linear rise over the first epochs, then drops to tenths, or half a cosine."""
    rise = min(1.0, (epoch + 1) / config.lr_warmup_epochs) if config.lr_warmup_epochs else 1.0
    if config.lr_schedule == "cosine":
        return config.lr * rise * (1 + math.cos(math.pi * epoch / config.epochs)) / 2
    return config.lr * rise * 0.1 ** sum(epoch >= drop for drop in config.lr_drops)
