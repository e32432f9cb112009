"""Pre-training: SimSiam, plain, with SAM or with rwSAM (section C.5)."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from csa_core.config import RunConfig
from csa_core.data.augment import TrainingImages
from csa_core.data.dataset import Dataset
from csa_core.data.listed import ImageList
from csa_core.data.split import Split
from csa_core.data.views import PretrainingPlan, plan_pretraining_epoch
from csa_core.errors import UserError
from csa_core.ops.density import density_weights
from csa_core.ops.sam import ascend, restore
from csa_core.ops.simsiam import output_spread, symmetric_loss
from csa_core.models.resnet import make_body
from csa_core.models.simsiam import SimSiam, make_simsiam
from csa_core.store import Tensors
from csa_core.train.probe import Probe
from csa_core.train.run import Trainee, part
from csa_core.train.step import Stats


class PretrainingRun(Trainee):
    """A SimSiam run; `encoder` are the weights of a plain one, which rwsam measures densities with."""

    network: SimSiam

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset | ImageList,
        split: Split,
        device: torch.device,
        encoder: Tensors | None = None,
    ) -> None:
        super().__init__(config, dataset, split, device)
        recipe, count = config.pretraining, len(split.indices)
        if not isinstance(dataset, Dataset):
            raise UserError("method simsiam: pre-trains on images in memory; data.source image_list is not")
        if recipe.batch_size > count:
            raise UserError(f"pretraining.batch_size: {recipe.batch_size} is more than the {count} training images")
        self.epochs = recipe.epochs
        self.images = TrainingImages(dataset, split, 0, device)
        self.network = self.place(make_simsiam(config.model, recipe, config.seed))
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.probe = Probe(dataset, split, device)
        self.weights = torch.ones(count, device=device)
        if encoder is not None:
            plain = make_body(config.model)
            plain.load_state_dict(part(encoder, "body."))
            measured = self.probe.training_features(self.place(plain))
            self.weights = density_weights(measured, recipe.density_exponent).to(device)

    def steps(self, epoch: int) -> Iterator[Stats]:
        """Train one epoch (numbered from 0), a step at a time."""
        size = (self.images.height, self.images.width)
        plan = plan_pretraining_epoch(self.config, len(self.split.indices), size, epoch, self.device)
        for i in range(plan.steps):
            yield simsiam_step(self, plan, i)

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch: half a cosine from its start to zero."""
        return self.config.pretraining.lr * (1 + math.cos(math.pi * epoch / self.epochs)) / 2

    def row(self, epoch: int, sums: dict[str, float], steps: int) -> dict[str, Any]:
        """Return an epoch's line of the history from the sums over its steps."""
        return {
            "phase": "pretraining",
            "loss": sums["loss"] / steps,
            "projector_std": sums["projector_std"] / steps,
            "projector_std_expected": 1 / math.sqrt(self.config.pretraining.projector_width),
        }

    def test_logits(self) -> dict[str, np.ndarray]:
        """Return the logits of the nearest-neighbour probe on the test set."""
        return self.probe.logits(self.network.body)

    def final_logits(self) -> dict[str, np.ndarray]:
        """Return the logits of both probes, and what nearest neighbours tell with the initial weights."""
        untrained = self.place(make_simsiam(self.config.model, self.config.pretraining, self.config.seed)).body
        before = self.probe.logits(untrained)["knn"]
        return self.probe.logits(self.network.body, linear=True) | {"knn_untrained": before}


def simsiam_step(run: PretrainingRun, plan: PretrainingPlan, step: int) -> Stats:
    """Train on one batch in two views; return scalars on the device, no gradient.

    With SAM the gradient is taken at theta + eps, where the loss of the batch is about highest
    nearby; rwSAM finds that place by the weighted loss, and the gradient there is of the plain one.
    """
    index, recipe = plan.index[step], run.config.pretraining
    views = run.images.view(index, plan.first[step]), run.images.view(index, plan.second[step])
    losses, spread = losses_of(run, *views)
    if recipe.sam == "none":
        run.update(losses.mean())
    else:
        parameters = list(run.network.parameters())
        run.optimizer.zero_grad(set_to_none=True)
        run.guard.watch("loss", losses)
        (run.weights[index] * losses).mean().backward()
        before = ascend(parameters, recipe.sam_radius)
        run.optimizer.zero_grad(set_to_none=True)
        follow_statistics(run.network, False)  # they have moved in the first pass
        uphill = losses_of(run, *views)[0].mean()
        run.guard.watch("loss at the end of the ascent", uphill)
        uphill.backward()
        follow_statistics(run.network, True)
        restore(parameters, before)
        run.guard.check()
        run.optimizer.step()
    return {"loss": losses.detach().mean(), "projector_std": spread}


def losses_of(run: PretrainingRun, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss of each image, (B,), and the spread of the projector's outputs, a scalar.

    Each view is a batch of its own: batch norm does not mix them.
    """
    (z1, p1), (z2, p2) = run.network(run.features(first)), run.network(run.features(second))
    return symmetric_loss(p1, p2, z1, z2), (output_spread(z1) + output_spread(z2)) / 2


def follow_statistics(network: torch.nn.Module, follow: bool) -> None:
    """Let the running statistics of batch norm follow the batches, or rest."""
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.track_running_stats = follow
