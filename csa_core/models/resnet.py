"""CIFAR ResNets (He et al., 2016, section 4.2): 6 n + 2 layers, 16-32-64 channels, option-A shortcuts.

Beside them torchvision's: ResNet-10 and ResNet-50 for ImageNet-LT, and ResNet-18 for the pre-training on CIFAR-10.
ReLU works in place: the backward pass reads its output alone, and a pass over memory is saved.
"""

from typing import Any

import torch
from torch import Tensor, nn, relu_
from torch.nn.functional import linear, normalize, pad

# ResNet-10 is ResNet-18 with one block a stage.
TORCHVISION: dict[str, Any] = {
    "resnet10": {"block": "basic", "layers": [1, 1, 1, 1]},
    "resnet50": {"block": "bottleneck", "layers": [3, 4, 6, 3]},
    "resnet18_cifar": {"block": "basic", "layers": [2, 2, 2, 2], "small": True},
}
DEPTHS = {"resnet8": 1, "resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.new_channels = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        out = self.bn2(self.conv2(relu_(self.bn1(self.conv1(x)))))
        if self.new_channels:
            # Option A: every second pixel, and zeros for the channels that the input lacks.
            half = self.new_channels // 2
            x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
        return relu_(out + x)


class ResNet(nn.Module):
    """The body phi: images (B, 3, H, W) to feature maps (B, 64, H / 4, W / 4), before pooling."""

    features = 64
    """Channels of the feature maps."""

    def __init__(self, blocks_per_stage: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        stages = [(16, 16, 1), (16, 32, 2), (32, self.features, 2)]
        self.blocks = nn.Sequential(
            *(
                BasicBlock(inputs if i == 0 else outputs, outputs, stride if i == 0 else 1)
                for inputs, outputs, stride in stages
                for i in range(blocks_per_stage)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the last feature maps."""
        return self.blocks(relu_(self.bn(self.conv(x))))


class TorchvisionResNet(nn.Module):
    """torchvision's ResNet without its pooling and classifier: (B, 3, H, W) to feature maps (B, C, H / 32, W / 32).

    Global average pooling and linear heads follow here too, so Grad-CAM in closed form holds for it
    (see `csa_core.ops.activation_map`). `small` images get a 3 x 3 stem and no max pooling, and
    feature maps of H / 8.
    """

    def __init__(self, block: str, layers: list[int], small: bool = False) -> None:
        super().__init__()
        from csa_core.vision import torchvision  # slow to import, and only this needs it

        blocks = {"basic": torchvision.models.resnet.BasicBlock, "bottleneck": torchvision.models.resnet.Bottleneck}
        whole = torchvision.models.ResNet(blocks[block], layers)
        stem = [nn.Conv2d(3, 64, 3, 1, 1, bias=False).apply(_initialise)] if small else [whole.conv1]
        stem += [whole.bn1, nn.ReLU(inplace=True)] if small else [whole.bn1, nn.ReLU(inplace=True), whole.maxpool]
        self.stem = nn.Sequential(*stem)
        self.layers = nn.Sequential(whole.layer1, whole.layer2, whole.layer3, whole.layer4)
        self.features = int(whole.fc.in_features)
        """Channels of the feature maps."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the last feature maps."""
        return self.layers(self.stem(x))


def reduction(model: str) -> int:
    """Return how many times lower and narrower than an image the last feature maps of a body are; they round up."""
    if model in DEPTHS:
        return 4
    return 8 if TORCHVISION[model].get("small") else 32


def make_body(model: str) -> ResNet | TorchvisionResNet:
    """Build the body that `model` names."""
    if model in DEPTHS:
        return ResNet(DEPTHS[model]).apply(_initialise)
    return TorchvisionResNet(**TORCHVISION[model])


class CosineHead(nn.Module):
    """A head without bias whose logits are `scale` times the cosine between feature and class weight (LDAM)."""

    def __init__(self, inputs: int, classes: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        # Of unit length, every direction as likely; the released code of LDAM draws them uniformly from a cube.
        self.weight = nn.Parameter(normalize(torch.randn(classes, inputs), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs) to (B, classes)."""
        return self.scale * linear(normalize(x, dim=1), normalize(self.weight, dim=1))


class ScaledLinear(nn.Module):
    """A linear head whose logits are each multiplied by a scale of their class, 1 at first."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.scale = nn.Parameter(torch.ones(linear.out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C) to logits (B, K)."""
        return self.scale * self.linear(x)


class Network(nn.Module):
    """A body and one linear head a branch, all on the same pooled features.

    The heads are called `single` (one-branch methods), or `uniform` (f_u) and `resampling` (f_b).
    With a `cosine_scale` they are cosine heads of that scale.
    """

    def __init__(self, model: str, heads: tuple[str, ...], classes: int, cosine_scale: float | None = None) -> None:
        super().__init__()
        # The body first: methods with one head and with two then start from the same body.
        self.body = make_body(model)
        width = self.body.features

        def head() -> nn.Module:
            if cosine_scale is not None:
                return CosineHead(width, classes, cosine_scale)
            return nn.Linear(width, classes).apply(_initialise)

        self.heads = nn.ModuleDict({name: head() for name in heads})

    def head(self, name: str, features_bchw: Tensor) -> Tensor:
        """Return the logits (B, K) of one head: global average pooling, then linear."""
        return self.heads[name](features_bchw.mean((2, 3)))

    def weight(self, name: str) -> Tensor:
        """Return the weight (K, C) of one head, a row a class."""
        return self.heads.get_parameter(f"{name}.weight")

    def forward(self, images_bchw: Tensor) -> dict[str, Tensor]:
        """Return the logits of every head, as evaluation needs them."""
        features = self.body(images_bchw)
        return {name: self.head(name, features) for name in self.heads}


def make_network(
    model: str, heads: tuple[str, ...], classes: int, seed: int, cosine_scale: float | None = None
) -> Network:
    """Build a network whose initial weights depend on `seed` alone, and touch no global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Network(model, heads, classes, cosine_scale)


def load_body(body: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a body the weights that a whole network's have under `body.`."""
    body.load_state_dict({k.removeprefix("body."): tensor for k, tensor in weights.items() if k.startswith("body.")})


def _initialise(module: nn.Module) -> None:
    """Draw Kaiming-normal weights for a convolution or linear layer."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
