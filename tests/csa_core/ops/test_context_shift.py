"""Line 22 of Algorithm 1, pixel by pixel, and its limits."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csa_core.ops.context_shift import context_shift

RNG = torch.Generator().manual_seed(0)
IMAGES, CONTEXTS = (torch.randn(3, 3, 4, 5, generator=RNG) for _ in range(2))
MASKS = torch.rand(3, 1, 4, 5, generator=RNG)


@settings(max_examples=30)
@given(mix=st.floats(0, 1, width=32))
def test_equals_the_formula(mix: float) -> None:
    mixed = context_shift(IMAGES, CONTEXTS, MASKS, torch.tensor(mix)).numpy()
    for i, c, y, x in np.ndindex(mixed.shape):
        weight = mix * float(MASKS[i, 0, y, x])
        by_hand = weight * float(CONTEXTS[i, c, y, x]) + (1 - weight) * float(IMAGES[i, c, y, x])
        assert abs(mixed[i, c, y, x] - by_hand) < 1e-6


def test_mix_zero_leaves_images_unchanged() -> None:
    assert torch.equal(context_shift(IMAGES, CONTEXTS, MASKS, torch.tensor(0.0)), IMAGES)


def test_mix_one_on_pure_background_is_the_context() -> None:
    assert torch.equal(context_shift(IMAGES, CONTEXTS, torch.ones_like(MASKS), torch.tensor(1.0)), CONTEXTS)


def test_where_the_object_is_nothing_changes() -> None:
    assert torch.equal(context_shift(IMAGES, CONTEXTS, torch.zeros_like(MASKS), torch.tensor(1.0)), IMAGES)
