"""Evaluation: logits of every head on the test set, and accuracies from integer counts."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from csa_core.models.resnet import Network

GROUPS = ("many", "medium", "few")


@torch.no_grad()
def predict(network: Network, batches: list[Tensor]) -> dict[str, np.ndarray]:
    """Return the test logits of each head, (N, K) float32, with the network in eval mode."""
    was_training = network.training
    network.eval()
    outputs = [network(batch) for batch in batches]
    network.train(was_training)
    return {name: torch.cat([out[name] for out in outputs]).cpu().numpy() for name in network.heads}


def with_ensemble(logits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add `ensemble`, the mean of the logits, where there are several heads (Table 4)."""
    if len(logits) < 2:
        return logits
    return logits | {"ensemble": np.mean(list(logits.values()), axis=0)}


def score(logits: np.ndarray, labels: np.ndarray, group_of_class: list[str]) -> dict[str, Any]:
    """Return accuracies as fractions, all and by group, and the integer counts behind them.

    A group without classes has accuracy None, never 0.
    """
    classes = len(group_of_class)
    images = np.bincount(labels, minlength=classes)
    correct = np.bincount(labels[logits.argmax(1) == labels], minlength=classes)
    accuracy: dict[str, float | None] = {"all": int(correct.sum()) / int(images.sum())}
    for group in GROUPS:
        inside = np.array([name == group for name in group_of_class])
        accuracy[group] = int(correct[inside].sum()) / int(images[inside].sum()) if inside.any() else None
    return {"accuracy": accuracy, "correct": correct.tolist(), "images": images.tolist()}
