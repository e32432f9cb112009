"""Golden numbers: what identifies a configuration, and what training makes of it, as they were written down.

`UPDATE_GOLDEN=1 python -m pytest tests/csa_core/train/test_golden.py` writes golden.json anew. The bytes
of a state hold for one kind of processor and version of torch, named beside them: where that is another
one, the losses of the first steps must be close, and UPDATE_GOLDEN=1 adds its bytes.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csa_core import store
from csa_core.config import set_dotted
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.methods import parse, recipe
from csa_core.models.precision import instruction_sets
from csa_core.train.loop import train_epoch
from csa_core.train.run import Run
from tests.conftest import tiny

GOLDEN = Path(__file__).parent / "golden.json"
METHODS: dict[str, dict[str, Any]] = {
    "csa": {},
    "csa without bank": {"bank_batches": 0},
    "csa, adjusted": {"resampling_loss": "logit_adjustment"},
    "csa, pretrained": {"pretrained": True},
    "ce": {"method": "ce"},
    "class_balanced": {"method": "class_balanced"},
    "logit_adjustment": {"method": "logit_adjustment"},
    "simsiam": {"method": "simsiam", "pretraining.sam": "none"},
    "sam": {"method": "simsiam", "pretraining.sam": "sam"},
    "rwsam": {"method": "simsiam"},
}
# Methods and options that came later, each by itself, so that the digests above are as they were.
LATER: dict[str, dict[str, Any]] = {
    "progressive": {"method": "progressive"},
    "drs": {"method": "drs"},
    "reweighting": {"method": "reweighting"},
    "drw": {"method": "reweighting", "reweighting": "deferred"},
    "focal, class-balanced": {"method": "focal", "reweighting": "always"},
    "ldam-drw": {"method": "ldam", "reweighting": "deferred"},
    "vs": {"method": "vs"},
    "mixup": {"method": "mixup"},
    "remix-drw": {"method": "remix", "reweighting": "deferred"},
    "cmo": {"method": "cmo"},
    "cmo with ldam-drw": {"method": "cmo", "loss": "ldam", "reweighting": "deferred"},
    "csa, sampled prior": {"resampling_loss": "logit_adjustment", "resampling_prior": "sampled", "balance_ratio": 0.5},
    "csa, mixup": {"uniform_mixup": 1.0},
    "csa, box": {"activation_map": "box"},
}
# Those that start from the run `ce`.
STAGED: dict[str, dict[str, Any]] = {
    "crt": {"method": "crt", "second_stage": {"epochs": 3, "lr": 0.05, "lr_drops": [2]}},
    "lws": {"method": "lws", "second_stage": {"epochs": 3, "lr": 0.05, "lr_drops": [2]}},
    "mislas": {"method": "mislas", "mislas": {"epochs": 3}},
}
LISTS = {"data.train_list": "a/train.txt", "data.test_list": "a/test.txt"}
SOURCES: dict[str, dict[str, Any]] = {
    "cifar100": {},
    "demo": {"data.source": "demo", "data.max_class_count": 100},
    "folder": {"data.source": "folder", "data.root": "b", "data.profile": "as_is", "data.image_size": 48},
    "image_list": {"data.source": "image_list", "data.profile": "as_is"} | LISTS,
    "selection": {"data.profile": "selection", "data.selection": "cifar100-lt-ir100"},
}
CHANGES: dict[str, Any] = {
    "nothing": {},
    "seed": 2,
    "model": "resnet20",
    "epochs": 190,
    "batch_size": 64,
    "lr": 0.05,
    "lr_schedule": "cosine",
    "lr_drops": [150],
    "momentum": 0.8,
    "weight_decay": 1e-3,
    "crop_padding": 1,
    "horizontal_flip": False,
    "colour_jitter": 0.4,
    "precision": "bfloat16",
    "ranks": 2,
    "evaluate_every": 3,
    "warmup_epochs": 2,
    "plain_epochs": 1,
    "threshold": 0.35,
    "bank_reset": "epoch",
    "mix": ["beta", 5.0, 5.0],
    "activation_map": "cam",
    "mask_exponent": 1.5,
    "mask_forward": "eval",
    "balance_ratio": 0.6,
    "uniform_loss": "logit_adjustment",
    "logit_adjustment_strength": 0.7,
    "data.imbalance_ratio": 20,
    "data.split_seed": 5,
    "data.groups": "cifar100_paper",
    "pretraining.lr": 0.01,
    "pretraining.density_exponent": 0.5,
}
RECIPE = {"epochs": 3, "batch_size": 12, "lr": 0.05, "projector_width": 24, "predictor_width": 8}
RUNS: dict[str, dict[str, Any]] = {
    "csa": {},
    "csa, bfloat16": {"precision": "bfloat16"},
    "csa without bank": {"bank_batches": 0},
    "csa, cam": {"activation_map": "cam"},
    "csa, eval mask": {"mask_forward": "eval"},
    "csa, bank reset": {"bank_reset": "epoch", "bank_batches": 2},
    "csa, uniform branch adjusted": {"uniform_loss": "logit_adjustment"},
    "csa, re-sampling branch adjusted": {"resampling_loss": "logit_adjustment"},
    "ce": {"method": "ce"},
    "class_balanced": {"method": "class_balanced"},
    "logit_adjustment": {"method": "logit_adjustment"},
    **LATER,
    **STAGED,
    "simsiam": {"method": "simsiam", "pretraining": RECIPE | {"sam": "none"}},
    "sam": {"method": "simsiam", "pretraining": RECIPE | {"sam": "sam"}},
    "rwsam": {"method": "simsiam", "pretraining": RECIPE | {"sam": "rwsam"}},
}


def processor() -> str:
    """Return all that rounding may depend on: processor, its instructions as torch uses them, torch."""
    path = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*: (.*)", path.read_text()) if path.exists() else None
    sets = "+".join(sorted(instruction_sets()))
    return f"{named[1] if named else '?'} {torch.backends.cpu.get_cpu_capability()} {sets} torch {torch.__version__}"


def golden(part: str, value: Any) -> Any:
    """Return what is written down of a part; with UPDATE_GOLDEN write `value` down first."""
    stated = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("UPDATE_GOLDEN"):
        others = stated.get(part, {}) if part == "states" else {}
        # Where the numbers here are others now, those of other processors hold no longer either.
        same = bool(others) and all(others.get(key, {}).items() <= new.items() for key, new in value.items())
        stated[part] = others | value if same else value
        GOLDEN.write_text(json.dumps(stated, indent=1) + "\n")
    return stated[part]


def test_a_configuration_has_the_digest_that_it_had() -> None:
    """All, and by what was changed, so that a difference tells which key it is of."""
    digests: dict[str, list[str]] = {change: [] for change in CHANGES}
    literal = {}
    for method, of_method in METHODS.items():
        for source, of_source in SOURCES.items():
            for change, value in CHANGES.items():
                fields: dict[str, Any] = {}
                over = {change: value} if value != {} else {}
                for key, leaf in (of_method | of_source | over).items():
                    fields = set_dotted(fields, key, leaf)
                digests[change].append(parse(recipe(fields, fields.get("method", "csa")), "test").digest())
            if source in ("cifar100", "selection"):
                literal[f"{method}, {source}"] = digests["nothing"][-1]
    assert sum(map(len, digests.values())) >= 540
    by_change = {change: hashlib.sha256("".join(each).encode()).hexdigest()[:16] for change, each in digests.items()}
    everything = hashlib.sha256("".join(map("".join, digests.values())).encode()).hexdigest()
    found = literal | by_change | {"all": everything}
    assert found == golden("configurations", found)


def test_what_came_later_keeps_its_digest_from_then_on() -> None:
    found = {name: parse(fields, "test").digest() for name, fields in (LATER | STAGED).items()}
    assert found == golden("later configurations", found)


def network_of(run: Run) -> store.Tensors:
    """Return the network's part of a run's state."""
    return {key.removeprefix("network/"): array for key, array in run.state().items()}


@pytest.fixture(scope="module")
def trained(dataset: Dataset, split: Split) -> dict[str, tuple[list[float], dict[str, str]]]:
    """The first losses of each run, and a digest of each part of its last state.

    A second stage makes much of the last bits of a trained network, so its losses are those on an untrained one.
    """
    found = {}
    networks: dict[str, store.Tensors] = {}
    for name, changes in RUNS.items():
        config = tiny(**changes)
        parent = "simsiam" if name == "rwsam" else "ce" if name in STAGED else ""
        run = Run(config, dataset, split, torch.device("cpu"), networks.get(parent))
        if name == "ce":
            networks["untrained"] = {key: array.copy() for key, array in network_of(run).items()}
        rows = [train_epoch(run, epoch) for epoch in range(config.total_epochs)]
        if name in STAGED:
            untrained = Run(config, dataset, split, torch.device("cpu"), networks["untrained"])
            rows = [train_epoch(untrained, epoch) for epoch in range(2)]
        losses = [row[key] for row in rows[:2] for key in ("loss", "resampling_loss") if key in row]
        state = run.state()
        networks[name] = network_of(run)
        state = {key.removeprefix("method/"): array for key, array in state.items()}
        parts = {part: hashlib.sha256() for part in sorted({key.partition("/")[0] for key in state})}
        for key, array in sorted(state.items()):
            parts[key.partition("/")[0]].update(key.encode() + np.ascontiguousarray(array).tobytes())
        found[name] = losses, {part: sha.hexdigest() for part, sha in parts.items()}
    return found


@pytest.mark.parametrize("name", RUNS)
def test_first_losses_are_the_golden_ones(name: str, trained: dict[str, tuple[list[float], dict[str, str]]]) -> None:
    """The tolerance covers other processors' rounding over two epochs, not another algorithm."""
    wanted = golden("losses", {name: losses for name, (losses, _) in trained.items()})
    rtol = 2e-2 if "bfloat16" in name else 2e-3
    np.testing.assert_allclose(trained[name][0], wanted[name], rtol=rtol, atol=1e-3)  # that of simsiam is near zero


def test_weights_momentum_and_bank_are_the_same_to_the_bit(
    trained: dict[str, tuple[list[float], dict[str, str]]],
) -> None:
    states = {name: parts for name, (_, parts) in trained.items()}
    known = golden("states", {processor(): states})
    if processor() not in known:
        pytest.skip(f"no states of {processor()} are written down; their losses were compared")
    # Runs that are newer than what is written down of this processor are left out.
    assert {name: states[name] for name in known[processor()]} == known[processor()]
