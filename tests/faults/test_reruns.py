"""For each leaf of a run's configuration: a change runs again what reads it, and nothing else."""

from typing import Any

import pytest
import yaml

from csa_core import store
from csa_core.config import DataConfig, PretrainingConfig, RunConfig
from tests.conftest import ROOT
from workflow.plan import Plan, Run

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
# One run of every kind, by method and what it changes.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "csa": ("csa", {}),
    "csa without bank": ("csa", {"bank_batches": 0}),
    "csa, adjusted": ("csa", {"resampling_loss": "logit_adjustment"}),
    "ce": ("ce", {}),
    "class_balanced": ("class_balanced", {}),
    "logit_adjustment": ("logit_adjustment", {}),
    "ce, pretrained": ("ce", {"pretrained": True}),
    "simsiam": ("simsiam", {"pretraining.sam": "none"}),
    "sam": ("simsiam", {"pretraining.sam": "sam"}),
    "rwsam": ("simsiam", {}),
}
ALL = set(RUNS)
SUPERVISED = ALL - {"simsiam", "sam", "rwsam"}
CSA = {"csa", "csa without bank", "csa, adjusted"}
BANK = CSA - {"csa without bank"}
PRETRAINED = {"ce, pretrained", "simsiam", "sam", "rwsam"}
# Leaf: another value, and the runs that read the leaf (by hand, from what each method does).
LEAVES: dict[str, tuple[Any, set[str]]] = {
    "model": ("resnet20", ALL),
    "epochs": (40, SUPERVISED),
    "batch_size": (32, SUPERVISED),
    "lr": (0.05, SUPERVISED),
    "lr_schedule": ("cosine", SUPERVISED),
    "lr_warmup_epochs": (2, SUPERVISED),
    "lr_drops": ([20, 25], SUPERVISED),
    "momentum": (0.8, SUPERVISED),
    "weight_decay": (1.0e-3, SUPERVISED),
    "crop_padding": (1, SUPERVISED),
    "colour_jitter": (0.4, set()),
    "precision": ("bfloat16", ALL),
    "ranks": (2, SUPERVISED),
    "sync_batch_norm": (True, set()),
    "horizontal_flip": (True, ALL),
    "evaluate_every": (3, ALL),
    "warmup_epochs": (2, CSA),
    "plain_epochs": (1, CSA),
    "threshold": (0.35, BANK),
    "bank_batches": (3, BANK),
    "bank_reset": ("epoch", BANK),
    "bank_start": ("batch", BANK),
    "mix": (["beta", 5.0, 5.0], BANK),
    "activation_map": ("cam", BANK),
    "mask_exponent": (1.5, BANK),
    "mask_forward": ("eval", BANK),
    "balance_ratio": (0.6, CSA | {"class_balanced"}),
    "uniform_loss": ("logit_adjustment", CSA),
    "resampling_loss": ("logit_adjustment", CSA - {"csa, adjusted"}),
    "logit_adjustment_strength": (0.7, {"logit_adjustment", "csa, adjusted"}),
    "data.profile": ("step", ALL),
    "data.selection": ("some", ALL),
    "data.imbalance_ratio": (20, ALL),
    "data.max_class_count": (200, ALL),
    "data.split_seed": (5, ALL),
    "data.groups": ("cifar100_paper", ALL),
    "data.root": ("elsewhere", set()),
    "data.train_list": ("train.txt", set()),
    "data.test_list": ("test.txt", set()),
    "data.image_size": (24, set()),
    "pretraining.epochs": (31, PRETRAINED),
    "pretraining.batch_size": (64, PRETRAINED),
    "pretraining.lr": (0.01, PRETRAINED),
    "pretraining.momentum": (0.5, PRETRAINED),
    "pretraining.weight_decay": (1.0e-4, PRETRAINED),
    "pretraining.smallest_crop": (0.3, PRETRAINED),
    "pretraining.projector_width": (128, PRETRAINED),
    "pretraining.predictor_width": (32, PRETRAINED),
    "pretraining.sam_radius": (0.1, {"ce, pretrained", "sam", "rwsam"}),
    "pretraining.density_exponent": (0.5, {"ce, pretrained", "rwsam"}),
}
# Which method, seed and encoder a run has, its path says; they are no protocol's to change.
NAMED_BY_THE_PATH = {"method", "seed", "pretrained", "data.source", "pretraining.sam"}


def test_the_list_has_every_leaf() -> None:
    leaves = set(RunConfig.model_fields) - {"data", "pretraining"}
    leaves |= {f"data.{key}" for key in DataConfig.model_fields}
    leaves |= {f"pretraining.{key}" for key in PretrainingConfig.model_fields}
    assert leaves == LEAVES.keys() | NAMED_BY_THE_PATH


def runs(**overrides: Any) -> tuple[Plan, dict[str, Run]]:
    plan = Plan(CONFIG | {"overrides": overrides})
    return plan, {name: plan.run(method, changes, 1) for name, (method, changes) in RUNS.items()}


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_changed_leaf_runs_again_what_reads_it(leaf: str) -> None:
    value, readers = LEAVES[leaf]
    key, _, inner = leaf.partition(".")
    plan, before = runs()
    changes = {inner: value} | ({"profile": "selection"} if inner == "selection" else {})
    other, after = runs(**{key: changes if inner else value})
    assert {name for name in RUNS if before[name].json != after[name].json} == readers
    assert {name for name in RUNS if before[name].config.digest() != after[name].config.digest()} == readers
    # The data set is made again for a selection alone, the split for the leaves of its recipe.
    one, two = before["csa"], after["csa"]
    made = [(one.data, plan.data_json(one.data)), (two.data, other.data_json(two.data))]
    assert (made[0] != made[1]) == (leaf == "data.selection")
    recipe = {"data.profile", "data.selection", "data.imbalance_ratio", "data.max_class_count", "data.split_seed"}
    splits = [p.split_json(run.data, run.split) for p, run in ((plan, one), (other, two))]
    assert (one.split != two.split or splits[0] != splits[1]) == (leaf in recipe)


@pytest.mark.parametrize(
    "change", ["# a comment\n", '"""A string that nobody reads."""\n', "\n\n", "x = 1\n", "import os\n"]
)
def test_the_code_digest_is_of_what_the_code_does(change: str) -> None:
    source = (ROOT / "csa_core/train/step.py").read_text()
    same = change not in ("x = 1\n", "import os\n")
    assert (store.meaning((source + change).encode()) == store.meaning(source.encode())) is same


def test_another_number_or_sign_or_name_is_another_code() -> None:
    meanings = {
        store.meaning(text.encode())
        for text in ("f(1)", "f(2)", "f(1.0)", "f(-1)", "g(1)", "f(x=1)", "f('1')", "f(None)", "f()", "f([])", "f(f'')",
                     "f(f'{1}')", "f(f'{1!r}')", "f(f'{1:x}')", "f(True)", "f(b'1')", "f(1, 1)", "f(*a)", "f(**a)")
    }  # fmt: skip
    assert len(meanings) == 19


def test_layout_and_docstrings_are_no_part_of_the_code_digest() -> None:
    one = 'def f(a, b=2):\n    """Say."""\n    return (a\n            + b)  # sum\n'
    assert store.meaning(one.encode()) == store.meaning(b"def f(a,b = 2):\n    return a+b")
