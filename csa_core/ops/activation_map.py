"""Where the object is: class activation maps in closed form, and the background mask they give.

For global average pooling followed by a linear head, d z_y / d features is w_y / (H W) at every
place, so Grad-CAM is ReLU(sum_c w_yc A_c) up to a positive factor and CAM is the same without the
ReLU: no backward pass, no hook. A network with another head would need Grad-CAM by autograd.
"""

from torch import Tensor
from torch.nn.functional import interpolate


def activation_map(features_bchw: Tensor, weight_kc: Tensor, labels_b: Tensor, kind: str) -> Tensor:
    """Return the activation map of each image's class, (B, H, W), up to a positive factor.

    Args:
        features_bchw: last feature maps, before pooling.
        weight_kc: weight of the linear head, a row a class.
        labels_b: the class whose map is drawn.
        kind: "gradcam" (with ReLU) or "cam" (without); Table 5 compares the two.
    """
    activation = (features_bchw * weight_kc[labels_b][:, :, None, None]).sum(1)
    return activation.relu() if kind == "gradcam" else activation


def object_map(activation_bhw: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale each map to [0, 1] and enlarge it bicubically to `size`: (B, 1, height, width).

    A map that is equal everywhere tells nothing of an object and becomes all zero.
    """
    lowest = activation_bhw.amin((1, 2), keepdim=True)
    spread = activation_bhw.amax((1, 2), keepdim=True) - lowest
    scaled = (activation_bhw - lowest) / spread.masked_fill(spread == 0, 1)
    return interpolate(scaled[:, None], size=size, mode="bicubic", align_corners=False).clamp_(0, 1)


def background_mask(object_b1hw: Tensor, exponent: float) -> Tensor:
    """Return the background mask M = (1 - object map) ** exponent, in [0, 1] (line 12)."""
    return (1 - object_b1hw) ** exponent
