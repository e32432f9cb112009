"""Post-hoc corrections, from what the first stage left on disk, by NumPy alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import yaml

from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.errors import UserError
from csa_core.methods import METHODS, parent_of, parse
from csa_core.store import read_json
from tests.conftest import Cli, tiny, tiny_fields
from tests.helpers.runs import fit

COUNTS = np.array([16, 10, 6, 4])
GROUPS = {"medium": [], "few": [0, 1, 2, 3]}
HEADS = {"ce": ["single"], "csa": ["uniform", "resampling", "ensemble"]}


@pytest.fixture(scope="module", params=["ce", "csa"])
def first(
    request: pytest.FixtureRequest, dataset: Dataset, split: Split, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """A method, and the folder of a finished run of it."""
    folder = tmp_path_factory.mktemp(request.param)
    fit(tiny(method=request.param), dataset, split, folder)
    return request.param, folder / "out"


def corrected(method: str, strength: float, stored: dict[str, Any], weights: dict[str, Any], head: str) -> np.ndarray:
    """Return the logits of a head in float64, from the definition."""
    if head == "ensemble":
        both = [corrected(method, strength, stored, weights, each) for each in ("uniform", "resampling")]
        return np.asarray(sum(both) / 2)
    z = stored[head].astype(np.float64)
    if method == "post_hoc_adjustment":
        return np.stack([z[:, k] - strength * np.log(COUNTS[k] / 36) for k in range(4)], axis=1)
    w, b = (weights[f"heads.{head}.{part}"].astype(np.float64) for part in ("weight", "bias"))
    return np.stack([(z[:, k] - b[k]) / np.sqrt((w[k] ** 2).sum()) ** strength for k in range(4)], axis=1)


@pytest.mark.parametrize(
    ("method", "key", "strength"),
    [
        ("post_hoc_adjustment", "post_hoc_strength", 1.0),
        ("post_hoc_adjustment", "post_hoc_strength", 0.5),
        ("tau_normalisation", "norm_exponent", 1.0),
        ("tau_normalisation", "norm_exponent", 0.7),
    ],
)
def test_scores_follow_from_the_saved_logits_and_weights(
    method: str, key: str, strength: float, first: tuple[str, Path], dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    stage, parent = first
    config = tiny(**{"method": method, "first_stage": stage, key: strength})
    results = fit(config, dataset, split, tmp_path, parent=parent)
    stored = safetensors.numpy.load_file(parent / "predictions.safetensors")
    weights = safetensors.numpy.load_file(parent / "weights.safetensors")
    made = safetensors.numpy.load_file(tmp_path / "out/predictions.safetensors")
    metrics = read_json(tmp_path / "out/metrics.json")
    assert list(metrics["heads"]) == HEADS[stage] and metrics["predicts"] == METHODS[stage].predicts
    for head in HEADS[stage]:
        wanted = corrected(method, strength, stored, weights, head)
        if head != "ensemble":
            np.testing.assert_allclose(made[head], wanted, rtol=1e-5, atol=1e-5)
        right = wanted.argmax(1) == dataset.test_labels
        scores = metrics["heads"][head]
        assert scores["accuracy"]["all"] == pytest.approx(right.mean())
        assert scores["correct"] == [int(right[dataset.test_labels == k].sum()) for k in range(4)]
        assert scores["accuracy"]["few"] == pytest.approx(np.mean(np.array(scores["correct"]) / 30))
        assert 0 <= scores["ece"] <= 1 and scores["worst_class"] == min(scores["correct"]) / 30
    assert results["history.csv"].count(b"\n") == 1, "its columns, and no epoch"
    network = safetensors.numpy.load_file(tmp_path / "out/weights.safetensors")
    assert network.keys() == weights.keys() and all(np.array_equal(network[key], weights[key]) for key in weights)


def test_a_correction_of_no_strength_is_the_first_stage(
    first: tuple[str, Path], dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    stage, parent = first
    config = tiny(method="post_hoc_adjustment", first_stage=stage, post_hoc_strength=0.0)
    fit(config, dataset, split, tmp_path, parent=parent)
    assert read_json(tmp_path / "out/metrics.json")["heads"] == read_json(parent / "metrics.json")["heads"]


def test_the_adjustment_moves_predictions_from_the_largest_class_to_the_others(
    first: tuple[str, Path], dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    stage, parent = first
    fit(tiny(method="post_hoc_adjustment", first_stage=stage), dataset, split, tmp_path, parent=parent)
    before, after = (
        safetensors.numpy.load_file(folder / "predictions.safetensors") for folder in (parent, tmp_path / "out")
    )
    for head in before:
        moved = before[head].argmax(1) != after[head].argmax(1)
        assert moved.any(), head
        assert (after[head].argmax(1)[moved] > before[head].argmax(1)[moved]).all(), "towards rarer classes alone"


@pytest.mark.parametrize("method", ["post_hoc_adjustment", "tau_normalisation"])
def test_it_reads_what_its_first_stage_reads_and_its_strength(method: str) -> None:
    base = {"method": method}
    assert parent_of(parse(base, "x")) == parse({"method": "ce"}, "x")
    on_csa = base | {"first_stage": "csa"}
    assert parent_of(parse(on_csa | {"threshold": 0.3}, "x")) == parse({"threshold": 0.3}, "x")
    digest = {name: parse(fields, "x").digest() for name, fields in (("ce", base), ("csa", on_csa))}
    assert parse(base | {"threshold": 0.3}, "x").digest() == digest["ce"] != digest["csa"]
    assert parse(on_csa | {"threshold": 0.3}, "x").digest() != digest["csa"]
    assert parse(on_csa | {"bank_batches": 0}, "x").digest() != digest["csa"]
    assert parse(base | {"epochs": 190}, "x").digest() != digest["ce"]
    assert parse(base | {"pretraining": {"epochs": 3}}, "x").digest() == digest["ce"]
    pretrained = parse(base | {"pretrained": True}, "x")
    assert parent_of(pretrained) == parse({"method": "ce", "pretrained": True}, "x")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "post_hoc_adjustment", "post_hoc_strength": -0.1}, "post_hoc_strength: input should be greater"),
        ({"method": "tau_normalisation", "norm_exponent": -0.5}, "norm_exponent: input should be greater"),
        ({"method": "tau_normalisation", "norm_exponent": 2.5}, "norm_exponent: input should be less than or equal"),
        ({"method": "tau_normalisation", "norm_exponent": float("inf")}, "norm_exponent: "),
        ({"method": "tau_normalisation", "post_hoc_strength": 1.0}, "method tau_normalisation does not read it"),
        ({"method": "ce", "post_hoc_strength": 1.0}, "method ce does not read it (post_hoc_adjustment does)"),
        ({"method": "ce", "first_stage": "csa"}, "method ce does not read it (crt, lws, "),
        ({"method": "tau_normalisation", "first_stage": "simsiam"}, "first_stage: unknown name 'simsiam', valid: ce, "),
        ({"method": "tau_normalisation", "first_stage": "csa", "warmup_epochs": 200}, "first stage csa: warmup_epochs"),
    ],
)
def test_what_cannot_be_is_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        parse(fields, "run.yaml")
    assert message in str(error.value) and str(error.value).startswith("run.yaml: ")


def test_the_command_line_scores_a_finished_run(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tiny_fields(method="post_hoc_adjustment", epochs=2, lr_drops=[])))
    missing = cli("train", config, "--out", tmp_path / "adjusted")
    assert missing.returncode == 2 and missing.stderr.count("\n") == 1, missing.stderr
    assert "train that with --set method=ce --out PARENT, then give --parent PARENT" in missing.stderr
    first = cli("train", config, "--set", "method=ce", "--out", tmp_path / "ce", "--threads", 1)
    assert first.returncode == 0, first.stderr
    second = cli("train", config, "--parent", tmp_path / "ce", "--out", tmp_path / "adjusted", "--threads", 1)
    assert second.returncode == 0 and "single" in second.stdout, second.stderr
    again = cli("evaluate", tmp_path / "adjusted", "--threads", 1)
    assert again.returncode == 0 and "same as metrics.json" in again.stdout, again.stderr
