"""The training step against a second, plain derivation of Algorithm 1 that shares no code with it.

The derivation loops over images, keeps the bank as a list, finds Grad-CAM by autograd, computes the
network from its weights with torch.nn.functional, and applies SGD by hand. In float64, so that the
comparison is of the algorithm and not of rounding.
"""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from csa_core.config import RunConfig
from csa_core.data.dataset import Dataset
from csa_core.data.plan import EpochPlan, Picks, plan_epoch
from csa_core.data.split import Split
from csa_core.train.run import Run
from csa_core.train.schedule import Phase
from csa_core.train.step import Stats, streams, train_step
from tests.conftest import tiny

CPU = torch.device("cpu")


def step_of(run: Run, plan: EpochPlan[Picks], step: int, phase: Phase) -> Stats:
    return train_step(run, run.images.at(plan, step, streams(run.config.method, phase)), phase)


class Derivation:
    """Algorithm 1 written down once more."""

    def __init__(self, run: Run, config: RunConfig, dataset: Dataset, split: Split) -> None:
        self.config = config
        self.values = {k: v.clone() for k, v in run.network.state_dict().items() if v.is_floating_point()}
        self.momentum: dict[str, Tensor] = {}
        self.pushed: list[tuple[Tensor, Tensor]] = []
        pixels = dataset.train_images / 255.0
        self.mean, self.std = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))
        self.pixels, self.labels = pixels[split.indices], dataset.train_labels[split.indices]
        self.prior = np.log(split.class_counts / split.class_counts.sum())

    def image(self, picks: Picks, i: int) -> Tensor:
        image, pad = self.pixels[picks.index[i]], self.config.crop_padding
        padded = np.zeros((image.shape[0] + 2 * pad, image.shape[1] + 2 * pad, 3))
        padded[pad : pad + image.shape[0], pad : pad + image.shape[1]] = image
        top, left = int(picks.top[i]), int(picks.left[i])
        crop = padded[top : top + image.shape[0], left : left + image.shape[1]]
        crop = crop[:, ::-1] if picks.flip[i] else crop
        return torch.tensor(((crop - self.mean) / self.std).transpose(2, 0, 1).copy())

    def body(self, x: Tensor, p: dict[str, Tensor], training: bool = True) -> Tensor:
        def norm(x: Tensor, name: str) -> Tensor:
            running = self.values[f"{name}.running_mean"], self.values[f"{name}.running_var"]
            return F.batch_norm(x, *running, p[f"{name}.weight"], p[f"{name}.bias"], training, 0.1, 1e-5)

        x = F.relu(norm(F.conv2d(x, p["body.conv.weight"], padding=1), "body.bn"))
        for k, (channels, stride) in enumerate([(16, 1), (32, 2), (64, 2)]):
            b = f"body.blocks.{k}"
            y = F.relu(norm(F.conv2d(x, p[f"{b}.conv1.weight"], stride=stride, padding=1), f"{b}.bn1"))
            y = norm(F.conv2d(y, p[f"{b}.conv2.weight"], padding=1), f"{b}.bn2")
            shortcut = torch.zeros_like(y)
            start = (channels - x.shape[1]) // 2
            shortcut[:, start : start + x.shape[1]] = x[:, :, ::stride, ::stride]
            x = F.relu(y + shortcut)
        return x

    def head(self, name: str, features: Tensor, p: dict[str, Tensor]) -> Tensor:
        return features.mean((2, 3)) @ p[f"heads.{name}.weight"].T + p[f"heads.{name}.bias"]

    def loss(self, kind: str, logits: Tensor, labels: list[int]) -> Tensor:
        if kind == "logit_adjustment":
            logits = logits + self.config.logit_adjustment_strength * torch.tensor(self.prior)
        return -torch.stack([z.log_softmax(0)[y] for z, y in zip(logits, labels, strict=True)]).mean()

    def contexts(self, images: Tensor, labels: list[int], p: dict[str, Tensor], training: bool) -> list[Tensor | None]:
        """The mask of each confident image, None for the others; Grad-CAM by autograd."""
        features = self.body(images, p, training)
        logits = self.head("uniform", features, p)
        masks: list[Tensor | None] = []
        for i, y in enumerate(labels):
            (gradient,) = torch.autograd.grad(logits[i, y], features, retain_graph=True)
            cam = torch.stack([gradient[i, c].mean() * features[i, c] for c in range(64)]).sum(0).detach()
            cam = cam.clamp(min=0) if self.config.activation_map == "gradcam" else cam
            cam = cam - cam.min()
            cam = cam / cam.max() if cam.max() > 0 else cam
            cam = F.interpolate(cam[None, None], size=images.shape[2:], mode="bicubic")[0].clamp(0, 1)
            confident = logits[i].softmax(0)[y] >= self.config.threshold
            masks.append((1 - cam) ** self.config.mask_exponent if confident else None)
        return masks

    def step(self, plan: EpochPlan[Picks], step: int, phase: Phase, lr: float) -> None:
        config, size = self.config, self.config.batch_size
        running = ("running_mean", "running_var")
        p = {k: v.clone().requires_grad_() for k, v in self.values.items() if not k.endswith(running)}
        picks, others = plan.uniform[step], plan.resampled[step]
        images = torch.stack([self.image(picks, i) for i in range(size)])
        labels = [int(self.labels[picks.index[i]]) for i in range(size)]
        total = self.loss(config.uniform_loss, self.head("uniform", self.body(images, p), p), labels)
        use_bank = phase != "plain" and config.bank_batches > 0
        volume = config.bank_batches * size
        if use_bank:
            before = {k: self.values[k].clone() for k in self.values if k.endswith(running)}
            masks = self.contexts(images, labels, p, training=config.mask_forward == "shared")
            self.values |= before  # the look at the contexts moves no statistics
            self.pushed += [(x, m) for x, m in zip(images, masks, strict=True) if m is not None]
        needed = size if config.bank_start == "batch" else volume
        if phase != "warmup" and (not use_bank or len(self.pushed) >= needed):
            mixed = []
            for i in range(size):
                image = self.image(others, i)
                if use_bank:
                    held = [place for place in plan.slot[step].tolist() if place < len(self.pushed)]
                    slot = held[i]
                    newest = max(n for n in range(len(self.pushed)) if n % volume == slot)
                    context, mask = self.pushed[newest]
                    weight = float(plan.mix[step]) * mask
                    image = weight * context + (1 - weight) * image
                mixed.append(image)
            labels = [int(self.labels[others.index[i]]) for i in range(size)]
            logits = self.head("resampling", self.body(torch.stack(mixed), p), p)
            total = total + self.loss(config.resampling_loss, logits, labels)
        gradients = torch.autograd.grad(total, list(p.values()), allow_unused=True)
        for name, gradient in zip(p, gradients, strict=True):
            if gradient is not None:
                gradient = gradient + config.weight_decay * self.values[name]
                old = self.momentum.get(name)
                self.momentum[name] = gradient if old is None else config.momentum * old + gradient
                self.values[name] = self.values[name] - lr * self.momentum[name]


def in_float64(run: Run) -> Run:
    """Let the run compute in float64: network, images and bank."""
    run.network.double()
    batch = run.images.batch

    def doubled(picks: Picks) -> tuple[Tensor, Tensor]:
        images, labels = batch(picks)
        return images.double(), labels

    run.images.batch = doubled
    if run.bank:
        run.bank._images_nhwc = run.bank._images_nhwc.double()
        run.bank._masks = run.bank._masks.double()
    return run


CASES: dict[str, dict[str, object]] = {
    "as in the paper": {},
    "cam": {"activation_map": "cam"},
    "mask from a second forward": {"mask_forward": "eval"},
    "larger bank": {"bank_batches": 2},
    "a bank drawn from once it holds a batch": {"bank_batches": 5, "bank_start": "batch"},
    "no bank": {"bank_batches": 0},
    "logit adjustment in both branches": {
        "uniform_loss": "logit_adjustment",
        "resampling_loss": "logit_adjustment",
        "logit_adjustment_strength": 0.7,
    },
    "logit adjustment in the re-sampling branch": {"resampling_loss": "logit_adjustment"},
    "logit adjustment in the uniform branch": {"uniform_loss": "logit_adjustment"},
    "another exponent, momentum and weight decay": {"mask_exponent": 3.5, "momentum": 0.6, "weight_decay": 0.01},
    "beta mix, half balanced": {"mix": ["beta", 2.0, 1.0], "balance_ratio": 0.5},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
def test_steps_equal_the_second_derivation(changes: dict[str, object], dataset: Dataset, split: Split) -> None:
    config = tiny(batch_size=6, threshold=0.28, horizontal_flip=True, seed=2, **changes)
    run = in_float64(Run(config, dataset, split, CPU))
    derivation = Derivation(run, config, dataset, split)
    for group in run.optimizer.param_groups:
        group["lr"] = 0.05
    plan = plan_epoch(config, split.class_counts, 0, CPU)
    phases: list[Phase] = ["warmup", "context_shift", "context_shift", "context_shift", "plain", "plain"]
    moved, shifted = [], 0
    for step, phase in enumerate(phases):
        stats = step_of(run, plan, step, phase)
        derivation.step(plan, step, phase, lr=0.05)
        moved.append(int(stats.get("confident", 0)))
        shifted += phase == "context_shift" and float(stats["resampling_loss"]) > 0
    if config.bank_batches:
        assert 0 < sum(moved) < 4 * 6, "the threshold must let some images through and not all"
    assert shifted > 0, "the bank never filled: the test would show nothing"
    for name, tensor in run.network.state_dict().items():
        if name in derivation.values:
            torch.testing.assert_close(tensor, derivation.values[name], rtol=1e-5, atol=1e-5, msg=name)


def test_a_head_that_nothing_reaches_stays_as_it_is(dataset: Dataset, split: Split) -> None:
    run = Run(tiny(), dataset, split, CPU)
    before = run.network.weight("resampling").detach().clone()
    plan = plan_epoch(run.config, split.class_counts, 0, CPU)
    step_of(run, plan, 0, "warmup")
    assert torch.equal(run.network.weight("resampling"), before)
    step_of(run, plan, 1, "plain")
    assert not torch.equal(run.network.weight("resampling"), before)


def test_every_seed_has_weights_of_its_own(dataset: Dataset, split: Split) -> None:
    one, same, other = (Run(tiny(seed=seed), dataset, split, CPU).network.weight("uniform") for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize(
    ("method", "branch"), [("ce", "uniform"), ("class_balanced", "resampled"), ("logit_adjustment", "uniform")]
)
def test_baselines_train_the_branch_they_are_named_for(
    method: str, branch: str, dataset: Dataset, split: Split
) -> None:
    config = tiny(method=method, logit_adjustment_strength=1.7)
    run = Run(config, dataset, split, CPU)
    plan = plan_epoch(config, split.class_counts, 0, CPU)
    images, labels = run.images.batch(getattr(plan, branch)[0])
    logits = run.network.head("single", run.network.body(images))
    if method == "logit_adjustment":
        prior = np.log(split.class_counts / split.class_counts.sum())
        logits = logits + 1.7 * torch.tensor(prior, dtype=torch.float32)
    wanted = F.cross_entropy(logits, labels)
    torch.testing.assert_close(step_of(run, plan, 0, "single")["loss"], wanted.detach(), rtol=1e-5, atol=1e-6)


def test_every_step_has_one_shape(dataset: Dataset, split: Split) -> None:
    plan = plan_epoch(tiny(), split.class_counts, 0, CPU)
    steps = -(-int(split.class_counts.sum()) // 16)
    assert plan.steps == steps
    for picks in (plan.uniform, plan.resampled):
        assert picks.index.shape == picks.top.shape == picks.left.shape == picks.flip.shape == (steps, 16)
