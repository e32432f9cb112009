"""What `metrics.json` says of a run: the scores of every head, and what they are of."""

from typing import Any

import numpy as np

from csa_core.config import RunConfig
from csa_core.data.dataset import Dataset
from csa_core.data.listed import ImageList
from csa_core.data.split import Split, group_of_class
from csa_core.evaluation.scores import score, with_ensemble
from csa_core.methods import METHODS


def make_metrics(
    config: RunConfig,
    dataset: Dataset | ImageList,
    split: Split,
    logits: dict[str, dict[str, np.ndarray]],
    digests: dict[str, str],
) -> dict[str, Any]:
    """Return what `metrics.json` holds: digests, configuration, and the score of every head.

    Args:
        logits: by part (`test`, `validation`) and head.
    """
    groups, method = group_of_class(config.data.groups, split.class_counts), METHODS[config.method].scored_as(config)

    def scores(part: str, labels: np.ndarray) -> dict[str, Any]:
        scored = with_ensemble(logits[part]) if method.ensemble else logits[part]
        return {head: score(z, labels, groups) for head, z in scored.items()}

    validation = dataset.validation
    return {
        "digests": digests,
        "config": config.identity(),
        "class_counts": split.class_counts.tolist(),
        "groups": groups,
        "predicts": method.predicts,
        "heads": scores("test", dataset.test_labels),
    } | ({} if validation is None else {"validation": scores("validation", validation.test_labels)})
