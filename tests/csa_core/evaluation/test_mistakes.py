"""Which mistakes are the worst, found in another way."""

from pathlib import Path

import numpy as np
import pytest
import torch

from csa_core import store
from csa_core.config import DataConfig
from csa_core.data.decode import evaluated
from csa_core.data.listed import ImageList
from csa_core.data.sources import load_source
from csa_core.evaluation.mistakes import pictures, worst_mistakes
from csa_core.methods import parse
from tests.conftest import Cli, listed, tiny_fields


@pytest.mark.parametrize("seed", range(5))
def test_the_most_confident_mistakes_come_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, 200, (40, 5)).astype(np.float32), rng.integers(0, 5, 40)
    logits[::2] /= 100
    shares = torch.from_numpy(logits).double().softmax(1)
    wrong = [i for i in range(40) if int(shares[i].argmax()) != labels[i]]
    expected = sorted(wrong, key=lambda i: (-float(shares[i].max()), i))
    numbers, predicted, confidence = worst_mistakes(logits, labels, 7)
    assert numbers.tolist() == expected[:7] and predicted.tolist() == [int(shares[i].argmax()) for i in numbers]
    np.testing.assert_allclose(confidence, [float(shares[i].max()) for i in numbers], rtol=1e-12)
    assert worst_mistakes(logits, labels, 1000)[0].tolist() == expected


def test_without_a_mistake_there_is_nothing(dataset: object) -> None:
    numbers, *_ = worst_mistakes(np.eye(3, dtype=np.float32), np.arange(3), 12)
    assert not numbers.size and len(pictures(dataset, numbers)) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
def test_pictures_of_a_list_are_what_is_evaluated(image_lists: Path, resize: str) -> None:
    fields = listed(image_lists)
    fields["data"] |= {"resize": resize}  # type: ignore[operator]
    data: DataConfig = parse(tiny_fields(**fields), "test").data
    images = load_source(data)
    assert isinstance(images, ImageList)
    made = pictures(images, np.array([5, 0]))
    for pixels, number in zip(made, (5, 0), strict=True):
        np.testing.assert_array_equal(pixels, evaluated(image_lists / images.test_paths[number].decode(), 40, resize))
    assert pictures(images, np.array([], dtype=np.int64)).shape[0] == 0


def test_mistakes_of_a_run_are_those_of_the_head_that_predicts(cli: Cli, tmp_path: Path) -> None:
    short = ["--set", "epochs=1", "--set", "lr_drops=[]"]
    assert cli("train", "docs/examples/demo.yaml", "--set", "method=ce", *short, "--out", tmp_path).returncode == 0
    done = cli("mistakes", tmp_path, "--images", 3, "--out", tmp_path / "m.safetensors")
    assert done.returncode == 0 and "the 3 most confident mistakes of the run" in done.stdout, done.stderr
    tensors, meta, _ = store.read_tensors(tmp_path / "m.safetensors")
    logits, label, _ = store.read_tensors(tmp_path / "predictions.safetensors")
    images = load_source(DataConfig(source="demo"))
    assert not isinstance(images, ImageList)
    np.testing.assert_array_equal(tensors["images"], images.test_images[meta["test_image"]])
    assert meta["head"] == "single" and meta["run"] == label["digests"]["config"]
    found = logits["single"].argmax(1)[meta["test_image"]]
    assert meta["predicted"] == [images.class_names[k] for k in found]
    assert all(true != predicted for true, predicted in zip(meta["true"], meta["predicted"], strict=True))
