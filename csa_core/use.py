"""A trained run in use: what its weights say of themselves, and predictions on images of any kind.

    run = csa_core.load("results/mine")
    run.predict(["cat.jpg", "dog.png"])

Images are decoded as in training, resized as the run's source does it, and go the way of its test set through the
method itself: on the test images the logits are those of `predictions.safetensors`.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from csa_core import store
from csa_core.config import set_dotted
from csa_core.data.augment import plain_batches
from csa_core.data.dataset import Dataset
from csa_core.data.decode import centred
from csa_core.data.folder import SUFFIXES
from csa_core.data.images import UNDECODABLE, fitted, opened, rgb
from csa_core.data.listed import ImageList
from csa_core.data.split import Split
from csa_core.errors import UserError, nearest, several, untrusted
from csa_core.evaluation.probe import features
from csa_core.evaluation.scores import with_ensemble
from csa_core.files import from_home
from csa_core.layout import below
from csa_core.methods import METHODS, parse
from csa_core.methods.base import Method, Setting
from csa_core.models.precision import allow_tf32, device_named, place

AT_ONCE = 1000  # images that are decoded before they are predicted
RESIZING = {
    "stretch": "resize to height and width (Pillow, bicubic), whatever the proportions",
    "crop": "cut out the largest part of the proportions of height and width from the middle, then resize (Pillow's "
    "ImageOps.fit, bicubic)",
    "pad": "resize so that the whole image fits into height and width, then put it in the middle of black (Pillow's "
    "ImageOps.pad, bicubic)",
    "centre": "resize the shorter side to 256 / 224 of the size (Pillow, bilinear), then cut out the middle",
}
OneImage = str | Path | Image.Image


@dataclass(frozen=True)
class Prediction:
    """What a head says of one image."""

    image: str
    """Its path; "" of an image that has none."""
    top: tuple[tuple[str, float], ...]
    """The likeliest classes and their probabilities (softmax of the logits), the likeliest first."""

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.top[0][0]

    @property
    def probability(self) -> float:
        """Its probability."""
        return self.top[0][1]


class Trained:
    """A finished run, ready to predict; `load` makes it."""

    def __init__(self, method: Method, network: Any, use: dict[str, Any], label: dict[str, Any]) -> None:
        self.method, self.network, self.use, self.label = method, network, use, label
        self.class_names: tuple[str, ...] = tuple(use["class_names"])
        self.heads: tuple[str, ...] = tuple(use["heads"])
        """Names of the heads, an ensemble among them; none of a pre-training, which has features alone."""
        self.predicts: str | None = use["predicts"]
        """The head that predicts where none is named."""
        self.image_size: tuple[int, int] = tuple(use["image_size"])
        """Height and width of the images that the network sees."""

    def predict(self, images: Any, head: str | None = None, top: int = 5) -> list[Prediction]:
        """Return the likeliest `top` classes of each image, by a head or the one that predicts.

        Args:
            images: a path, a folder, a PIL image, a list of these, or an (N, H, W, 3) uint8 array.

        Raises:
            UserError: no such head, or an image that cannot be decoded.
        """
        head = self._head(head)
        if top < 1:
            raise UserError(f"top: {top} classes; ask for 1 or more")
        named = images if isinstance(images, np.ndarray) else list(_one_by_one(images))
        logits = torch.from_numpy(self.logits(named)[head])
        probability, which = logits.double().softmax(1).sort(stable=True, dim=1, descending=True)
        names = [str(image) if isinstance(image, str | Path) else "" for image in named]
        return [
            Prediction(name, tuple((self.class_names[k], p) for k, p in zip(ks[:top], ps[:top], strict=True)))
            for name, ks, ps in zip(names, which.tolist(), probability.tolist(), strict=True)
        ]

    def logits(self, images: Any) -> dict[str, np.ndarray]:
        """Return the logits of each head, (N, K) float32; `images` as `predict` takes them."""
        self._head(None)
        parts = [self.through(self.network, pixels) for pixels in self._pixels(images)]
        return {head: np.concatenate([part[head] for part in parts]) for head in self.heads}

    def features(self, images: Any) -> np.ndarray:
        """Return the pooled features of the body, (N, C) float32; `images` as `predict` takes them."""
        device, parts = self._device(), []
        for pixels in self._pixels(images):
            batches = plain_batches(pixels, _dataset(self.use, pixels), device)
            parts.append(features(self.network.body, batches).numpy())
        return np.concatenate(parts)

    def through(self, network: Any, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Return what the method makes of the logits of a network, (N, K) by head, on (N, H, W, 3) uint8."""
        self._device()
        logits = self.method.scoring(_dataset(self.use, pixels)).logits(network, final=True)
        return with_ensemble(logits) if "ensemble" in self.heads else logits

    def _device(self) -> torch.device:
        """Return where to compute, set up as in training: another run may have changed what holds for the process."""
        device = self.method.setting.device
        if device.type == "cuda":  # where torch takes TF32 for convolutions by itself
            allow_tf32(self.method.config.precision == "tf32")
        return device

    def _head(self, name: str | None) -> str:
        if self.predicts is None:
            raise UserError(
                f"this {self.method.config.method} run has no classifier; use its features, or train a run that starts "
                "from it"
            )
        if name is not None and name not in self.heads:
            raise UserError(f"head: this run has no '{name}', {nearest(name, self.heads)}")
        return name or self.predicts

    def _pixels(self, images: Any) -> Iterator[np.ndarray]:
        """Yield images as the network's test set has them, (N, H, W, 3) uint8."""
        height, width = self.image_size
        if isinstance(images, np.ndarray):
            if images.dtype != np.uint8 or images.shape[1:] != (height, width, 3) or not len(images):
                raise UserError(
                    f"images: {images.dtype} of shape {images.shape}; give uint8 of shape (N, {height}, {width}, 3), "
                    "or paths or PIL images, which are resized"
                )
            yield np.require(images, requirements=["C", "W"])  # [..., ::-1], as of BGR, steps backwards
            return
        each = list(_one_by_one(images))
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes outside the interpreter lock
            for start in range(0, len(each), AT_ONCE):
                yield np.stack(list(pool.map(self._fitted, each[start : start + AT_ONCE])))

    def _fitted(self, image: OneImage) -> np.ndarray:
        """Decode an image by the one policy and resize it as the run's source does, (H, W, 3) uint8."""
        height, width = self.image_size
        if isinstance(image, Image.Image):
            try:
                decoded = rgb(image)
            except UNDECODABLE as error:  # Pillow reads the pixels of an opened file only now
                raise UserError(f"images: one of mode {image.mode} cannot be decoded ({error}); leave it out") from None
        else:
            with opened(Path(image)) as file:
                decoded = rgb(file)
        resizing = self.use["resizing"]
        is_cut = resizing == "centre"
        return np.array(centred(decoded, height) if is_cut else fitted(decoded, (width, height), resizing))


def load(run: str | Path, device: str | torch.device = "cpu") -> Trained:
    """Load a finished run to predict with.

    Args:
        run: folder that `csa train --out` filled, or a file that `csa export --format safetensors` wrote.
        device: where to compute: auto, or as torch names it.

    Raises:
        UserError: missing, damaged, weights that do not say how they are used, or no such device here.
    """
    there = device_named(device)
    path = weights_of(from_home(run))
    weights, label, _ = store.read_tensors(path)
    if not isinstance(label.get("use"), dict) and "config" in label:
        raise UserError(
            f"{path}: is of an earlier version and does not say how it is used; `csa export {path.parent} --format "
            "safetensors --out FILE` adds that from the data set, then use FILE"
        )
    with untrusted(f"{path}: holds no trained weights; train the run again"):
        use, fields = label["use"], label["config"]
        if fields["data"].get("source") == "image_list":  # whose lists only a training reads
            fields = set_dotted(fields, "data", {"train_list": "", "test_list": ""})
        config, counts = parse(fields, str(path)), np.array(use["class_counts"])
        split = Split(np.arange(counts.sum()), counts, label["digests"]["split"])
        # Of images of one pixel, so that what a method keeps of images to train with takes no memory.
        small = _dataset(use, np.empty((0, 1, 1, 3), dtype=np.uint8))
        method = METHODS[config.method](config, Setting(small, split, there, "float32"))
        network = method.network()
        network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return Trained(method, place(network, there), use, label)


def weights_of(run: Path) -> Path:
    """Return the file of a run's weights: in its folder, or the file that was named."""
    return run / "weights.safetensors" if run.is_dir() else run


def describe(method: Method, network: Any) -> dict[str, Any]:
    """Return what the weights of a run must say so that they can be used without its data, JSON types only."""
    dataset, scored = method.setting.dataset, method.scored_as(method.config)
    # What a selection takes from a folder was made square as the run says; the selection does not.
    resize = method.config.data.resize if dataset.source == "selection" else dataset.resize
    heads = list(getattr(network, "heads", ()))
    mean, deviation = dataset.mean_std
    return {
        "architecture": method.config.model,
        "class_names": list(dataset.class_names),
        "class_counts": method.class_counts.tolist(),
        "image_size": list(dataset.image_size),
        "resizing": "centre" if isinstance(dataset, ImageList) and resize == "crop" else resize,
        "mean": mean.tolist(),
        "sd": deviation.tolist(),
        "heads": [*heads, "ensemble"] if heads and scored.ensemble else heads,
        "predicts": scored.predicts if heads else None,
    }


def _dataset(use: dict[str, Any], pixels: np.ndarray) -> Dataset:
    """Return images in place of the test set of a run, with its class names and normalisation."""
    labels = np.zeros(len(pixels), dtype=np.int64)
    dataset = Dataset("use", tuple(use["class_names"]), pixels[:0], labels[:0], pixels, labels, digest="none")
    # Of the training images, which are not here: what the property would compute of them.
    vars(dataset)["mean_std"] = np.array(use["mean"]), np.array(use["sd"])
    return dataset


def _one_by_one(images: Any) -> Iterator[OneImage]:
    """Yield paths and PIL images; of a folder all images below it, in the order of their paths.

    Raises:
        UserError: none, or something else.
    """
    given = list(images) if isinstance(images, Iterable) and not isinstance(images, OneImage) else [images]
    if not given:
        raise UserError("images: none were given; name images or folders")
    for image in given:
        if not isinstance(image, OneImage):
            raise UserError(f"images: {type(image).__name__} is neither a path nor a PIL image; give one of these")
        if image == "":  # as of a variable of the shell that is not set
            raise UserError("images: a name is empty; name images or folders")
        yield from _below(image)


def _below(image: OneImage) -> list[Any]:
    folder = from_home(image) if isinstance(image, str | Path) else None
    if folder is None or not folder.is_dir():
        return [image if folder is None else folder]
    files = [path for path in _files_below(folder, frozenset()) if path.is_file()]
    found = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not found:
        more = f", but {several([path.name for path in files])}" if files else ""
        raise UserError(f"{folder}: no PNG, JPEG or WebP image below it{more}; name another folder")
    return found


def _files_below(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Yield what lies below a folder and is no folder, linked ones included but for links back to those above."""
    above |= {folder.resolve(), *folder.resolve().parents}
    for path in below(folder):
        if not path.is_dir():
            yield path
        elif path.resolve() not in above:
            yield from _files_below(path, above)
