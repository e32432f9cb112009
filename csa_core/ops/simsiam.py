"""SimSiam (Chen and He, 2021): two views of an image predict each other; no negatives, no second network."""

from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize


def symmetric_loss(
    first_prediction_bd: Tensor, second_prediction_bd: Tensor, first_bd: Tensor, second_bd: Tensor
) -> Tensor:
    """Return the loss of each image, (B,): D(p1, stop z2) / 2 + D(p2, stop z1) / 2, D = -cosine (equations 1, 3, 4).

    Args:
        first_prediction_bd, second_prediction_bd: outputs of the predictor for either view.
        first_bd, second_bd: outputs of the projector; no gradient flows into them.
    """
    one = cosine_similarity(first_prediction_bd, second_bd.detach(), dim=1)
    other = cosine_similarity(second_prediction_bd, first_bd.detach(), dim=1)
    return -(one + other) / 2


def output_spread(projected_bd: Tensor) -> Tensor:
    """Return the standard deviation of normalised outputs, averaged over channels: the collapse monitor.

    About 1 / sqrt(d) where outputs spread over the sphere, 0 where all images have the same one.
    """
    return normalize(projected_bd.detach(), dim=1).std(0).mean()
