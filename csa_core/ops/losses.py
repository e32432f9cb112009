"""Losses of a branch: (logits (B, K), labels (B,), log_prior (K,)) -> scalar mean."""

from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def plain_cross_entropy(logits_bk: Tensor, labels_b: Tensor, log_prior_k: Tensor, strength: float) -> Tensor:
    """Return the mean cross-entropy; the prior is not used."""
    return cross_entropy(logits_bk, labels_b)


def logit_adjusted(logits_bk: Tensor, labels_b: Tensor, log_prior_k: Tensor, strength: float) -> Tensor:
    """Return cross-entropy(z + tau log pi, y) (Menon et al., 2021; section C.6)."""
    return cross_entropy(logits_bk + strength * log_prior_k, labels_b)


def log_prior(class_counts: np.ndarray, device: torch.device) -> Tensor:
    """Return log pi, (K,) float32: the class frequencies of the long-tailed training set."""
    return torch.tensor(np.log(class_counts / class_counts.sum()), dtype=torch.float32, device=device)


LOSSES = {"cross_entropy": plain_cross_entropy, "logit_adjustment": logit_adjusted}


def make_loss(name: str, prior: Tensor, strength: float = 1.0) -> "partial[Tensor]":
    """Return a loss of (logits, labels) for one data set."""
    return partial(LOSSES[name], log_prior_k=prior, strength=strength)
