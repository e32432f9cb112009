"""Scores do not depend on how the test set is cut into batches, and what is empty stays empty."""

import pytest
import torch

from csa_core.data.augment import evaluation_batches
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.evaluation.scores import predict, score, unpack
from csa_core.train.loop import train_epoch
from csa_core.train.run import Run
from tests.conftest import tiny


@pytest.fixture(scope="module")
def trained(dataset: Dataset, split: Split) -> Run:
    run = Run(tiny(), dataset, split, torch.device("cpu"))
    for epoch in range(5):
        train_epoch(run, epoch)
    return run


@pytest.mark.parametrize("size", [1, 7, 128, None])
def test_the_size_of_evaluation_batches_changes_no_count(size: int | None, trained: Run, dataset: Dataset) -> None:
    def confusions(size: int) -> dict[str, str]:
        logits = predict(trained.network, evaluation_batches(dataset, trained.device, size))
        assert all(len(z) == len(dataset.test_labels) for z in logits.values())
        return {head: score(z, dataset.test_labels, ["few"] * 4)["confusion"] for head, z in logits.items()}

    usual = confusions(500)
    assert confusions(size or len(dataset.test_labels)) == usual
    assert len(usual) == 2 and all(unpack(counts).sum() == len(dataset.test_labels) for counts in usual.values())


def test_a_group_without_classes_is_empty_and_not_zero(trained: Run, dataset: Dataset) -> None:
    logits = predict(trained.network, evaluation_batches(dataset, trained.device))["uniform"]
    accuracy = score(logits, dataset.test_labels, ["many", "few", "few", "few"])["accuracy"]
    assert accuracy["medium"] is None and accuracy["many"] is not None
