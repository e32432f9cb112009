"""The networks of SimSiam around an encoder: projector and predictor."""

import torch
from torch import Tensor, nn

from csa_core.config import PretrainingConfig
from csa_core.models.resnet import make_body


class SimSiamNetwork(nn.Module):
    """Encoder, projector and predictor; the encoder is the body that fine-tuning goes on with."""

    def __init__(self, model: str, config: PretrainingConfig) -> None:
        super().__init__()
        width = config.projector_width
        self.body = make_body(model)
        # Two layers, as for CIFAR; the last batch norm has no scale and no shift (appendix D).
        self.projector = nn.Sequential(
            nn.Linear(self.body.features, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.BatchNorm1d(width, affine=False),
        )
        self.predictor = nn.Sequential(
            nn.Linear(width, config.predictor_width, bias=False),
            nn.BatchNorm1d(config.predictor_width),
            nn.ReLU(),
            nn.Linear(config.predictor_width, width),
        )

    def forward(self, features_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """Return projection and prediction of one view, each (B, d), from the body's feature maps."""
        projected = self.projector(features_bchw.mean((2, 3)))
        return projected, self.predictor(projected)


def make_simsiam(model: str, config: PretrainingConfig, seed: int) -> SimSiamNetwork:
    """Build SimSiam with initial weights that depend on `seed` alone, and touch no global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return SimSiamNetwork(model, config)
