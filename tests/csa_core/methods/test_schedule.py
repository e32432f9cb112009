"""The learning rate, epoch by epoch."""

import pytest
import torch

from csa_core.methods.csa import CsaConfig
from csa_core.methods.schedule import learning_rate
from tests.conftest import tiny


def test_learning_rate_of_the_paper() -> None:
    config = CsaConfig()
    wanted = {0: 0.04, 1: 0.08, 4: 0.2, 5: 0.2, 159: 0.2, 160: 0.02, 179: 0.02, 180: 0.002, 199: 0.002}
    for epoch, rate in wanted.items():
        assert learning_rate(config, epoch) == pytest.approx(rate)


def test_cosine_learning_rate_is_torchs() -> None:
    config = tiny(lr_schedule="cosine", lr=0.2, lr_warmup_epochs=0, epochs=9)
    wanted = torch.optim.SGD([torch.zeros(1)], lr=0.2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(wanted, 9)
    for epoch in range(9):
        assert learning_rate(config, epoch) == pytest.approx(schedule.get_last_lr()[0])
        wanted.step()
        schedule.step()
    assert learning_rate(tiny(lr_schedule="cosine", lr=0.2, lr_warmup_epochs=4), 0) == pytest.approx(0.05)
