"""Train a few epochs without batch norm and save every tensor: run by test_ranks.py, alone and by torchrun."""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from csa_core import store
from csa_core.data.ranks import rank
from csa_core.data.sources import load_source
from csa_core.data.split import make_split
from csa_core.methods import parse
from csa_core.methods.csa import Csa
from csa_core.methods.reweighting import Reweighting
from csa_core.train import launch
from csa_core.train.loop import train_epoch
from csa_core.train.run import Run


def without_batch_norm(module: torch.nn.Module) -> None:
    """Take out batch norm, which would see the images of its own rank alone."""
    for name, child in module.named_children():
        if isinstance(child, torch.nn.BatchNorm2d):
            setattr(module, name, torch.nn.Identity())
        else:
            without_batch_norm(child)


def main(config_text: str, out: str) -> None:
    """Train, and let rank 0 write parameters, momentum, bank and the rows of the history."""
    torch.set_num_threads(1)
    config: Any = parse(json.loads(config_text), "test")
    if launch.is_rank():
        launch.join("cpu", config.ranks)
    dataset = load_source(config.data)
    training: Any = sys.modules[Run.__module__]
    place = training.place

    def place_changed(network: torch.nn.Module, device: torch.device) -> Any:
        without_batch_norm(network)
        return place(network, device).double()  # else a unit near zero falls to one side or the other

    training.place = place_changed
    run = Run(config, dataset, make_split(dataset, config.data), torch.device("cpu"))
    normalise = run.images.normalise
    run.images.normalise = lambda pixels: normalise(pixels).double()
    if isinstance(run.method, Csa) and (bank := run.method.bank):
        bank._images_nhwc, bank._masks = bank._images_nhwc.double(), bank._masks.double()
    if isinstance(run.method, Reweighting):
        run.method.weights = run.method.weights.double()
    rows = [train_epoch(run, epoch) for epoch in range(config.epochs)]
    run.images.normalise = normalise
    run.network.float()
    logits = run.scored_logits()["test"]
    if rank() == 0:
        tensors = run.state() | {f"logits/{head}": rows_nk for head, rows_nk in logits.items()}
        store.write_tensors(Path(out), tensors, {"rows": rows})
    launch.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
