"""CIFAR ResNets (He et al., 2016, section 4.2): 6 n + 2 layers, 16-32-64 channels, option-A shortcuts.

And ResNet-18 as CIFAR-10 is pre-trained with: torchvision's, with a 3 x 3 stem and no max pooling.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

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
        out = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        if self.new_channels:
            # Option A: every second pixel, and zeros for the channels that the input lacks.
            half = self.new_channels // 2
            x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
        return relu(out + x)


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
        return self.blocks(relu(self.bn(self.conv(x))))


class ResNet18(nn.Module):
    """torchvision's ResNet-18 as a body for small images: (B, 3, H, W) to (B, 512, H / 8, W / 8)."""

    features = 512
    """Channels of the feature maps."""

    def __init__(self) -> None:
        super().__init__()
        from csa_core.vision import torchvision  # slow to import, and only this needs it

        whole = torchvision.models.resnet18()
        self.conv = nn.Conv2d(3, 64, 3, 1, 1, bias=False).apply(_initialise)
        self.bn = whole.bn1
        self.layers = nn.Sequential(whole.layer1, whole.layer2, whole.layer3, whole.layer4)

    def forward(self, x: Tensor) -> Tensor:
        """Return the last feature maps."""
        return self.layers(relu(self.bn(self.conv(x))))


def make_body(model: str) -> ResNet | ResNet18:
    """Build the body that `model` names."""
    return ResNet18() if model == "resnet18_cifar" else ResNet(DEPTHS[model]).apply(_initialise)


class Network(nn.Module):
    """A body and one linear head a branch, all on the same pooled features.

    The heads are called `single` (one-branch methods), or `uniform` (f_u) and `resampling` (f_b).
    """

    def __init__(self, model: str, heads: tuple[str, ...], classes: int) -> None:
        super().__init__()
        # The body first: methods with one head and with two then start from the same body.
        self.body = make_body(model)
        width = self.body.features
        self.heads = nn.ModuleDict({name: nn.Linear(width, classes).apply(_initialise) for name in heads})

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


def make_network(model: str, heads: tuple[str, ...], classes: int, seed: int) -> Network:
    """Build a network whose initial weights depend on `seed` alone, and touch no global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Network(model, heads, classes)


def _initialise(module: nn.Module) -> None:
    """Draw Kaiming-normal weights for a convolution or linear layer."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
