"""One training step: Algorithm 1, line by line."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from csa_core.data.batch import Batch
from csa_core.data.ranks import gather, own_rows
from csa_core.method.activation_map import activation_map, background_mask, object_map
from csa_core.method.context_shift import context_shift
from csa_core.train.schedule import Phase

if TYPE_CHECKING:
    from csa_core.train.run import Run

Stats = dict[str, Tensor]


def train_step(run: "Run", batch: Batch, phase: Phase) -> Stats:
    """Train on one batch (lines 6-31); return scalars on the device, no gradient."""
    loss, stats = run.objective(batch, phase)
    run.update(loss)  # lines 29-31
    return stats


def csa_loss(run: "Run", batch: Batch, phase: Phase) -> tuple[Tensor, Stats]:
    """Return the loss of both modules on one batch each (lines 6-28), and scalars for the history.

    In `warmup` the uniform module works alone and already fills the bank; in `plain` the
    re-sampled images are not shifted and the bank rests.
    """
    network, bank = run.network, run.bank if phase != "plain" else None
    assert batch.uniform is not None
    images, labels = batch.uniform  # line 6

    # Uniform module (lines 8-16).
    features = run.features(images)
    logits = network.head("uniform", features)
    uniform_loss = run.uniform_loss(logits, labels)
    confident = labels.new_zeros(())
    if bank:
        is_confident, masks = find_contexts(run, images, labels, features, logits)
        run.guard.watch("background mask", masks)
        bank.push(gather(images), gather(masks), gather(is_confident))  # line 13
        confident = is_confident.sum()

    # Balanced re-sampling module (lines 17-28).
    resampling_loss = torch.zeros_like(uniform_loss)
    shifted, resampling_steps = labels.new_zeros(()), labels.new_zeros(())
    if batch.resampled is not None and (bank is None or bank.is_ready()):  # line 18
        resampled, their_labels = batch.resampled  # line 7
        if bank:
            places = bank.places(batch.slot, run.config.batch_size)
            contexts, masks = bank.draw(own_rows(places))  # line 19
            run.guard.watch("image in the bank", contexts)
            run.guard.watch("mask in the bank", masks)
            resampled = context_shift(resampled, contexts, masks, batch.mix)  # lines 20-22
            shifted = labels.new_ones(())
        resampled_logits = network.head("resampling", run.features(resampled))
        resampling_loss = run.resampling_loss(resampled_logits, their_labels)
        resampling_steps = labels.new_ones(())

    return uniform_loss + resampling_loss, {
        "loss": uniform_loss.detach(),
        "resampling_loss": resampling_loss.detach(),
        "correct": (logits.detach().argmax(1) == labels).sum(),
        "confident": confident,
        "shifted": shifted,
        "resampling_steps": resampling_steps,
    }


@torch.no_grad()
def find_contexts(
    run: "Run", images: Tensor, labels: Tensor, features: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor]:
    """Return which images are confident, (B,) bool (line 11), and background masks, (B, 1, H, W) (line 12)."""
    config, network = run.config, run.network
    if config.mask_forward == "eval":  # the released code: a second forward without batch statistics
        network.eval()
        features = run.features(images)
        logits = network.head("uniform", features)
        network.train()
    confidence = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    activation = activation_map(features, network.weight("uniform"), labels, config.activation_map)
    objects = object_map(activation, (images.shape[2], images.shape[3]))
    return confidence >= config.threshold, background_mask(objects, config.mask_exponent)


def single_loss(run: "Run", batch: Batch, phase: Phase) -> tuple[Tensor, Stats]:
    """Return the loss of one branch and one head: the baselines `ce`, `class_balanced` and `logit_adjustment`."""
    stream = batch.resampled if run.config.method == "class_balanced" else batch.uniform
    assert stream is not None
    images, labels = stream
    logits = run.network.head("single", run.features(images))
    loss = run.single_loss(logits, labels)
    return loss, {"loss": loss.detach(), "correct": (logits.detach().argmax(1) == labels).sum()}


LOSSES = {"csa": csa_loss, "ce": single_loss, "class_balanced": single_loss, "logit_adjustment": single_loss}


def streams(method: str, phase: Phase) -> set[str]:
    """Return which streams of a batch a step reads."""
    if method == "csa":
        return {"uniform"} if phase == "warmup" else {"uniform", "resampled"}
    return {"resampled"} if method == "class_balanced" else {"uniform"}
