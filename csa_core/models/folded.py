"""Batch norm folded into the convolutions: what a trained network needs to predict, and no more."""

from copy import deepcopy
from itertools import pairwise
from typing import TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

Module = TypeVar("Module", bound=nn.Module)


def folded(network: Module) -> Module:
    """Return a copy in eval mode whose batch norms are part of the convolutions before them.

    In eval mode batch norm is a scale and a shift for each channel, which the convolution can do
    with its own weights: the same function up to rounding, without a pass over the activations.
    Each batch norm must be registered right behind its convolution, as in all networks here.
    """
    network = deepcopy(network).eval()
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | _BatchNorm)]
    for (name, convolution), (next_name, norm) in pairwise(layers):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, _BatchNorm):  # of ranks, too
            network.set_submodule(name, fuse_conv_bn_eval(convolution, norm))
            network.set_submodule(next_name, nn.Identity())
    return network
