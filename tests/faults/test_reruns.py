"""For each leaf of a run's configuration: a change runs again what reads it, and nothing else."""

from typing import Any

import pytest
import yaml

from csa_core import code
from csa_core.config import DataConfig, PretrainingConfig
from csa_core.methods import METHODS
from csa_core.methods.mislas import CalibrationConfig
from csa_core.methods.second_stage import StageConfig
from tests.conftest import ROOT
from tests.helpers.leaves import LEAVES, RUNS
from workflow.naming import Run
from workflow.plan import Plan

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
# Which method, seed, encoder, first stage and archive a run has, its path says; they are no protocol's to change.
NAMED_BY_THE_PATH = {"method", "seed", "pretrained", "data.source", "pretraining.sam", "first_stage", "data.subset"}
OF_OWN_IMAGES = {"data.val_list", "data.val_folder"}  # refused with the demo's images


def test_the_list_has_every_leaf() -> None:
    keys = {key for method in METHODS.values() for key in method.Config.model_fields}
    leaves = keys - {"data", "pretraining", "second_stage", "mislas"}
    leaves |= {f"data.{key}" for key in DataConfig.model_fields}
    leaves |= {f"pretraining.{key}" for key in PretrainingConfig.model_fields}
    leaves |= {f"second_stage.{key}" for key in StageConfig.model_fields}
    leaves |= {f"mislas.{key}" for key in CalibrationConfig.model_fields}
    assert leaves == LEAVES.keys() | NAMED_BY_THE_PATH | OF_OWN_IMAGES


def runs(**overrides: Any) -> tuple[Plan, dict[str, Run]]:
    plan = Plan(CONFIG | {"overrides": overrides})
    return plan, {name: plan.run(method, changes, 1) for name, (method, changes) in RUNS.items()}


@pytest.fixture(scope="module")
def unchanged() -> tuple[Plan, dict[str, Run]]:
    return runs()


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_changed_leaf_runs_again_what_reads_it(leaf: str, unchanged: tuple[Plan, dict[str, Run]]) -> None:
    value, readers = LEAVES[leaf]
    key, _, inner = leaf.partition(".")
    plan, before = unchanged
    changes = {inner: value} | ({"profile": "selection"} if inner == "selection" else {})
    other, after = runs(**{key: changes if inner else value})
    assert {name for name in RUNS if before[name].json != after[name].json} == readers
    assert {name for name in RUNS if before[name].config.digest() != after[name].config.digest()} == readers
    # The data set is made again for a selection alone, the split for the leaves of its recipe.
    one, two = before["csa"], after["csa"]
    made = [(one.data, plan.data_json(one.data)), (two.data, other.data_json(two.data))]
    assert (made[0] != made[1]) == (leaf == "data.selection")
    recipe = {"data.profile", "data.selection", "data.imbalance_ratio", "data.max_class_count", "data.split_seed"}
    recipe |= {"data.validation"}
    splits = [p.split_json(run.data, run.split) for p, run in ((plan, one), (other, two))]
    assert (one.split != two.split or splits[0] != splits[1]) == (leaf in recipe)


@pytest.mark.parametrize(
    "change", ["# a comment\n", '"""A string that nobody reads."""\n', "\n\n", "x = 1\n", "import os\n"]
)
def test_the_code_digest_is_of_what_the_code_does(change: str) -> None:
    source = (ROOT / "csa_core/methods/csa.py").read_text()
    same = change not in ("x = 1\n", "import os\n")
    assert (code.normalised((source + change).encode()) == code.normalised(source.encode())) is same


def test_another_number_or_sign_or_name_is_another_code() -> None:
    meanings = {
        code.normalised(text.encode())
        for text in ("f(1)", "f(2)", "f(1.0)", "f(-1)", "g(1)", "f(x=1)", "f('1')", "f(None)", "f()", "f([])", "f(f'')",
                     "f(f'{1}')", "f(f'{1!r}')", "f(f'{1:x}')", "f(True)", "f(b'1')", "f(1, 1)", "f(*a)", "f(**a)")
    }  # fmt: skip
    assert len(meanings) == 19


def test_layout_and_docstrings_are_no_part_of_the_code_digest() -> None:
    one = 'def f(a, b=2):\n    """Say."""\n    return (a\n            + b)  # sum\n'
    assert code.normalised(one.encode()) == code.normalised(b"def f(a,b = 2):\n    return a+b")
