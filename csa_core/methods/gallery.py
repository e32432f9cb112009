"""What a trained run sees: images, object maps, background masks, contexts and mixed images."""

from typing import Any

import torch

from csa_core.errors import UserError
from csa_core.methods.base import Method
from csa_core.methods.csa import Csa
from csa_core.models.resnet import Network
from csa_core.ops.activation_map import activation_map, background_mask, object_map
from csa_core.ops.context_shift import context_shift
from csa_core.store import Tensors


@torch.no_grad()
def show_contexts(method: Method, network: Network, count: int) -> tuple[Tensors, dict[str, Any]]:
    """Return `count` examples (at most a batch) as arrays in [0, 1], and class names and mixing weights.

    Contexts are the most confident images of the first batch of the last epoch; each is mixed
    into a re-sampled image of the same epoch. The network is in eval mode.

    Raises:
        UserError: the run is not csa, or it finds no objects.
    """
    config, device = method.config, method.setting.device
    if not isinstance(method, Csa):
        raise UserError(f"contexts: the run's method is {config.method}; only csa shifts contexts")
    if config.activation_map == "box":
        raise UserError("contexts: the run has activation_map: box; it finds no object that could be shown")
    images, plan = method.images(), method.plan(config.epochs - 1)
    count = min(count, config.batch_size)
    first = next(images.batches(plan))
    contexts, labels = first.streams["uniform"]
    network.eval()
    features = network.body(contexts)
    confidence = network.head("uniform", features).softmax(1).gather(1, labels[:, None])[:, 0]
    top = confidence.topk(count).indices
    contexts, labels, confidence = contexts[top], labels[top], confidence[top]
    activation = activation_map(features[top], network.weight("uniform"), labels, config.activation_map)
    objects = object_map(activation, (images.height, images.width))
    masks = background_mask(objects, config.mask_exponent)
    resampled, their_labels = (part[:count] for part in first.streams["resampled"])
    mix = torch.linspace(0.5, 1.0, count, device=device)
    mixed = context_shift(resampled, contexts, masks, mix.view(-1, 1, 1, 1))
    undo = images.normalise.undo
    tensors = {
        "context": undo(contexts),
        "object": objects.expand_as(contexts),
        "mask": masks.expand_as(contexts),
        "resampled": undo(resampled),
        "mixed": undo(mixed),
    }
    names = method.setting.dataset.class_names
    meta = {
        "context_class": [names[k] for k in labels.tolist()],
        "context_label": labels.tolist(),
        "confidence": confidence.tolist(),
        "resampled_class": [names[k] for k in their_labels.tolist()],
        "resampled_label": their_labels.tolist(),
        "mix": mix.tolist(),
    }
    return {k: v.permute(0, 2, 3, 1).cpu().numpy() for k, v in tensors.items()}, meta
