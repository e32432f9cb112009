"""A trained run in use: the same logits as its own results, from any kind of image, and in other programs' runtimes."""

import csv
import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import csa_core
from csa_core import store
from csa_core.data.dataset import Dataset
from csa_core.data.sources import load_source
from csa_core.data.split import Split, make_split
from csa_core.errors import UserError
from csa_core.evaluation.probe import Probe
from csa_core.methods import parent_of, parse, recipe
from csa_core.store import read_json, read_tensors
from tests.conftest import Cli, listed, tiny
from tests.helpers.errno_injection import failing
from tests.helpers.images import folder, folder_of_images
from tests.helpers.runs import fit

RUNS: dict[str, dict[str, Any]] = {
    "csa": {},
    "ldam": {"method": "ldam"},
    "lws": {"method": "lws", "first_stage": "csa", "second_stage": {"epochs": 1, "lr_drops": []}},
    "adjusted": {"method": "post_hoc_adjustment", "first_stage": "csa", "post_hoc_strength": 1.5},
    "normalised": {"method": "tau_normalisation", "first_stage": "csa", "norm_exponent": 0.7},
    "simsiam": {
        "method": "simsiam",
        "pretraining": {"epochs": 1, "batch_size": 12, "projector_width": 8, "predictor_width": 4, "sam": "none"},
    },
}
CLASSIFIERS = [name for name in RUNS if name != "simsiam"]


@pytest.fixture(scope="module")
def runs(dataset: Dataset, split: Split, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of finished runs on images of 16 x 12 pixels."""
    folder = tmp_path_factory.mktemp("runs")
    found: dict[str, Path] = {}
    for name, changes in RUNS.items():
        config = tiny(**changes)
        fit(config, dataset, split, folder / name, parent=found["csa"] if parent_of(config) else None)
        found[name] = folder / name / "out"
    return found


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_logits_of_the_test_images_are_the_stored_ones_to_the_bit(
    name: str, runs: dict[str, Path], dataset: Dataset
) -> None:
    run, stored = csa_core.load(runs[name]), read_tensors(runs[name] / "predictions.safetensors")[0]
    logits, metrics = run.logits(dataset.test_images), read_json(runs[name] / "metrics.json")
    assert {head: z.tobytes() for head, z in logits.items() if head != "ensemble"} == {
        head: z.tobytes() for head, z in stored.items()
    }
    assert (set(run.heads), run.predicts) == (metrics["heads"].keys(), metrics["predicts"])
    assert run.class_names == ("a", "b", "c", "d") and run.image_size == (16, 12)
    for head in run.heads:
        labels = [found.label for found in run.predict(dataset.test_images, head)]
        right = np.mean([label == "abcd"[k] for label, k in zip(labels, dataset.test_labels, strict=True)])
        assert right == metrics["heads"][head]["accuracy"]["all"]


def test_probabilities_are_the_softmax_and_the_likeliest_comes_first(runs: dict[str, Path], dataset: Dataset) -> None:
    run = csa_core.load(runs["csa"])
    z = run.logits(dataset.test_images[:5])["uniform"].astype(np.float64)
    share = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    for row, found in zip(share, run.predict(dataset.test_images[:5], "uniform", top=3), strict=True):
        order = np.argsort(-row)[:3]
        assert [name for name, _ in found.top] == ["abcd"[k] for k in order] and found.label == found.top[0][0]
        np.testing.assert_allclose([p for _, p in found.top], row[order], rtol=1e-6)


def test_a_pretrained_encoder_has_features_and_says_that_it_cannot_predict(
    runs: dict[str, Path], dataset: Dataset, split: Split
) -> None:
    run = csa_core.load(runs["simsiam"])
    assert run.heads == () and run.predicts is None
    wanted = Probe(dataset, split, torch.device("cpu")).training_features(run.network.body)
    np.testing.assert_array_equal(run.features(dataset.train_images[split.indices]), wanted.numpy())
    with pytest.raises(UserError, match="this simsiam run has no classifier; use its features"):
        run.predict(dataset.test_images)


def test_the_images_of_a_folder_are_resized_as_the_run_resized_them(tmp_path: Path) -> None:
    """Paths, a folder and PIL images give what training gave."""
    root = folder_of_images(tmp_path / "photos", sizes=(10, 14))
    data = {"source": "folder", "root": str(root), "image_size": 12, "groups": "by_count"}
    config = tiny(method="ce", epochs=1, lr_drops=[], lr_warmup_epochs=0, batch_size=2, data=data)
    dataset = folder(root, image_size=12)
    fit(config, dataset, make_split(dataset, config.data), tmp_path)
    run, (stored, *_) = csa_core.load(tmp_path / "out"), read_tensors(tmp_path / "out/predictions.safetensors")
    assert run.class_names == ("ant", "bee")
    paths = sorted((root / "test").rglob("*.*"))
    for images in (root / "test", paths, [str(path) for path in paths], [Image.open(path) for path in paths]):
        assert run.logits(images)["single"].tobytes() == stored["single"].tobytes()
    assert [p.image for p in run.predict(root / "test")] == [str(path) for path in paths]


def test_the_images_of_a_list_are_cut_as_the_run_cut_them(image_lists: Path, tmp_path: Path) -> None:
    config = parse(recipe(listed(image_lists, epochs=1), "ce"), "test")
    lists: Any = load_source(config.data)
    fit(config, lists, make_split(lists, config.data), tmp_path)
    run, (stored, *_) = csa_core.load(tmp_path / "out"), read_tensors(tmp_path / "out/predictions.safetensors")
    paths = [image_lists / path.decode() for path in lists.test_paths]
    assert run.logits(paths)["single"].tobytes() == stored["single"].tobytes()
    assert run.class_names == lists.class_names


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", RUNS)
def test_torchscript_computes_what_the_run_computes(
    name: str, runs: dict[str, Path], dataset: Dataset, cli: Cli, tmp_path: Path
) -> None:
    done = cli("export", runs[name], "--format", "torchscript", "--out", tmp_path / "m.pt")
    assert done.returncode == 0, done.stderr
    more = {"description.json": ""}
    module = torch.jit.load(tmp_path / "m.pt", _extra_files=more)
    found = {key: value.numpy() for key, value in module(torch.from_numpy(dataset.test_images[:7])).items()}
    assert_the_same(found, runs[name], dataset)
    assert json.loads(more["description.json"]) == read_json(tmp_path / "m.pt.json")


@pytest.mark.parametrize("name", ["csa", pytest.param("normalised", marks=pytest.mark.long)])
def test_onnx_computes_what_the_run_computes(
    name: str, runs: dict[str, Path], dataset: Dataset, cli: Cli, tmp_path: Path
) -> None:
    import onnxruntime

    done = cli("export", runs[name], "--format", "onnx", "--out", tmp_path / "m.onnx")
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    outputs = [output.name for output in session.get_outputs()]
    found = dict(zip(outputs, session.run(None, {"pixels": dataset.test_images[:7]}), strict=True))
    assert_the_same(found, runs[name], dataset)
    said = read_json(tmp_path / "m.onnx.json")
    assert list(said["outputs"]) == outputs and said["input"]["pixels"] == ["N", 16, 12, 3]
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == said["class_names"]


def assert_the_same(found: dict[str, np.ndarray], folder: Path, dataset: Dataset) -> None:
    run, images = csa_core.load(folder), dataset.test_images[:7]
    wanted = (run.logits(images) if run.heads else {}) | {"features": run.features(images)}
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-4, atol=1e-4, err_msg=key)


def test_each_exported_file_has_its_own_description(runs: dict[str, Path], cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("mine")
    for form, name in (("torchscript", "m.pt"), ("safetensors", "m.safetensors")):
        assert cli("export", runs["csa"], "--format", form, "--out", tmp_path / name).returncode == 0
    forms = [read_json(tmp_path / f"{name}.json")["format"] for name in ("m.pt", "m.safetensors")]
    assert forms == ["torchscript", "safetensors"] and (tmp_path / "m.json").read_text() == "mine"
    assert csa_core.load(runs["csa"]).network.body.conv.weight.requires_grad, "what is exported is a copy"


def test_linked_folders_are_predicted_as_they_are_trained_on(runs: dict[str, Path], photos: Path) -> None:
    elsewhere = photos.parent / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(photos / "b.jpg", elsewhere / "d.jpg")
    (photos / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(photos)
    (elsewhere / "self").symlink_to(elsewhere)
    found = [Path(each.image).relative_to(photos).as_posix() for each in csa_core.load(runs["csa"]).predict(photos)]
    assert found == ["=a.png", "b.jpg", "linked/d.jpg", "more/c.webp"]


def test_a_folder_that_cannot_be_listed_is_not_left_out(runs: dict[str, Path], photos: Path) -> None:
    with failing(errno.EACCES, lambda path: path == photos / "more", "list"), pytest.raises(UserError) as error:
        csa_core.load(runs["csa"]).predict(photos)
    assert f"{photos}/more: cannot be read" in str(error.value)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_eight_bits_are_refused_however_they_come(mode: str, runs: dict[str, Path]) -> None:
    deep = Image.new(mode, (30, 30))
    with pytest.raises(UserError, match=f"one of mode {mode} has more than 8 bits a channel; convert it to 8"):
        csa_core.load(runs["csa"]).predict(deep)


def test_names_of_every_kind_are_predicted(
    runs: dict[str, Path], photos: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (b"~nobody.jpg", b"caf\xe9.jpg"):
        shutil.copy(photos / "b.jpg", os.fsdecode(name))
    done = cli("predict", runs["csa"], tmp_path / "~nobody.jpg", "--out", tmp_path / "p.csv")
    assert done.returncode == 0, done.stderr
    assert len(csa_core.load(runs["csa"]).predict("~nobody.jpg")) == 1
    done = cli("predict", runs["csa"], tmp_path / os.fsdecode(b"caf\xe9.jpg"), "--out", tmp_path / "p.csv")
    assert done.returncode == 0 and "caf\\" in (tmp_path / "p.csv").read_text()


def test_onnx_without_its_packages_names_the_command_that_installs_them(
    runs: dict[str, Path], cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csa_core.export.find_spec", lambda name: None)
    done = cli("export", runs["csa"], "--format", "onnx", "--out", tmp_path / "m.onnx")
    assert done.returncode == 2 and "pip install onnx onnxscript" in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_weights_of_an_earlier_version_say_what_is_missing_and_export_adds_it(cli: Cli, tmp_path: Path) -> None:
    out, new = tmp_path / "run", tmp_path / "new.safetensors"
    fields: dict[str, Any] = {
        "data": {"source": "demo", "max_class_count": 20, "imbalance_ratio": 4},
        "model": "resnet8",
    }
    fields |= {"method": "ce", "epochs": 1, "lr_drops": [], "lr_warmup_epochs": 0}
    assert cli("train", "-", "--out", out, stdin=json.dumps(fields)).returncode == 0
    described = csa_core.load(out)
    tensors, label, _ = read_tensors(out / "weights.safetensors")
    store.write_tensors(out / "weights.safetensors", tensors, {k: v for k, v in label.items() if k != "use"})
    done = cli("predict", out, tmp_path)
    assert done.returncode == 2 and f"csa export {out} --format safetensors --out FILE" in done.stderr
    assert "same as metrics.json" in cli("evaluate", out).stdout
    done = cli("export", out, "--format", "safetensors", "--out", new)
    assert done.returncode == 0, done.stderr
    assert csa_core.load(new).use == described.use and read_tensors(new)[1] == label
    assert read_json(tmp_path / "new.safetensors.json")["normalisation"]["mean"] == described.use["mean"]


@pytest.fixture
def photos(tmp_path: Path, dataset: Dataset) -> Path:
    """Three photographs of other sizes, one deeper, and what is none; a name that a spreadsheet would compute."""
    (tmp_path / "photos/more").mkdir(parents=True)
    for name, image in zip(("=a.png", "b.jpg", "more/c.webp"), dataset.test_images, strict=False):
        Image.fromarray(image).resize((30, 50)).save(tmp_path / "photos" / name)
    (tmp_path / "photos/notes.txt").write_text("no image")
    (tmp_path / "photos/.ipynb_checkpoints").mkdir()
    (tmp_path / "photos/.ipynb_checkpoints/b.jpg").write_text("junk")
    return tmp_path / "photos"


def test_predict_shows_a_line_an_image(runs: dict[str, Path], photos: Path, cli: Cli) -> None:
    done = cli("predict", runs["csa"], photos, photos / "b.jpg", "--top", 2)
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["image", "likeliest", "classes,", "%"]
    names = ["=a.png", "b.jpg", "more/c.webp", "b.jpg"]
    assert [line.split()[0] for line in lines] == [str(photos / name) for name in names]
    wanted = csa_core.load(runs["csa"]).predict(photos, top=2)[1]
    assert lines[1].split()[1:] == [x for name, p in wanted.top for x in (name, f"{100 * p:.1f}")]


def test_predict_writes_a_table_in_which_no_name_is_a_formula(
    runs: dict[str, Path], photos: Path, cli: Cli, tmp_path: Path
) -> None:
    tensors, label, _ = read_tensors(runs["csa"] / "weights.safetensors")
    label["use"]["class_names"] = ["=a", "b", "c", "d"]
    store.write_tensors(tmp_path / "named.safetensors", tensors, label)
    out = tmp_path / "p.csv"
    done = cli("predict", tmp_path / "named.safetensors", photos, "--out", out, "--head", "ensemble", "--top", 4)
    assert done.returncode == 0 and "3 images, by the head 'ensemble'" in done.stdout
    head, *rows = csv.reader(out.read_text().splitlines())
    assert head == ["image", *(f"{name}_{n}" for n in (1, 2, 3, 4) for name in ("class", "probability"))]
    wanted = csa_core.load(tmp_path / "named.safetensors").predict(photos, "ensemble", top=4)
    assert [(row[0], row[1].lstrip("'"), float(row[2])) for row in rows] == [
        (found.image, found.label, found.probability) for found in wanted
    ]
    assert all({name[0] for name in row[1::2]} == {"'", "b", "c", "d"} for row in rows)


@pytest.mark.parametrize(
    ("run", "words", "said"),
    [
        ("csa", ["b.jpg", "--head", "balanced"], "this run has no 'balanced', valid: ensemble, resampling, uniform"),
        ("ldam", ["b.jpg", "--head", "uniform"], "this run has no 'uniform', valid: single"),
        ("csa", ["notes.txt"], "notes.txt: cannot be decoded"),
        ("csa", ["missing.png"], "missing.png: no such file"),
        ("csa", ["none"], "none: no PNG, JPEG or WebP image below it, but a.gif; name another folder"),
        ("csa", ["b.jpg", "--top", "0"], "--top 0: 1 or more"),
        ("csa", ["b.jpg", "--out", "p.json"], "no .json file is written; name it p.csv"),
        ("simsiam", ["b.jpg"], "this simsiam run has no classifier"),
    ],
)
def test_mistakes_are_one_line(
    run: str, words: list[str], said: str, runs: dict[str, Path], photos: Path, cli: Cli
) -> None:
    (photos / "none").mkdir()
    (photos / "none/a.gif").write_text("")
    done = cli("predict", runs[run], *(photos / words[0], *words[1:]))
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_folder_without_a_run_is_one_line(cli: Cli, photos: Path, dataset: Dataset, runs: dict[str, Path]) -> None:
    done = cli("predict", photos, photos)
    assert done.returncode == 2 and "weights.safetensors" in done.stderr and done.stderr.count("\n") == 1
    with pytest.raises(UserError, match=r"give uint8 of shape \(N, 16, 12, 3\)"):
        csa_core.load(runs["csa"]).predict(dataset.test_images[:, :8])
    with pytest.raises(UserError, match="images: none were given"):
        csa_core.load(runs["csa"]).predict([])
    with pytest.raises(UserError, match="top: 0 classes; ask for 1 or more"):
        csa_core.load(runs["csa"]).predict(photos, top=0)
    assert csa_core.load(runs["csa"], "auto").class_names == dataset.class_names
    for device in ("cuda:7", "gpu", "meta", "cpu:0"):
        with pytest.raises(UserError, match=f"device: '{device}' is not available here"):
            csa_core.load(runs["csa"], device)
    for empty in ("", [""]):
        with pytest.raises(UserError, match="images: a name is empty"):
            csa_core.load(runs["csa"]).predict(empty)
    done = cli("evaluate", runs["csa"], "--root", "")
    assert done.returncode == 2 and "--root: is empty; name a file or folder" in done.stderr


def test_an_array_may_be_a_view_of_another(runs: dict[str, Path], dataset: Dataset) -> None:
    run, images = csa_core.load(runs["csa"]), dataset.test_images[:3]
    backwards = np.ascontiguousarray(images[..., ::-1])[..., ::-1]
    backwards.flags.writeable = False
    assert run.logits(backwards)["resampling"].tobytes() == run.logits(images)["resampling"].tobytes()
    assert np.array_equal(run.features(backwards), run.features(images))


def test_an_opened_image_that_cannot_be_decoded_is_one_line(runs: dict[str, Path], tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1000])
    run = csa_core.load(runs["csa"])
    with Image.open(tmp_path / "cut.png") as cut, pytest.raises(UserError, match="images: one of mode L cannot be"):
        run.predict(cut)
    with pytest.raises(UserError, match="images: one of mode La cannot be decoded"):
        run.predict(Image.new("La", (8, 8)))


def test_predictions_do_not_change_what_the_run_is(runs: dict[str, Path], dataset: Dataset) -> None:
    """One at a time or together, again and again, up to rounding."""
    run = csa_core.load(runs["csa"])
    together = run.logits(dataset.test_images[:3])["resampling"]
    alone = [run.logits(dataset.test_images[i : i + 1])["resampling"] for i in range(3)]
    np.testing.assert_allclose(np.concatenate(alone), together, rtol=1e-4, atol=1e-5)
    assert run.logits(dataset.test_images[:3])["resampling"].tobytes() == together.tobytes()
