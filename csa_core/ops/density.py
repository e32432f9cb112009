"""Weights by inverse density (Liu et al., 2022): what has few neighbours among the features counts more."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

CHUNK = 1024
MEDIAN_OVER = 4096


def density_weights(features_nc: Tensor, exponent: float) -> Tensor:
    """Return w_j = (mean_k K_h(f_j, f_k)) ** -alpha, scaled to a mean of 1; (N,) float32.

    K_h is the Gaussian kernel exp(-|f_j - f_k|^2 / (2 h^2)) on features of length 1, k over all
    images, j among them; h is the median distance between two of them.
    """
    features = normalize(features_nc.double(), dim=1)
    bandwidth = median_distance(features)
    density = torch.cat(
        [(torch.cdist(part, features).square() / (-2 * bandwidth**2)).exp().mean(1) for part in features.split(CHUNK)]
    )
    weights = density**-exponent
    return (weights / weights.mean()).float()


def median_distance(features_nc: Tensor) -> Tensor:
    """Return the median distance between two different images, a scalar.

    Of more than 4,096 images, that many are taken at equal steps: the split lists images by class,
    so each class keeps its share.
    """
    count = len(features_nc)
    if count > MEDIAN_OVER:
        features_nc = features_nc[torch.linspace(0, count - 1, MEDIAN_OVER, device=features_nc.device).long()]
    return torch.pdist(features_nc).median().clamp(min=1e-12)
