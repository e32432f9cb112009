"""Label-aware smoothing (Zhong et al., 2021, section 3.3): labels of large classes are smoothed more."""

from functools import partial

import numpy as np
import torch
from torch import Tensor


def smoothing(class_counts_k: np.ndarray, head: float, tail: float) -> np.ndarray:
    """Return the share of its label that each class gives to the others, (K,): from tail to head, along a sine."""
    smallest, largest = class_counts_k.min(), class_counts_k.max()
    place = (class_counts_k - smallest) / max(largest - smallest, 1)
    return np.asarray(tail + (head - tail) * np.sin(np.pi / 2 * place))


def smoothed_cross_entropy(logits_bk: Tensor, labels_b: Tensor, smoothing_k: Tensor) -> Tensor:
    """Return the mean of -sum_i q_i log p_i: q is 1 - s_y at the label y, and s_y / (K - 1) at each other class."""
    log_p = logits_bk.log_softmax(1)
    at_label = log_p.gather(1, labels_b[:, None])[:, 0]
    elsewhere = (log_p.sum(1) - at_label) / (logits_bk.shape[1] - 1)
    share = smoothing_k[labels_b]
    return -((1 - share) * at_label + share * elsewhere).mean()


def label_aware_loss(class_counts_k: np.ndarray, head: float, tail: float, device: torch.device) -> "partial[Tensor]":
    """Return the loss of (logits, labels) for one data set."""
    shares = torch.tensor(smoothing(class_counts_k, head, tail), dtype=torch.float32, device=device)
    return partial(smoothed_cross_entropy, smoothing_k=shares)
