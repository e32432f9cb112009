"""Context-shift augmentation in one file: Algorithm 1, a plain loop, and nothing else to read first.

    python examples/csa_minimal.py        # the demo data set, about half a minute on one CPU core

Written to be read, not to be fast: the bank is a list, Grad-CAM comes from autograd, and SGD is written
out. Only the demo's images come from the package. The tests compare csa_core's training step with
`csa_step` below, in float64, weight by weight.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, pad, relu

CLASSES, RATIO = 10, 50  # classes of 250 to 5 images
EPOCHS, DROPS, RISE, WARMUP, PLAIN = 30, (24, 27), 3, 3, 2
BATCH, LR, MOMENTUM, DECAY = 64, 0.1, 0.9, 2e-4
DELTA, VOLUME = 0.8, BATCH  # confidence of a context; images that the bank Q holds
CROP = 2  # pixels of padding


class Block(nn.Module):
    """Two convolutions and a shortcut without parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.new, self.stride = outputs - inputs, stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        x = x[:, :, :: self.stride, :: self.stride]
        return relu(y + pad(x, (0, 0, 0, 0, self.new // 2, self.new // 2)))


class Body(nn.Module):
    """ResNet-8: phi, images (B, 3, H, W) to features (B, 64, H / 4, W / 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Return the features before pooling."""
        return self.blocks(relu(self.bn(self.conv(x))))


class Network(nn.Module):
    """phi, and the two heads f_u and f_b on its pooled features."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.body = Body()
        self.heads = nn.ModuleDict({name: nn.Linear(64, classes) for name in ("uniform", "resampling")})
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight)

    def head(self, name: str, features: Tensor) -> Tensor:
        """Return logits, (B, K)."""
        return self.heads[name](features.mean((2, 3)))


def gradcam(features: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Return Grad-CAM of each image's class, (B, H', W')."""
    score = logits.gather(1, labels[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, features, retain_graph=True)
    return relu((gradient.mean((2, 3), keepdim=True) * features).sum(1)).detach()


def background(activation: Tensor, size: tuple[int, int], exponent: float = 2.0) -> Tensor:
    """Return the background mask M, (B, 1, H, W): 1 far from the object, 0 on it."""
    masks = []
    for cam in activation:
        cam = cam - cam.min()
        cam = cam / cam.max() if cam.max() > 0 else cam  # equal everywhere: no object
        masks.append((1 - interpolate(cam[None, None], size=size, mode="bicubic").clamp(0, 1)) ** exponent)
    return torch.cat(masks)


def csa_step(
    network: Network,
    bank: list[tuple[Tensor, Tensor]],
    uniform: tuple[Tensor, Tensor],
    resampled: tuple[Tensor, Tensor],
    slots: Tensor,
    mix: float,
    phase: str,
    delta: float = DELTA,
    volume: int = VOLUME,
    start: int = VOLUME,
    see: Callable[..., Tensor] = gradcam,
    exponent: float = 2.0,
    second_forward: bool = False,
    loss_u: Callable[..., Tensor] = cross_entropy,
    loss_b: Callable[..., Tensor] = cross_entropy,
) -> Tensor:
    """Return the loss of one step, lines 6 to 28; the bank takes up this step's contexts.

    Args:
        uniform, resampled: a batch of images and labels from either sampler (lines 6 and 7).
        slots: an order of the bank's places; the first that hold an image are drawn (line 19).
        mix: lambda (line 20).
        phase: warmup (uniform module alone), context_shift, or plain (no shift, the bank rests).
        volume, start: images that the bank holds, 0 is the method without it; and those from which it is drawn from.
        see, exponent, second_forward, loss_u, loss_b: the variants that the appendix compares.
    """
    images, labels = uniform
    features = network.body(images)  # line 9
    logits = network.head("uniform", features)  # line 10
    loss = loss_u(logits, labels)  # line 16
    has_bank = volume > 0 and phase != "plain"
    if has_bank:
        if second_forward:
            network.eval()
            features = network.body(images)
            logits = network.head("uniform", features)
            network.train()
        confidence = logits.softmax(1).gather(1, labels[:, None])[:, 0]  # line 11
        masks = background(see(features, logits, labels), (images.shape[2], images.shape[3]), exponent)  # line 12
        for image, mask, p in zip(images, masks, confidence, strict=True):
            if p >= delta:
                bank.append((image, mask))  # line 13: first in, first out
    if phase == "warmup" or (has_bank and len(bank) < start):  # line 18
        return loss
    images, labels = resampled
    if has_bank:
        # The bank is a ring of `volume` places: the newest image that fell on a place is there.
        held = {n % volume: bank[n] for n in range(max(0, len(bank) - volume), len(bank))}
        drawn = [held[slot] for slot in slots.tolist() if slot in held][: len(images)]  # line 19
        contexts = torch.stack([image for image, _ in drawn])
        m = mix * torch.stack([mask for _, mask in drawn])  # lines 20 and 21
        images = m * contexts + (1 - m) * images  # line 22
    return loss + loss_b(network.head("resampling", network.body(images)), labels)  # lines 23 to 29


def sgd(network: Network, velocity: dict[str, Tensor], lr: float, momentum: float, decay: float) -> None:
    """Take one step of SGD with momentum (lines 30 and 31); a head without a gradient stays as it is."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.grad is None:
                continue
            gradient = parameter.grad + decay * parameter
            velocity[name] = momentum * velocity[name] + gradient if name in velocity else gradient
            parameter.sub_(lr * velocity[name])
            parameter.grad = None


def crops(images: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Return each image cropped at random after zero padding, (B, 3, H, W)."""
    height, width = images.shape[2:]
    padded = np.pad(images, ((0, 0), (0, 0), (CROP, CROP), (CROP, CROP)))
    corners = rng.integers(0, 2 * CROP + 1, (len(images), 2))
    cut = [x[:, t : t + height, left : left + width] for x, (t, left) in zip(padded, corners, strict=True)]
    return torch.from_numpy(np.stack(cut))


def main() -> None:
    """Train on the long-tailed demo; print what either head knows of the test set."""
    from csa_core.data.demo import make_demo

    torch.set_num_threads(1)  # more threads than one only wait for each other on images this small
    torch.manual_seed(1)
    rng, demo = np.random.default_rng(1), make_demo()
    counts = [int(250 * RATIO ** (-k / (CLASSES - 1)) + 1e-9) for k in range(CLASSES)]
    kept = np.concatenate([np.flatnonzero(demo.train_labels == k)[:n] for k, n in enumerate(counts)])
    pixels, labels = demo.train_images[kept] / 255.0, demo.train_labels[kept]
    mean, std = demo.train_images.mean((0, 1, 2)) / 255, demo.train_images.std((0, 1, 2)) / 255

    def normalised(images: np.ndarray) -> np.ndarray:
        return ((images - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)

    x, tests = normalised(pixels), torch.from_numpy(normalised(demo.test_images / 255.0))
    network = Network()
    bank: list[tuple[Tensor, Tensor]] = []
    velocity: dict[str, Tensor] = {}
    for epoch in range(EPOCHS):
        phase = "warmup" if epoch < WARMUP else "plain" if epoch >= EPOCHS - PLAIN else "context_shift"
        lr = LR * min(1, (epoch + 1) / RISE) * 0.1 ** sum(epoch >= drop for drop in DROPS)
        steps = -(-len(x) // BATCH)
        order = np.resize(rng.permutation(len(x)), (steps, BATCH))
        for uniform in order:
            # Class-balanced sampling: a class, then one of its images.
            balanced = np.array([rng.choice(np.flatnonzero(labels == k)) for k in rng.integers(0, CLASSES, BATCH)])
            one, other = ((crops(x[i], rng), torch.from_numpy(labels[i])) for i in (uniform, balanced))
            slots = torch.from_numpy(rng.permutation(VOLUME)[:BATCH])
            csa_step(network, bank, one, other, slots, rng.random(), phase).backward()
            sgd(network, velocity, lr, MOMENTUM, DECAY)
            del bank[: max(0, (len(bank) - VOLUME) // VOLUME * VOLUME)]  # what a ring has overwritten
        print(f"epoch {epoch + 1}/{EPOCHS}, {phase}", end="\r", flush=True)
    network.eval()
    with torch.no_grad():
        features = network.body(tests)
    for name in network.heads:
        right = (network.head(name, features).argmax(1).numpy() == demo.test_labels).reshape(CLASSES, -1).mean(1)
        print(f"{name} head: all {100 * right.mean():.1f} %, the four smallest classes {100 * right[-4:].mean():.1f} %")


if __name__ == "__main__":
    main()
