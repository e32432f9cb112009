"""The batched crop, flip and normalisation against torchvision, image by image."""

import tracemalloc

import numpy as np
import torch

from csa_core.data.augment import TrainingImages, evaluation_batches
from csa_core.data.batch import Normaliser
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.vision import torchvision
from tests.conftest import method_of, tiny

CPU = torch.device("cpu")


def test_a_batch_is_what_torchvision_makes_of_each_image(dataset: Dataset, split: Split) -> None:
    from torchvision.transforms.v2 import functional as T

    assert torchvision.__version__
    padding = 3
    images = TrainingImages(dataset, split, padding, CPU)
    config = tiny(crop_padding=padding, horizontal_flip=True)
    picks = method_of(config, dataset, split).plan(0).streams["uniform"][0]
    batch, labels = images.batch(picks)
    assert picks.flip.any() and not picks.flip.all()
    assert batch.is_contiguous(memory_format=torch.channels_last)
    mean, std = dataset.mean_std
    for i in range(len(labels)):
        number = split.indices[picks.index[i]]
        image = torch.from_numpy(dataset.train_images[number]).permute(2, 0, 1)
        image = T.pad(image, [padding])
        image = T.crop(image, int(picks.top[i]), int(picks.left[i]), 16, 12)
        image = T.horizontal_flip(image) if picks.flip[i] else image
        wanted = T.normalize(image.double() / 255, mean.tolist(), std.tolist())
        torch.testing.assert_close(batch[i].double(), wanted, rtol=1e-5, atol=1e-5)
        assert labels[i] == dataset.train_labels[number]


def test_mean_and_std_are_numpys(dataset: Dataset) -> None:
    pixels = dataset.train_images / 255
    np.testing.assert_allclose(dataset.mean_std[0], pixels.mean((0, 1, 2)))
    np.testing.assert_allclose(dataset.mean_std[1], pixels.std((0, 1, 2)))


def test_mean_and_std_take_no_copy_of_the_images() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1250, 32, 32, 3), dtype=np.uint8)
    labels = np.zeros(len(images), dtype=np.int64)
    dataset = Dataset("demo", ("a", "b"), images, labels, images[:1], labels[:1], digest="any")
    tracemalloc.start()
    found = dataset.mean_std
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < images.nbytes / 2
    np.testing.assert_allclose(found[1], (images / 255).std((0, 1, 2)))


def test_normalising_can_be_undone(dataset: Dataset) -> None:
    normalise = Normaliser(dataset.mean_std, CPU)
    pixels = torch.from_numpy(dataset.test_images[:5])
    torch.testing.assert_close(normalise.undo(normalise(pixels)).permute(0, 2, 3, 1), pixels / 255, rtol=0, atol=1e-6)


def test_the_test_set_comes_whole_and_in_order(dataset: Dataset) -> None:
    batches = list(evaluation_batches(dataset, CPU, size=50))
    assert max(map(len, batches)) <= 50
    together = torch.cat(batches)
    torch.testing.assert_close(together, Normaliser(dataset.mean_std, CPU)(torch.from_numpy(dataset.test_images)))
