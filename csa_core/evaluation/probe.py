"""How good an encoder is: a nearest-neighbour and a linear probe on its features.

Both learn from the long-tailed training set, the only labels there are, and are scored on the test
set like any head. In both every class weighs the same, however many images it has: they are to
tell what the features hold, not how often a class came.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from csa_core.data.augment import evaluation_batches, plain_batches
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.models.folded import folded

NEIGHBOURS, TEMPERATURE = 200, 0.1


@torch.no_grad()
def features(body: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Return the pooled features of images, (N, C) float32 on the CPU; the encoder stays as it is."""
    ready = folded(body)
    return torch.cat([ready(batch).mean((2, 3)) for batch in batches]).cpu()


def knn_logits(train_nc: Tensor, labels_n: np.ndarray, test_mc: Tensor, classes: int) -> np.ndarray:
    """Return the logarithm of each class's share of the votes, (M, K) float32.

    The 200 nearest training images by cosine vote, each with exp(cosine / 0.1) (Wu et al., 2018),
    here divided by the number of images of its class.
    """
    train, test = normalize(train_nc, dim=1), normalize(test_mc, dim=1)
    neighbours = min(NEIGHBOURS, len(train))
    labels = torch.from_numpy(labels_n)
    counts = labels.bincount(minlength=classes)
    shares = []
    for part in test.split(1024):
        cosine, nearest = (part @ train.T).topk(neighbours, dim=1)
        weight, label = (cosine / TEMPERATURE).softmax(1), labels[nearest]
        shares.append(torch.zeros(len(part), classes).scatter_add_(1, label, weight / counts[label]))
    votes = torch.cat(shares)
    return np.log(np.maximum((votes / votes.sum(1, keepdim=True)).numpy(), np.float32(1e-12)))


def linear_logits(train_nc: Tensor, labels_n: np.ndarray, test_mc: Tensor) -> np.ndarray:
    """Return the logits (M, K) float32 of a logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000, tol=1e-3))
    probe.fit(train_nc.numpy(), labels_n)
    logits = probe.decision_function(test_mc.numpy())
    # Of two classes scikit-learn gives the logit of the second alone.
    logits = np.stack([np.zeros_like(logits), logits], axis=1) if logits.ndim == 1 else logits
    return np.asarray(logits, dtype=np.float32)


class Probe:
    """Probes of encoders of one data set."""

    def __init__(self, dataset: Dataset, split: Split, device: torch.device) -> None:
        self.dataset, self.split, self.device = dataset, split, device
        self.labels = dataset.train_labels[split.indices]

    def training_features(self, body: nn.Module) -> Tensor:
        """Return the features of the training images, in the order of the split, (N, C)."""
        images = self.dataset.train_images[self.split.indices]
        return features(body, plain_batches(images, self.dataset, self.device))

    def logits(self, body: nn.Module, scored: Dataset, linear: bool = False) -> dict[str, np.ndarray]:
        """Return the logits of a test set by the nearest neighbours, and by the linear probe if asked for."""
        train = self.training_features(body)
        test = features(body, evaluation_batches(scored, self.device))
        logits = {"knn": knn_logits(train, self.labels, test, len(self.dataset.class_names))}
        if linear:
            logits["linear"] = linear_logits(train, self.labels, test)
        return logits
