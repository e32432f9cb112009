"""Losses of a branch: (logits (B, K), labels (B,)) -> scalar mean.

Each takes `weight` (K,) and `reduction` as torch's own cross-entropy does. With weights "mean" is
torch's: the weighted losses over the sum of the weights of the batch's labels, as in the released
code of DRW, and not over the number of images.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

Loss = Callable[..., Tensor]


def logit_adjusted(logits_bk: Tensor, labels_b: Tensor, *, log_prior_k: Tensor, strength: float, **how: Any) -> Tensor:
    """Return cross-entropy(z + tau log pi, y) (Menon et al., 2021; section C.6).

    At tau 1 it is the balanced softmax (Ren et al., 2020): log n and log pi differ by a constant.
    """
    return cross_entropy(logits_bk + strength * log_prior_k, labels_b, **how)


def focal(
    logits_bk: Tensor, labels_b: Tensor, *, exponent: float, weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Return the focal loss (1 - p_y)^g (-log p_y) in its softmax form (Lin et al., 2017).

    Weights multiply it. The code released with LDAM takes p from the weighted cross-entropy, p_y^w, which is
    the probability of nothing; here p is the network's.
    """
    plain = cross_entropy(logits_bk, labels_b, reduction="none")
    # 1 - p without cancellation; an exponent below 1 has no gradient at 0.
    each = (-torch.expm1(-plain)).clamp(min=1e-12) ** exponent * plain
    if weight is not None:
        each = weight[labels_b] * each
    if reduction == "none":
        return each
    return each.mean() if weight is None else each.sum() / weight[labels_b].sum()


def vector_scaled(
    logits_bk: Tensor, labels_b: Tensor, *, scale_k: Tensor, log_prior_k: Tensor, strength: float, **how: Any
) -> Tensor:
    """Return cross-entropy(z_k / (n_max / n_k)^g + tau log pi_k, y) (VS; Kini et al., 2021).

    At tau 0 these are the class-dependent temperatures of CDT (Ye et al., 2020), at g 0 it is logit adjustment.
    """
    return cross_entropy(logits_bk / scale_k + strength * log_prior_k, labels_b, **how)


def with_margins(logits_bk: Tensor, labels_b: Tensor, *, margin_k: Tensor, **how: Any) -> Tensor:
    """Return cross-entropy after the logit of an image's own class has been lowered by the margin of that class.

    LDAM (Cao et al., 2019): of logits s cos, with margins s Delta_k, Delta_k = m (n_min / n_k)^(1/4).
    """
    is_own = labels_b[:, None] == torch.arange(len(margin_k), device=labels_b.device)
    return cross_entropy(logits_bk - margin_k * is_own, labels_b, **how)


def log_prior(class_counts: np.ndarray, device: torch.device) -> Tensor:
    """Return log pi, (K,) float32: the class frequencies of the long-tailed training set."""
    return torch.tensor(np.log(class_counts / class_counts.sum()), dtype=torch.float32, device=device)


def effective_number_weights(class_counts: np.ndarray, beta: float, device: torch.device) -> Tensor:
    """Return class weights (1 - beta) / (1 - beta^n_k), scaled to a sum of K; (K,) float32 (Cui et al., 2019)."""
    # expm1 keeps digits where beta is near 1; beta 0 weighs all classes alike.
    effective = -np.expm1(class_counts * np.log(beta)) if beta else np.ones(len(class_counts))
    weights = 1 / effective
    return torch.tensor(weights * len(weights) / weights.sum(), dtype=torch.float32, device=device)


def _logit_adjustment(_: np.ndarray, seen: np.ndarray, device: torch.device, keys: Any) -> Loss:
    return partial(logit_adjusted, log_prior_k=log_prior(seen, device), strength=keys.logit_adjustment_strength)


def _vs(class_counts: np.ndarray, seen: np.ndarray, device: torch.device, keys: Any) -> Loss:
    scale = torch.tensor((class_counts.max() / class_counts) ** keys.vs_exponent, dtype=torch.float32, device=device)
    strength = keys.logit_adjustment_strength
    return partial(vector_scaled, scale_k=scale, log_prior_k=log_prior(seen, device), strength=strength)


def _ldam(class_counts: np.ndarray, _: np.ndarray, device: torch.device, keys: Any) -> Loss:
    margins = keys.ldam_scale * keys.ldam_margin * (class_counts.min() / class_counts) ** 0.25
    return partial(with_margins, margin_k=torch.tensor(margins, dtype=torch.float32, device=device))


LOSSES: dict[str, Callable[[np.ndarray, np.ndarray, torch.device, Any], Loss]] = {
    "cross_entropy": lambda *_: cross_entropy,
    "logit_adjustment": _logit_adjustment,
    "focal": lambda class_counts, seen, device, keys: partial(focal, exponent=keys.focal_exponent),
    "vs": _vs,
    "ldam": _ldam,
}


def make_loss(
    name: str, class_counts: np.ndarray, device: torch.device, keys: Any, seen: np.ndarray | None = None
) -> Loss:
    """Return a loss of (logits, labels) for one data set.

    Args:
        class_counts: images of each class, (K,).
        keys: configuration with the keys of the loss (`csa_core.methods.keys.OF_LOSS`).
        seen: numbers in proportion to how often each class is seen, (K,), for its log prior; None is `class_counts`.
    """
    return LOSSES[name](class_counts, class_counts if seen is None else seen, device, keys)
