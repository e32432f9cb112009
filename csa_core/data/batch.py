"""What one step trains on, and the normalisation that every image goes through."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Labelled = tuple[Tensor, Tensor]
"""Images, (B, 3, H, W) normalised float32 in channels-last memory, and labels, (B,) int64."""


@dataclass(frozen=True)
class Batch:
    """One step's slice of the plan, its images made; a stream that the step does not read is None."""

    uniform: Labelled | None
    resampled: Labelled | None
    slot: Tensor
    """(B,) or (V,) int64: places in the bank (line 19), of the whole batch on every rank; see `EpochPlan`."""
    mix: Tensor
    """The mixing weight, a scalar (lambda, line 20)."""


class Normaliser:
    """Turn uint8 pixels into normalised float32: (pixel / 255 - mean) / std, channel by channel."""

    def __init__(self, mean_std: tuple[np.ndarray, np.ndarray], device: torch.device) -> None:
        mean, std = mean_std
        self.scale = torch.tensor(1 / (255 * std), dtype=torch.float32, device=device)
        self.shift = torch.tensor(-mean / std, dtype=torch.float32, device=device)

    def __call__(self, pixels_bhwc: Tensor) -> Tensor:
        """Return (B, 3, H, W) in channels-last memory from (B, H, W, 3) uint8."""
        return pixels_bhwc.float().mul_(self.scale).add_(self.shift).permute(0, 3, 1, 2)

    def undo(self, images_bchw: Tensor) -> Tensor:
        """Return images in [0, 1] for a person to look at."""
        return ((images_bchw - self.shift.view(-1, 1, 1)) / (255 * self.scale.view(-1, 1, 1))).clamp(0, 1)
