"""Context shift: a re-sampled image takes over the background of another (line 22)."""

import torch
from torch import Tensor


def context_shift(images_bchw: Tensor, contexts_bchw: Tensor, masks_b1hw: Tensor, mix: Tensor) -> Tensor:
    """Return lambda M * context + (1 - lambda M) * image, pixel by pixel.

    Args:
        images_bchw: re-sampled images, normalised.
        contexts_bchw: images from the bank, normalised.
        masks_b1hw: background masks of the contexts, in [0, 1].
        mix: lambda, a scalar in [0, 1].
    """
    return torch.lerp(images_bchw, contexts_bchw, mix * masks_b1hw)
