"""Scores against scikit-learn."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, recall_score

from csa_core.data.augment import evaluation_batches
from csa_core.data.dataset import Dataset
from csa_core.evaluation.scores import calibration_error, predict, score, unpack, with_ensemble
from csa_core.models.resnet import make_network

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(5), [40, 10, 25, 5, 20])
LOGITS = RNG.normal(size=(100, 5)) + 2 * np.eye(5)[LABELS]


def test_accuracies_are_scikit_learns() -> None:
    scores = score(LOGITS, LABELS, ["many", "many", "few", "few", "few"])
    predicted = LOGITS.argmax(1)
    assert scores["accuracy"]["all"] == pytest.approx(accuracy_score(LABELS, predicted))
    assert scores["balanced"] == pytest.approx(balanced_accuracy_score(LABELS, predicted)) != scores["accuracy"]["all"]
    classes = recall_score(LABELS, predicted, average=None)
    assert scores["accuracy"]["many"] == pytest.approx(classes[:2].mean())
    assert scores["accuracy"]["few"] == pytest.approx(classes[2:].mean())
    recalls = np.array(scores["correct"]) / np.array(scores["images"])
    assert recalls == pytest.approx(recall_score(LABELS, predicted, average=None))


def test_other_measures_are_scipys_and_scikit_learns() -> None:
    scores = score(LOGITS, LABELS, ["few"] * 5)
    predicted = LOGITS.argmax(1)
    recalls = recall_score(LABELS, predicted, average=None)
    assert np.array_equal(unpack(scores["confusion"]), confusion_matrix(LABELS, predicted))
    assert scores["harmonic_mean"] == pytest.approx(stats.hmean(recalls))
    assert scores["geometric_mean"] == pytest.approx(stats.gmean(recalls))
    assert scores["worst_class"] == recalls.min()
    assert scores["ece"] == calibration_error(LOGITS, predicted == LABELS)
    never = LOGITS - 100 * np.eye(5)[3]  # class 3 is never predicted
    scores = score(never, LABELS, ["few"] * 5)
    assert scores["harmonic_mean"] == scores["geometric_mean"] == scores["worst_class"] == 0


def test_a_class_of_one_test_image_counts_as_any_other() -> None:
    labels = np.array([0, 0, 0, 1])
    scores = score(np.eye(2)[[0, 0, 0, 0]], labels, ["many", "few"])
    assert scores["accuracy"] == {"all": 0.75, "many": 1.0, "medium": None, "few": 0.0}
    assert scores["balanced"] == 0.5 and scores["worst_class"] == 0.0


def test_classes_without_test_images_stand_in_no_mean() -> None:
    """As if they were not there: scikit-learn leaves them out of its mean of recalls, too."""
    logits = np.concatenate([LOGITS, np.full((100, 2), -99.0)], 1)
    groups = ["many", "many", "few", "few", "few"]
    without, untested = score(LOGITS, LABELS, groups), score(logits, LABELS, [*groups, "few", "medium"])
    for key in ("balanced", "harmonic_mean", "geometric_mean", "worst_class"):
        assert untested[key] == without[key]
    assert untested["accuracy"] == without["accuracy"] and untested["accuracy"]["medium"] is None
    assert untested["balanced"] == pytest.approx(balanced_accuracy_score(LABELS, logits.argmax(1)))
    assert untested["images"][5:] == untested["correct"][5:] == [0, 0]


@pytest.mark.parametrize("scale", [0.01, 1.0, 5.0, 200.0])
def test_calibration_error_is_that_of_a_loop_over_bins(scale: float) -> None:
    logits, total = LOGITS * scale, 0.0
    confidence = np.array([max(np.exp(z - z.max()) / np.exp(z - z.max()).sum()) for z in logits])
    correct = logits.argmax(1) == LABELS
    for m in range(15):
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert calibration_error(logits, correct) == pytest.approx(total)


@pytest.mark.parametrize("each", [3, 7, 100])
def test_on_balanced_test_sets_a_group_is_its_share_of_images_to_the_bit(each: int) -> None:
    labels = np.repeat(np.arange(10), each)
    logits = RNG.normal(size=(len(labels), 10)) + np.eye(10)[labels]
    scores, correct = score(logits, labels, ["many"] * 3 + ["medium"] * 4 + ["few"] * 3), logits.argmax(1) == labels
    pooled = {"many": correct[labels < 3], "medium": correct[(labels > 2) & (labels < 7)], "few": correct[labels > 6]}
    assert scores["accuracy"] == {"all": correct.sum() / len(labels)} | {
        name: part.sum() / len(part) for name, part in pooled.items()
    }
    assert scores["balanced"] == scores["accuracy"]["all"]


def test_a_group_without_classes_is_empty_and_not_zero() -> None:
    assert score(LOGITS, LABELS, ["many"] * 5)["accuracy"]["few"] is None


def test_the_ensemble_is_the_mean_of_the_logits() -> None:
    heads = {"uniform": LOGITS, "resampling": RNG.normal(size=LOGITS.shape)}
    assert np.allclose(with_ensemble(heads)["ensemble"], (heads["uniform"] + heads["resampling"]) / 2)


def test_predictions_are_of_the_network_in_eval_mode_and_leave_it_as_it_was(dataset: Dataset) -> None:
    network = make_network("resnet8", ("uniform", "resampling"), 4, seed=0).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    logits = predict(network, evaluation_batches(dataset, torch.device("cpu"), size=32))
    assert network.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    pixels = dataset.test_images / 255
    train = dataset.train_images / 255
    images = (pixels - train.mean((0, 1, 2))) / train.std((0, 1, 2))
    with torch.no_grad():
        wanted = network.eval()(torch.tensor(images.transpose(0, 3, 1, 2), dtype=torch.float32))
    for head in logits:
        np.testing.assert_allclose(logits[head], wanted[head].numpy(), rtol=1e-4, atol=1e-5)
