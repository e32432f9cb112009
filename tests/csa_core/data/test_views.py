"""The views of pre-training against torchvision, image by image, and its distribution of crops."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from csa_core.config import PretrainingConfig
from csa_core.data.augment import TrainingImages
from csa_core.data.dataset import Dataset
from csa_core.data.plan import EpochPlan
from csa_core.data.split import Split
from csa_core.data.views import ORDERS, View, colours, crop_boxes, crops, plan_views
from csa_core.vision import torchvision
from tests.conftest import method_of, tiny

CPU = torch.device("cpu")
SIZE = (16, 12)


def plan(count: int = 120, batch: int = 30, epoch: int = 0, seed: int = 1, flip: bool = True) -> EpochPlan[View]:
    recipe = PretrainingConfig(batch_size=batch)
    return plan_views(recipe, seed, flip, count, SIZE, epoch, CPU)


def by_torchvision(image: Tensor, views: View, i: int, turn: int) -> Tensor:
    """One view of one image, in [0, 1], by torchvision's functions."""
    from torchvision.transforms.v2 import functional

    box = [int(getattr(views, name)[i]) for name in ("top", "left", "height", "width")]
    image = functional.resized_crop(image, *box, list(SIZE), antialias=False)
    image = functional.horizontal_flip(image) if views.flip[i] else image
    changes = [
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    ]
    if views.is_jittered[i]:
        for kind in ORDERS[turn % 24]:
            image = changes[kind](image, float(views.factor[i, kind]))
    return functional.rgb_to_grayscale(image, 3) if views.is_grey[i] else image


def test_a_view_is_what_torchvision_makes_of_each_image() -> None:
    images = torch.rand(30, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    views = plan().streams["first"][1]
    made = colours(crops(images, views), views)
    turns = views.order.argsort()
    assert 0 < views.is_jittered.sum() < 30 and 0 < views.is_grey.sum() < 30
    for i in range(30):
        # kornia weighs red by 0.299 in grey, torchvision by 0.2989.
        torch.testing.assert_close(made[i], by_torchvision(images[i], views, i, int(turns[i])), rtol=0, atol=2e-4)


def test_training_views_are_normalised_crops_of_the_right_images(dataset: Dataset, split: Split) -> None:
    images = TrainingImages(dataset, split, 3, CPU)  # a padding that views must not see
    drawn = plan(count=36, batch=12).streams["second"][0]
    view, labels = images.batch(drawn)
    assert torch.equal(labels, torch.from_numpy(dataset.train_labels[split.indices[drawn.index]]))
    assert view.is_contiguous(memory_format=torch.channels_last) and view.shape == (12, 3, *SIZE)
    pixels = torch.from_numpy(dataset.train_images[split.indices[drawn.index]]).permute(0, 3, 1, 2) / 255
    wanted = colours(crops(pixels, drawn), drawn)
    mean, std = (torch.from_numpy(a).float().view(3, 1, 1) for a in dataset.mean_std)
    torch.testing.assert_close(view, (wanted - mean) / std, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (16, 40)])
def test_crops_are_distributed_as_torchvisions(size: tuple[int, int]) -> None:
    ours = crop_boxes(np.random.default_rng(0).random((4000, 22)), np.array(size[0]), np.array(size[1]), 0.2)
    top, left, height, width = ours
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= size[0]).all() and (left + width <= size[1]).all()
    image = torch.zeros(3, *size)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        transform = torchvision.transforms.RandomResizedCrop
        theirs = np.array([transform.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    for mine, column in zip(ours, theirs.T, strict=True):
        assert stats.ks_2samp(mine, column).pvalue > 1e-3


def test_a_crop_that_never_fits_is_the_middle() -> None:
    top, left, height, width = (a[0] for a in crop_boxes(np.full((1, 22), 0.3), np.array(8), np.array(800), 0.9))
    with torch.random.fork_rng():
        theirs = torchvision.transforms.RandomResizedCrop.get_params(torch.zeros(3, 8, 800), [0.9, 1.0], [3 / 4, 4 / 3])
    assert (top, left, height, width) == theirs


def test_an_epoch_has_each_image_once_and_drops_the_rest() -> None:
    p = plan(count=100, batch=30)
    index, first, second = p.draws["index"], p.streams["first"], p.streams["second"]
    assert p.steps == 3 and index.unique().numel() == 90
    assert torch.equal(first.index, index) and torch.equal(second.index, index), "two views of the same images"
    again, later = plan(count=100, batch=30), plan(count=100, batch=30, epoch=1)
    assert torch.equal(index, again.draws["index"]) and torch.equal(first.factor, again.streams["first"].factor)
    assert not torch.equal(index, later.draws["index"]) and not torch.equal(first.top, second.top)
    assert not plan(count=100, batch=30, seed=2).draws["index"].equal(index)


def test_picks_have_the_shares_they_should() -> None:
    views = plan(count=6000, batch=6000).streams["first"][0]
    assert float(views.is_jittered.float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float(views.is_grey.float().mean()) == pytest.approx(0.2, abs=0.02)
    assert float(views.flip.float().mean()) == pytest.approx(0.5, abs=0.03)
    for kind, reach in enumerate((0.4, 0.4, 0.4, 0.1)):
        centre = 0 if kind == 3 else 1
        uniform = stats.kstest(views.factor[:, kind].numpy(), "uniform", (centre - reach, 2 * reach))
        assert uniform.pvalue > 1e-3
    assert torch.equal(views.order.sort().values, torch.arange(6000))


def test_no_flip_where_the_configuration_wants_none(dataset: Dataset, split: Split) -> None:
    for wanted in (True, False):
        config = tiny(method="simsiam", horizontal_flip=wanted, pretraining={"batch_size": 12, "sam": "none"})
        assert bool(method_of(config, dataset, split).plan(0).streams["first"].flip.any()) is wanted
