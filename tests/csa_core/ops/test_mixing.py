"""Two images made one, pixel by pixel in loops."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csa_core.data.plan import draw_boxes, draw_pairs
from csa_core.data.streams import keyed_generator
from csa_core.ops.mixing import inside, mixup, paste, remix_share

GENERATOR = torch.Generator().manual_seed(0)
IMAGES, OTHERS = (torch.randn(3, 3, 6, 5, generator=GENERATOR) for _ in range(2))
sides = st.integers(1, 40)


def test_mixup_is_a_weighted_sum() -> None:
    for share in (0.0, 0.3, 1.0):
        wanted = share * IMAGES.double() + (1 - share) * OTHERS.double()
        found = mixup(IMAGES, OTHERS, torch.tensor(share))
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(mixup(IMAGES, OTHERS, torch.tensor(1.0)), IMAGES)
    assert torch.equal(mixup(IMAGES, OTHERS, torch.tensor(0.0)), OTHERS)


counts = st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=1, max_size=12)


@settings(max_examples=80)
@given(counts, st.integers(0, 100), st.sampled_from([2.0, 3.0]), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_remix_has_the_three_cases_of_its_paper(
    pairs: list[tuple[int, int]], percent: int, kappa: float, tau: float
) -> None:
    share = torch.tensor(percent / 100)
    mine, theirs = (torch.tensor(each, dtype=torch.float32) for each in zip(*pairs, strict=True))
    found = remix_share(share, mine, theirs, kappa, tau).tolist()
    lam = float(share)
    for value, (n_i, n_j) in zip(found, pairs, strict=True):
        wanted = lam
        if n_i >= kappa * n_j and lam < tau:
            wanted = 0.0
        elif n_j >= kappa * n_i and float(1 - share) < tau:
            wanted = 1.0
        assert value == wanted


def test_remix_at_its_limits() -> None:
    """A class of exactly kappa times the images yields; a share of exactly tau does not."""
    small, large = torch.tensor([10.0]), torch.tensor([30.0])
    assert remix_share(torch.tensor(0.25), large, small, 3.0, 0.5).tolist() == [0.0]
    assert remix_share(torch.tensor(0.75), small, large, 3.0, 0.5).tolist() == [1.0]
    for one, other in ((large, small), (small, large)):
        assert remix_share(torch.tensor(0.5), one, other, 3.0, 0.5).tolist() == [0.5]


def test_remix_of_classes_of_one_size_is_mixup() -> None:
    same = torch.tensor([7.0, 7.0])
    assert remix_share(torch.tensor(0.1), same, same, 3.0, 0.5).tolist() == [0.10000000149011612] * 2


def test_a_pixel_lies_in_a_box_from_its_first_to_before_its_last() -> None:
    boxes = torch.tensor([[1, 4, 0, 2], [0, 6, 0, 5], [3, 3, 1, 4], [0, 0, 0, 0]])
    found = inside(boxes, (6, 5))
    assert found.shape == (4, 1, 6, 5)
    for (top, bottom, left, right), mask in zip(boxes.tolist(), found, strict=True):
        for i in range(6):
            for j in range(5):
                assert bool(mask[0, i, j]) == (top <= i < bottom and left <= j < right)
    pasted = paste(IMAGES, OTHERS, boxes[0])
    wanted = IMAGES.clone()
    wanted[:, :, 1:4, 0:2] = OTHERS[:, :, 1:4, 0:2]
    assert torch.equal(pasted, wanted) and torch.equal(paste(IMAGES, OTHERS, boxes[3]), IMAGES)


def test_images_stay_in_channels_last_memory() -> None:
    one, other = (each.contiguous(memory_format=torch.channels_last) for each in (IMAGES, OTHERS))
    for made in (mixup(one, other, torch.tensor(0.3)), paste(one, other, torch.tensor([1, 4, 0, 2]))):
        assert made.is_contiguous(memory_format=torch.channels_last)


@settings(max_examples=40)
@given(st.tuples(sides, sides), st.integers(0, 1000), st.sampled_from([0.2, 1.0, 4.0]))
def test_boxes_lie_in_the_image_and_leave_what_they_say(size: tuple[int, int], seed: int, alpha: float) -> None:
    boxes, kept = draw_boxes(np.random.default_rng(seed), 20, alpha, size)
    assert boxes.shape == (20, 4) and boxes.dtype == np.int64 and kept.dtype == np.float32
    masks = inside(torch.from_numpy(boxes), size)
    for (top, bottom, left, right), share, mask in zip(boxes.tolist(), kept.tolist(), masks, strict=True):
        assert 0 <= top <= bottom <= size[0] and 0 <= left <= right <= size[1]
        assert abs(share - (1 - float(mask.float().mean()))) < 1e-5


def test_boxes_are_cut_mixs() -> None:
    """Side sqrt(1 - lambda), centre uniform: written anew, a box at a time, from the same numbers."""
    size = (16, 12)
    boxes, _ = draw_boxes(keyed_generator(3, "box", 1), 200, 1.0, size)
    rng = keyed_generator(3, "box", 1)
    lam = rng.beta(1.0, 1.0, 200)
    rows, columns = rng.integers(0, 16, 200), rng.integers(0, 12, 200)
    for box, each, row, column in zip(boxes.tolist(), lam.tolist(), rows.tolist(), columns.tolist(), strict=True):
        high, wide = int(16 * (1 - each) ** 0.5) // 2, int(12 * (1 - each) ** 0.5) // 2
        edges = [max(row - high, 0), min(row + high, 16), max(column - wide, 0), min(column + wide, 12)]
        assert box == edges
    # Uncut, a box would leave a half on average; what sticks out of the image is left, too.
    assert 0.5 < draw_boxes(np.random.default_rng(0), 4000, 1.0, (64, 64))[1].mean() < 0.75


def test_pairs_are_permutations_and_shares_follow_their_law() -> None:
    drawn = draw_pairs(lambda name: keyed_generator(0, name, 0), 0.4, 3000, 8)
    assert all(sorted(row) == list(range(8)) for row in drawn["pairs"].tolist())
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)).
    assert abs(drawn["share"].mean() - 0.5) < 0.02 and abs(drawn["share"].var() - 1 / 7.2) < 0.01
