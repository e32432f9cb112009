"""What a network does not do for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Compute with running statistics and without gradients, then train on."""
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train()


@contextmanager
def statistics_at_rest(network: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch norm as they are, whatever passes through."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
