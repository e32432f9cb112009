"""Runs that were cut short: what goes on, what is forgotten, and what their results say of it."""

import json
from pathlib import Path

import pytest
import torch

from csa_core import store
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.train.state import checkpoint
from tests.conftest import Cli, tiny, tiny_fields
from tests.helpers.runs import cut_short, fit


def state_of(folder: Path) -> Path:
    (state,) = (folder / "state").iterdir()
    return state


def test_asked_to_train_again_what_is_not_finished_goes_on(
    dataset: Dataset, split: Split, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cut_short(tiny(), dataset, split, tmp_path, retrain=True)
    capfd.readouterr()
    first = fit(tiny(), dataset, split, tmp_path, retrain=True)
    assert "continuing after epoch 5 of 5" in capfd.readouterr().err
    cut_short(tiny(), dataset, split, tmp_path, retrain=True)
    assert not (state_of(tmp_path) / "finished.json").exists(), "a finished one is forgotten"
    assert fit(tiny(), dataset, split, tmp_path) == first


def test_an_environment_that_says_no_is_believed(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(json.dumps(tiny_fields(epochs=1, lr_drops=[], method="ce")))
    words = ("train", tmp_path / "run.yaml", "--out", tmp_path / "out", "--state", tmp_path / "state")
    assert cli(*words).returncode == 0
    for said in ("", "0", "no", "False", "1"):
        again = "finished before" not in cli(*words, CSA_RETRAIN=said).stderr
        assert again == (said == "1"), said


def test_results_name_every_way_in_which_a_run_was_computed(dataset: Dataset, split: Split, tmp_path: Path) -> None:
    def computed() -> dict[str, object]:
        return dict(store.read_sealed(tmp_path / "out/metrics.json")["computed"])

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        cut_short(tiny(), dataset, split, tmp_path)
        fit(tiny(), dataset, split, tmp_path)
        assert computed() == {"device": "cpu", "precision": "float32", "compiled": False, "threads": 1}
        cut_short(tiny(seed=2), dataset, split, tmp_path)
        torch.set_num_threads(2)
        fit(tiny(seed=2), dataset, split, tmp_path)
        assert computed() == {"device": "cpu", "precision": "float32", "compiled": False, "threads": "1, 2"}
    finally:
        torch.set_num_threads(threads)


def test_what_only_a_training_needs_goes_even_if_the_run_was_killed_before(
    dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    whole = fit(tiny(), dataset, split, tmp_path)
    checkpoint.save(state_of(tmp_path), 5, {"a": torch.zeros(1).numpy()}, {})
    assert fit(tiny(), dataset, split, tmp_path) == whole
    assert not checkpoint.find(state_of(tmp_path))


def test_a_signal_loses_no_epoch_of_a_run_whose_results_are_damaged(
    dataset: Dataset, split: Split, tmp_path: Path
) -> None:
    whole = fit(tiny(), dataset, split, tmp_path)
    (state_of(tmp_path) / "metrics.json").write_text("{}")
    cut_short(tiny(), dataset, split, tmp_path, KeyboardInterrupt, checkpoint_seconds=1e9)
    assert [path.stem for path in checkpoint.find(state_of(tmp_path))] == ["epoch-000005"]
    assert fit(tiny(), dataset, split, tmp_path) == whole
