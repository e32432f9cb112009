"""torch.compile changes how fast a run is and how it rounds, and nothing else."""

import os
from pathlib import Path

import pytest
import torch
import yaml

from csa_core import store
from csa_core.data.dataset import Dataset
from csa_core.data.split import Split
from csa_core.errors import UserError
from csa_core.train import compiled
from csa_core.train.run import Run
from tests.conftest import TINY, Cli, tiny
from tests.helpers.runs import results

CPU = torch.device("cpu")


@pytest.mark.long
def test_a_compiled_run_repeats_itself_and_its_cache_serves_the_next(process: Cli, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(TINY))

    def train(name: str, choice: str, *more: str) -> dict[str, bytes]:
        words = [config, "--out", tmp_path / name, "--state", tmp_path / "state", "--threads", 1, "--compile", choice]
        done = process("train", *words, *more, CSA_RETRAIN="1")
        assert done.returncode == 0, done.stderr
        return results(tmp_path / name)

    plain, first = train("plain", "no"), train("first", "yes")
    cache = tmp_path / "state/compiled"
    made = set(cache.rglob("*.so"))
    assert made, "what was compiled is kept beside the states"
    assert train("again", "yes") == first
    assert set(cache.rglob("*.so")) == made, "nothing was compiled twice"
    assert first["weights.safetensors"] != plain["weights.safetensors"], "it was compiled"
    # Later epochs tell nothing: rounding grows with every step that a network learns.
    losses = [float(results["history.csv"].decode().splitlines()[1].split(",")[3]) for results in (plain, first)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3), "it is the same function"
    said = [store.read_json(tmp_path / name / "provenance.json")["compiled"] for name in ("plain", "first")]
    assert said == [False, True]


def test_auto_compiles_only_where_a_run_is_long(
    dataset: Dataset, split: Split, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "g++"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    run = Run(tiny(), dataset, split, CPU)
    called: list[bool] = []
    monkeypatch.setattr(run.network.body, "compile", lambda dynamic: called.append(dynamic))
    assert not compiled.compile_where_it_pays(run, "no")
    assert not compiled.compile_where_it_pays(run, "auto")
    images = 2 * 5 * int(split.class_counts.sum())
    monkeypatch.setattr(compiled, "PAYS_FROM", images)
    assert compiled.compile_where_it_pays(run, "auto") and called == [False]
    monkeypatch.setattr(compiled, "PAYS_FROM", images + 1)
    assert not compiled.compile_where_it_pays(run, "auto") and compiled.compile_where_it_pays(run, "yes")
    monkeypatch.setattr(compiled, "PAYS_FROM", images)
    monkeypatch.setitem(os.environ, "PATH", "")
    assert not compiled.compile_where_it_pays(run, "auto"), "no compiler: long runs go on without"
    with pytest.raises(UserError, match=r"--compile yes: torch.compile needs a C\+\+ compiler"):
        compiled.compile_where_it_pays(run, "yes")


@pytest.mark.parametrize("choice", ["maybe", "0", "off"])
def test_no_other_choice_is_taken_for_yes(choice: str, dataset: Dataset, split: Split) -> None:
    with pytest.raises(UserError, match=f"--compile {choice}: unknown; write auto, yes or no"):
        compiled.compile_where_it_pays(Run(tiny(), dataset, split, CPU), choice)
