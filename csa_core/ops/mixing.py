"""Two images made one: mixup, the labels of Remix, and the box of CutMix that CMO pastes."""

import numpy as np
from torch import Tensor, arange, device, float32, lerp, tensor, where


def mixup(images_bchw: Tensor, others_bchw: Tensor, share: Tensor) -> Tensor:
    """Return share * image + (1 - share) * other (Zhang et al., 2018); share is a scalar in [0, 1] (lambda)."""
    return lerp(others_bchw, images_bchw, share)


def class_sizes(class_counts: np.ndarray, place: device) -> Tensor:
    """Return the training images of each class, (K,) float32, on a device."""
    return tensor(class_counts, dtype=float32, device=place)


def remix_share(share: Tensor, counts_b: Tensor, other_counts_b: Tensor, ratio: float, limit: float) -> Tensor:
    """Return what the first label of each mixed image counts, (B,) (Remix; Chou et al., 2020).

    0 where its class has `ratio` times (kappa) the images of the other's and its share is below `limit` (tau),
    1 where it is the other way round, and else its share of the pixels.

    Args:
        share: of the first image, a scalar (lambda).
        counts_b: training images of the class of each first label, (B,) float32; other_counts_b: of the second.
    """
    yields = (counts_b >= ratio * other_counts_b) & (share < limit)
    wins = (other_counts_b >= ratio * counts_b) & (1 - share < limit)
    return share.expand_as(counts_b).masked_fill(yields, 0).masked_fill(wins, 1)


def inside(box_n4: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which pixels lie in each box, (N, 1, H, W) bool.

    Args:
        box_n4: top, bottom, left, right in pixels, (N, 4) int64; bottom and right are the first beyond it.
    """
    top, bottom, left, right = box_n4[:, :, None].unbind(1)
    rows, columns = (arange(length, device=box_n4.device) for length in size)
    is_row, is_column = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return (is_row[:, :, None] & is_column[:, None, :])[:, None]


def paste(images_bchw: Tensor, others_bchw: Tensor, box_4: Tensor) -> Tensor:
    """Return images with one box, the same for all, taken from the others (CutMix; Yun et al., 2019)."""
    return where(inside(box_4[None], (images_bchw.shape[2], images_bchw.shape[3])), others_bchw, images_bchw)
