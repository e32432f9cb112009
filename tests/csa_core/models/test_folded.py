"""Folding batch norm away changes how a network computes, and not what."""

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from csa_core.models.folded import folded
from csa_core.models.resnet import make_network


@pytest.mark.parametrize("model", ["resnet8", "resnet32", "resnet10", "resnet50", "resnet18_cifar", "of ranks"])
def test_a_folded_network_is_the_same_function(model: str) -> None:
    network = make_network("resnet8" if model == "of ranks" else model, ("uniform", "resampling"), 7, seed=0)
    if model == "of ranks":
        network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    generator = torch.Generator().manual_seed(1)
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:  # as training leaves them: neither 0 nor 1
        norm.running_mean = torch.randn(norm.num_features, generator=generator) / 4
        norm.running_var = torch.rand(norm.num_features, generator=generator) + 0.5
        torch.nn.init.uniform_(norm.weight, 0.5, 1, generator=generator)
        torch.nn.init.uniform_(norm.bias, -0.5, 0.5, generator=generator)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    ready, images = folded(network).double(), torch.randn(3, 3, 64, 64, generator=generator).double()
    assert network.training and not ready.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(isinstance(module, _BatchNorm) for module in ready.modules())
    wanted = network.double().eval()(images)
    for head, logits in ready(images).items():
        torch.testing.assert_close(logits, wanted[head], rtol=1e-4, atol=1e-4)
        assert wanted[head].std() > 1e-2, "the comparison has something to compare"
