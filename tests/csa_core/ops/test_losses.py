"""Losses against NumPy: written anew, an image at a time."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csa_core.ops.losses import LOSSES, effective_number_weights, make_loss

CPU = torch.device("cpu")
COUNTS = np.array([50, 20, 5])
LOGITS = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 2])
KEYS: dict[str, float] = {
    "logit_adjustment_strength": 1.0,
    "focal_exponent": 1.0,
    "vs_exponent": 0.2,
    "ldam_margin": 0.5,
    "ldam_scale": 30.0,
}
WEIGHTS = np.array([0.4, 0.9, 1.7])


def loss(name: str, changes: dict[str, float] | None = None, logits: torch.Tensor = LOGITS, **how: Any) -> Any:
    """Return a loss of the logits with other keys; `how` may have `weight` and `reduction`."""
    return make_loss(name, COUNTS, CPU, SimpleNamespace(**KEYS | (changes or {})))(logits, LABELS, **how)


def cross_entropy(z: np.ndarray, y: int) -> float:
    return float(np.log(sum(np.exp(z - z.max()))) + z.max() - z[y])


def each_by_hand(name: str, keys: dict[str, float]) -> list[float]:
    """The losses of the seven images, from the formulas of the papers."""
    tau, found = keys["logit_adjustment_strength"], []
    prior = [n / 75 for n in COUNTS]
    for z, y in zip(LOGITS.numpy(), LABELS.tolist(), strict=True):
        if name == "focal":
            p = float(np.exp(-cross_entropy(z, y)))
            found.append((1 - p) ** keys["focal_exponent"] * -np.log(p))
            continue
        z = z.copy()
        for k in range(3):
            if name == "vs":
                z[k] = z[k] / (50 / COUNTS[k]) ** keys["vs_exponent"] + tau * np.log(prior[k])
            if name == "logit_adjustment":
                z[k] += tau * np.log(prior[k])
        if name == "ldam":  # of cosines, which the head has multiplied by s
            cosines = z / keys["ldam_scale"]
            cosines[y] -= keys["ldam_margin"] * (5 / COUNTS[y]) ** 0.25
            z = keys["ldam_scale"] * cosines
        found.append(cross_entropy(z, y))
    return found


CASES: list[tuple[str, dict[str, float]]] = [
    ("cross_entropy", {}),
    *(("logit_adjustment", {"logit_adjustment_strength": tau}) for tau in (0.5, 1.0, 2.0)),
    *(("focal", {"focal_exponent": g}) for g in (0.0, 0.5, 1.0, 2.0)),
    ("vs", {}),
    ("vs", {"vs_exponent": 0.4, "logit_adjustment_strength": 0.7}),
    ("ldam", {}),
    ("ldam", {"ldam_margin": 0.3, "ldam_scale": 10.0}),
]


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_each_loss_is_that_of_its_paper(name: str, changes: dict[str, float]) -> None:
    wanted = np.array(each_by_hand(name, KEYS | changes))
    assert float(loss(name, changes)) == pytest.approx(wanted.mean(), rel=1e-6)
    np.testing.assert_allclose(loss(name, changes, reduction="none"), wanted, rtol=1e-6)
    # With weights: each image's loss times that of its class, over the sum of the weights of the batch.
    weight, of_image = torch.tensor(WEIGHTS), WEIGHTS[LABELS.numpy()]
    assert float(loss(name, changes, weight=weight)) == pytest.approx((of_image * wanted).sum() / of_image.sum())
    weighted = loss(name, changes, weight=weight, reduction="none")
    np.testing.assert_allclose(weighted, of_image * wanted, rtol=1e-6)


def test_every_loss_has_a_case() -> None:
    assert {name for name, _ in CASES} == set(LOSSES)


def test_what_one_loss_is_at_the_edge_of_another() -> None:
    plain = loss("cross_entropy")
    assert torch.equal(loss("logit_adjustment", {"logit_adjustment_strength": 0.0}), plain)
    assert torch.equal(loss("vs", {"vs_exponent": 0.0}), loss("logit_adjustment"))
    torch.testing.assert_close(loss("focal", {"focal_exponent": 0.0}), plain)
    torch.testing.assert_close(loss("ldam", {"ldam_margin": 0.0}), plain)
    # Balanced softmax: log n in place of log pi is another constant for all classes.
    balanced = torch.nn.functional.cross_entropy(LOGITS + torch.tensor(np.log(COUNTS)), LABELS)
    torch.testing.assert_close(loss("logit_adjustment"), balanced, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_gradients_are_those_of_finite_differences(name: str, changes: dict[str, float]) -> None:
    z = LOGITS.clone().requires_grad_()
    weight = torch.tensor(WEIGHTS)
    assert torch.autograd.gradcheck(lambda logits: loss(name, changes, logits, weight=weight), (z,))


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_the_focal_loss_of_an_image_that_is_certain_has_a_finite_gradient(exponent: float) -> None:
    """1 - p is 0 in float32, and its root has no slope there."""
    z = torch.tensor([[200.0, 0.0, 0.0]] * 7, requires_grad=True)
    loss("focal", {"focal_exponent": exponent}, z).backward()
    assert z.grad is not None and z.grad.isfinite().all()


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 100_000), min_size=1, max_size=30),
    st.one_of(st.floats(0, 0.99999), st.sampled_from([0.0, 0.9999, 1 - 1e-12])),
)
def test_class_weights_are_of_the_effective_number(counts: list[int], beta: float) -> None:
    weights = effective_number_weights(np.array(counts), beta, CPU).double().numpy()
    # 1 + beta + ... + beta^(n - 1), summed, is what (1 - beta^n) / (1 - beta) stands for.
    number = [sum(beta**i for i in range(n)) if n < 400 else (1 - beta**n) / (1 - beta) for n in counts]
    wanted = np.array([1 / each for each in number])
    np.testing.assert_allclose(weights, wanted / wanted.sum() * len(counts), rtol=2e-4 if beta > 0.99999 else 1e-5)
    assert weights.sum() == pytest.approx(len(counts), rel=1e-5)
    order = np.argsort(counts)
    assert (np.diff(weights[order]) <= 1e-6).all(), "a larger class weighs no more"
