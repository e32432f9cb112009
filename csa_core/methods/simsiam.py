"""SimSiam pre-training with rwSAM (section C.5): its keys, its step, and the probes that score its encoder.

Two views of an image predict each other (Chen and He, 2021); with rwSAM (Liu et al., 2022) the
gradient is taken a small ascent away, where images with few neighbours count more.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from csa_core import data, evaluation, models, ops
from csa_core.config import PretrainingConfig, RunConfig
from csa_core.data.dataset import Dataset
from csa_core.errors import UserError
from csa_core.methods.base import Method, Setting, Stats, Trainer, Watch

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from csa_core.data.batch import Batch
    from csa_core.data.plan import EpochPlan


class SimSiamConfig(RunConfig):
    """Pre-training without labels."""

    method: Literal["simsiam"] = "simsiam"
    pretraining: PretrainingConfig = PretrainingConfig()
    """SimSiam pre-training: read by simsiam, and by the others where pretrained is true."""

    def read(self) -> dict[str, Any]:
        """Return what determines the result: every key that the run reads, JSON types only."""
        return super().read() | {"pretraining": self.pretraining.read()}

    def parent(self) -> dict[str, Any] | None:
        """Return the plain run among whose features rwSAM measures the density of images; others have none."""
        if self.pretraining.sam != "rwsam":
            return None
        fields = self.model_dump(mode="json")
        return fields | {"pretraining": fields["pretraining"] | {"sam": "none"}}

    @property
    def total_epochs(self) -> int:
        """How many epochs it trains."""
        return self.pretraining.epochs

    @property
    def cost(self) -> str:
        """What the time of an epoch depends on, beside the data and the machine."""
        return f"pre-training{'' if self.pretraining.sam == 'none' else ' with SAM'} of {self.model}"


class SimSiam(Method):
    """An encoder that learns from two views of each image."""

    Config = SimSiamConfig
    heads: ClassVar[tuple[str, ...]] = ("knn", "linear", "knn_untrained")
    predicts: ClassVar[str] = "knn"
    branches: ClassVar[int] = 2
    compiles: ClassVar[bool] = False

    def __init__(self, config: SimSiamConfig, setting: Setting) -> None:
        super().__init__(config, setting)
        self.recipe, count = config.pretraining, len(setting.split.indices)
        if not isinstance(setting.dataset, Dataset):
            raise UserError("method simsiam: pre-trains on images in memory; data.source image_list is not")
        if self.recipe.batch_size > count:
            raise UserError(
                f"pretraining.batch_size: {self.recipe.batch_size} is more than the {count} training images"
            )
        self.weights: Tensor | None = None
        """rwSAM: what each training image counts in the ascent."""

    @cached_property
    def probe(self) -> Any:
        """What scores the encoder."""
        dataset: Any = self.setting.dataset
        return evaluation.Probe(dataset, self.setting.split, self.setting.device)

    def network(self) -> Any:
        """Build encoder, projector and predictor."""
        return models.make_simsiam(self.config.model, self.recipe, self.config.seed)

    def start_from(self, network: Any, parent: dict[str, Tensor]) -> None:
        """Weigh images by their density among the features of a plain encoder; the network starts anew."""
        plain = models.make_body(self.config.model)
        models.load_body(plain, parent)
        features = self.probe.training_features(models.place(plain, self.setting.device))
        self.weights = ops.density_weights(features, self.recipe.density_exponent).to(self.setting.device)

    def trained(self, network: Any) -> list[list[nn.Parameter]]:
        """Return all parameters: each step reaches every one."""
        return [list(network.parameters())]

    def sgd(self) -> dict[str, float]:
        """Return the settings of SGD: lr, momentum, weight_decay."""
        return {key: getattr(self.recipe, key) for key in ("lr", "momentum", "weight_decay")}

    def images(self) -> Any:
        """Return the training images on the device."""
        return data.training_images(self.setting.dataset, self.setting.split, 0, 0.0, self.setting.device)

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate: half a cosine from its start to zero."""
        return self.recipe.lr * (1 + math.cos(math.pi * epoch / self.recipe.epochs)) / 2

    def phase(self, epoch: int) -> str:
        """Name what the steps do."""
        return "pretraining"

    def plan(self, epoch: int) -> EpochPlan[Any]:
        """Draw the images of each step and how their two views are made."""
        setting, config = self.setting, self.config
        count, size = len(setting.split.indices), setting.dataset.image_size
        return data.plan_views(self.recipe, config.seed, config.horizontal_flip, count, size, epoch, setting.device)

    def loss(self, network: Any, batch: Batch, phase: str, watch: Watch) -> tuple[Tensor, Stats]:
        """Return the loss of each image, (B,), and the spread of the projector's outputs.

        Each view is a batch of its own: batch norm does not mix them.
        """
        (first, _), (second, _) = batch.streams["first"], batch.streams["second"]
        z1, p1 = network(self.features(network, first))
        z2, p2 = network(self.features(network, second))
        losses = ops.symmetric_loss(p1, p2, z1, z2)
        spread = (ops.output_spread(z1) + ops.output_spread(z2)) / 2
        return losses, {"loss": losses.detach().mean(), "projector_std": spread}

    def step(self, trainer: Trainer, batch: Batch, phase: str) -> Stats:
        """Train on one batch in two views; return scalars for the history.

        With SAM the gradient is taken at theta + eps, where the loss of the batch is about highest
        nearby; rwSAM finds that place by the weighted loss, and the gradient there is of the plain one.
        """
        network, optimizer = trainer.network, trainer.optimizer
        losses, stats = trainer.objective(batch, phase)
        if self.recipe.sam == "none":
            trainer.update(losses.mean())
            return stats
        parameters = list(network.parameters())
        optimizer.zero_grad()
        trainer.watch("loss", losses)
        weighted = losses if self.weights is None else self.weights[batch.draws["index"]] * losses
        weighted.mean().backward()
        before = ops.ascend(parameters, self.recipe.sam_radius)
        optimizer.zero_grad()
        with models.statistics_at_rest(network):  # they have moved in the first pass
            uphill = trainer.objective(batch, phase)[0].mean()
            trainer.watch("loss at the end of the ascent", uphill)
            uphill.backward()
        ops.restore(parameters, before)
        trainer.check()
        optimizer.step()
        return stats

    def is_steady(self, phase: str) -> bool:
        """No: replaying these steps has not been tried."""
        return False

    def row(self, sums: dict[str, float], steps: int) -> dict[str, Any]:
        """Return a line of the history from the sums over the steps of an epoch."""
        return {
            "loss": sums["loss"] / steps,
            "projector_std": sums["projector_std"] / steps,
            "projector_std_expected": 1 / math.sqrt(self.recipe.projector_width),
        }

    def logits(self, network: Any, final: bool) -> dict[str, np.ndarray]:
        """Return the logits of the nearest-neighbour probe; the final ones also of the others."""
        logits: dict[str, np.ndarray] = self.probe.logits(network.body, self.setting.dataset, linear=final)
        if not final:
            return logits
        untrained = models.place(self.network().body, self.setting.device)
        return logits | {"knn_untrained": self.probe.logits(untrained, self.setting.dataset)["knn"]}

    @classmethod
    def memory(cls, config: SimSiamConfig, size: tuple[int, int]) -> str:
        """Say what takes memory in a run on images of `size`, by its keys."""
        return f"pretraining.batch_size {config.pretraining.batch_size}"
