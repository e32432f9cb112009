"""The methods of one branch: what they draw, and their losses by other means."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.train.run import Run
from tests.conftest import method_of, tiny

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("method", "branch"), [("ce", "uniform"), ("class_balanced", "resampled"), ("logit_adjustment", "uniform")]
)
def test_baselines_train_the_branch_they_are_named_for(
    method: str, branch: str, dataset: Dataset, split: Split
) -> None:
    config = tiny(method=method, logit_adjustment_strength=1.7)
    run = Run(config, dataset, split, CPU)
    plan = run.method.plan(0)
    assert plan.streams.keys() == {branch}
    images, labels = run.images.batch(plan.streams[branch][0])
    logits = run.network.head("single", run.network.body(images))
    if method == "logit_adjustment":
        prior = np.log(split.class_counts / split.class_counts.sum())
        logits = logits + 1.7 * torch.tensor(prior, dtype=torch.float32)
    wanted = F.cross_entropy(logits, labels)
    stats = run.method.step(run, run.images.at(plan, 0), "single")
    torch.testing.assert_close(stats["loss"], wanted.detach(), rtol=1e-5, atol=1e-6)


def test_baselines_have_one_head_and_no_ensemble(dataset: Dataset, split: Split) -> None:
    assert Run(tiny(method="ce"), dataset, split, CPU).scored_logits()["test"].keys() == {"single"}
    assert Run(tiny(), dataset, split, CPU).scored_logits()["test"].keys() == {"uniform", "resampling", "ensemble"}


def test_baselines_have_one_phase(dataset: Dataset, split: Split) -> None:
    assert {method_of(tiny(method="ce"), dataset, split).phase(epoch) for epoch in range(5)} == {"single"}
