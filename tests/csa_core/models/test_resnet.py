"""The CIFAR ResNets against the paper that defines them."""

import pytest
import torch
from torch.nn import functional as F

from csa_core.models.resnet import BasicBlock, make_body, make_network
from csa_core.vision import torchvision


@pytest.mark.parametrize(
    ("model", "millions"), [("resnet20", 0.27), ("resnet32", 0.46), ("resnet44", 0.66), ("resnet56", 0.85)]
)
def test_parameters_as_he_et_al_print_them(model: str, millions: float) -> None:
    network = make_network(model, ("single",), 10, seed=0)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions


def test_layers_are_as_many_as_the_name_says() -> None:
    for model in ("resnet8", "resnet20", "resnet32", "resnet44", "resnet56"):
        modules = list(make_network(model, ("single",), 10, seed=0).modules())
        assert sum(isinstance(m, torch.nn.Conv2d | torch.nn.Linear) for m in modules) == int(model[6:])


@pytest.mark.parametrize(("model", "theirs"), [("resnet50", "resnet50"), ("resnet10", "resnet18")])
def test_imagenet_bodies_are_torchvisions_without_the_classifier(model: str, theirs: str) -> None:
    body, whole = make_body(model), getattr(torchvision.models, theirs)()
    if model == "resnet10":  # ResNet-18 with one block a stage
        for stage in (whole.layer1, whole.layer2, whole.layer3, whole.layer4):
            del stage[1]
    layers = sum(isinstance(m, torch.nn.Conv2d) and m.kernel_size != (1, 1) for m in body.modules())
    assert layers + 1 == {"resnet10": 10, "resnet50": 50 - 2 * 16}[model], "50 layers, of which 32 are 1 x 1"
    names = {"conv1": "stem.0", "bn1": "stem.1"}
    state = {}
    for name, tensor in whole.state_dict().items():
        first, _, rest = name.partition(".")
        if first != "fc":
            ours = names.get(first) or f"layers.{int(first[-1]) - 1}"
            state[f"{ours}.{rest}"] = tensor
    body.load_state_dict(state)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = body.eval()(x)
        torch.testing.assert_close(whole.eval().fc(features.mean((2, 3))), whole(x))
    assert features.shape == (2, body.features, 2, 2)


def test_feature_maps_are_a_quarter_of_the_image() -> None:
    network = make_network("resnet8", ("uniform", "resampling"), 5, seed=0)
    assert network.body(torch.zeros(2, 3, 32, 24)).shape == (2, 64, 8, 6)
    assert {name: z.shape for name, z in network(torch.zeros(2, 3, 32, 24)).items()} == {
        "uniform": (2, 5),
        "resampling": (2, 5),
    }


def test_shortcut_takes_every_second_pixel_and_pads_channels_with_zeros() -> None:
    block = BasicBlock(4, 8, stride=2).eval()
    torch.nn.init.zeros_(block.bn2.weight)  # only the shortcut is left
    x = torch.rand(2, 4, 6, 6)
    out = block(x)
    assert torch.equal(out[:, 2:6], x[:, :, ::2, ::2])
    assert not out[:, :2].any() and not out[:, 6:].any()


def test_initial_weights_are_kaiming_normal() -> None:
    network = make_network("resnet32", ("single",), 100, seed=0)
    weight = network.body.get_parameter("blocks.14.conv2.weight")
    assert abs(float(weight.detach().std()) - (2 / (64 * 9)) ** 0.5) < 0.002
    assert abs(float(network.weight("single").detach().std()) - (2 / 64) ** 0.5) < 0.01


def test_methods_start_from_the_same_body_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one = make_network("resnet8", ("single",), 10, seed=5)
    two = make_network("resnet8", ("uniform", "resampling"), 10, seed=5)
    other = make_network("resnet8", ("single",), 10, seed=6)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(one.body.state_dict().values(), two.body.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(one.weight("single"), two.weight("uniform"))
    assert not torch.equal(one.weight("single"), other.weight("single"))


def test_a_block_equals_its_formula() -> None:
    block = BasicBlock(4, 4, stride=1).double().train()
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)

    def normalised(y: torch.Tensor) -> torch.Tensor:
        mean, variance = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), keepdim=True, unbiased=False)
        return (y - mean) / (variance + 1e-5).sqrt()

    hidden = normalised(F.conv2d(x, block.conv1.weight, padding=1)).clamp(min=0)
    wanted = (normalised(F.conv2d(hidden, block.conv2.weight, padding=1)) + x).clamp(min=0)
    torch.testing.assert_close(block(x), wanted)


def test_resnet18_is_torchvisions_behind_a_small_stem() -> None:
    from csa_core.vision import torchvision

    body = make_body("resnet18_cifar").eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert body(x).shape == (2, 512, 4, 4)
    whole = torchvision.models.resnet18()
    parameters = sum(p.numel() for p in whole.parameters()) - sum(p.numel() for p in whole.fc.parameters())
    assert sum(p.numel() for p in body.parameters()) == parameters - 64 * 3 * (7 * 7 - 3 * 3)
