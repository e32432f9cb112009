"""The closed-form maps against autograd, the grad-cam package, and NumPy."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import csa_core.vision  # noqa: F401 - declares what grad-cam's own import of torchvision needs
from csa_core.models.resnet import Network, make_network
from csa_core.ops.activation_map import activation_map, background_mask, object_map

LABELS = torch.tensor([0, 3, 2, 1, 3, 0])


@pytest.fixture(scope="module", params=["resnet20", "resnet10", "resnet50"])
def network(request: pytest.FixtureRequest) -> Network:
    return make_network(request.param, ("uniform",), 4, seed=3).double().eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(6, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def closed_form(network: Network, images: Tensor, kind: str) -> Tensor:
    with torch.no_grad():
        return activation_map(network.body(images), network.weight("uniform"), LABELS, kind)


def test_gradcam_equals_autograd(network: Network, images: Tensor) -> None:
    features = network.body(images)
    score = network.head("uniform", features).gather(1, LABELS[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, features)
    by_hand = (gradient.mean((2, 3), keepdim=True) * features).sum(1).relu().detach()
    height, width = features.shape[2:]
    # Autograd's map carries the factor 1 / (H W) of global average pooling.
    torch.testing.assert_close(closed_form(network, images, "gradcam"), by_hand * height * width, rtol=1e-5, atol=1e-12)


def test_gradcam_equals_the_grad_cam_package(network: Network, images: Tensor) -> None:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    class OneHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x)["uniform"]

    targets = [ClassifierOutputTarget(int(label)) for label in LABELS]
    with GradCAM(model=OneHead(), target_layers=[network.body]) as cam:
        cam(input_tensor=images, targets=targets)
        features, gradients = (
            part[0].numpy() for part in (cam.activations_and_grads.activations, cam.activations_and_grads.gradients)
        )
        theirs = cam.get_cam_image(images, network.body, targets, features, gradients, eigen_smooth=False)
    theirs = np.maximum(theirs, 0)
    ours = closed_form(network, images, "gradcam").numpy()
    assert (ours.max((1, 2)) > 0).sum() >= 3, "maps without a positive part would compare nothing"
    for mine, other in zip(ours, theirs, strict=True):
        scale = max(mine.max(), 1e-12), max(other.max(), 1e-12)
        np.testing.assert_allclose(mine / scale[0], other / scale[1], rtol=1e-5, atol=1e-7)


def test_cam_is_the_weighted_sum(network: Network, images: Tensor) -> None:
    features = network.body(images).detach().numpy()
    weight = network.weight("uniform").detach().numpy()
    for i, label in enumerate(LABELS):
        by_hand = sum(weight[label, c] * features[i, c] for c in range(features.shape[1]))
        np.testing.assert_allclose(closed_form(network, images, "cam")[i].numpy(), by_hand, rtol=1e-9, atol=1e-12)


def test_gradcam_is_cam_without_its_negative_part(network: Network, images: Tensor) -> None:
    cam = closed_form(network, images, "cam")
    assert (cam < 0).any(), "nothing to clip: the test would show nothing"
    assert torch.equal(closed_form(network, images, "gradcam"), cam.clamp(min=0))


def test_object_map_spans_zero_to_one_and_enlarges_bicubically() -> None:
    activation = torch.rand(5, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 7 - 3
    objects = object_map(activation, (32, 24))
    assert objects.shape == (5, 1, 32, 24)
    assert objects.min() >= 0 and objects.max() <= 1
    low, high = activation.flatten(1).min(1).values, activation.flatten(1).max(1).values
    scaled = (activation - low[:, None, None]) / (high - low)[:, None, None]
    wanted = nn.functional.interpolate(scaled[:, None], size=(32, 24), mode="bicubic").clamp(0, 1)
    torch.testing.assert_close(objects, wanted)


@pytest.mark.parametrize("value", [0.0, 3.5, -2.0])
def test_a_flat_map_shows_no_object(value: float) -> None:
    objects = object_map(torch.full((2, 8, 8), value), (32, 32))
    assert torch.equal(objects, torch.zeros(2, 1, 32, 32))
    assert torch.equal(background_mask(objects, 2.0), torch.ones(2, 1, 32, 32))


def test_background_is_bright_where_the_object_is_not() -> None:
    activation = torch.zeros(1, 8, 8)
    activation[0, 2:5, 2:5] = 1
    mask = background_mask(object_map(activation, (32, 32)), 2.0)[0, 0]
    assert mask[14, 14] < 0.01 < 0.99 < mask[30, 30]
