"""The plan: names of runs, what a change touches, and mistakes in config.yaml."""

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from csa_core.config import DataConfig
from csa_core.errors import UserError
from csa_core.methods.csa import CsaConfig
from tests.conftest import ROOT
from workflow.plan import Plan
from workflow.sources import contents

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())


def plan(**changes: Any) -> Plan:
    return Plan(CONFIG | changes)


def folders(plan: Plan, table: str) -> set[str]:
    return {run.folder for run in plan.runs_of(table)}


def test_a_run_is_named_by_what_it_changes() -> None:
    p = plan()
    assert p.run("csa", {}, 1).folder == "results/demo/runs/csa/seed=1"
    assert p.run("csa", {"threshold": 0.3}, 2).folder == "results/demo/runs/csa/threshold=0.3/seed=2"
    assert p.run("csa", {"threshold": 0}, 1).name == "csa/threshold=0.0"
    assert p.run("csa", {"threshold": 0.8}, 1).name == "csa", "the protocol's own value is no change"
    assert p.run("csa", {"mix": ["beta", 2, 2], "bank_batches": 4}, 1).name == "csa/bank_batches=4+mix=beta,2.0,2.0"
    assert p.run("csa", {"data.imbalance_ratio": 10}, 1).name == "csa/data.imbalance_ratio=10.0"


BACK = [
    ("crt", {"batch_norm": "moving"}, {"batch_norm": "frozen"}),
    ("csa", {"bank_start": "batch"}, {"bank_start": "full"}),
    ("csa", {"uniform_mixup": 1.0}, {"uniform_mixup": 0.0}),
    (
        "csa",
        {"resampling_loss": "logit_adjustment", "resampling_prior": "sampled"},
        {"resampling_prior": "training_set"},
    ),
    ("csa", {"data": {"validation": 0.1}}, {"data.validation": 0.0}),
    ("crt", {"first_stage": "csa", "uniform_mixup": 1.0}, {"uniform_mixup": 0.0}),
    ("csa", {"threshold": 0.3}, {"threshold": 0.8}),
]


@pytest.mark.parametrize(("method", "overrides", "changes"), BACK)
def test_a_row_can_set_back_what_an_override_changed(
    method: str, overrides: dict[str, Any], changes: dict[str, Any]
) -> None:
    """A key that came later and says what was done before is left out of the identity, and read all the same."""
    p = plan(overrides=overrides)
    run = p.run(method, changes, 1)
    (key,) = changes
    assert run.digest != p.run(method, {}, 1).digest and run.name == f"{method}/{key}={changes[key]}"
    assert p.run_at(run.name, "1") == run
    value: Any = run.config
    for part in key.split("."):
        value = getattr(value, part)
    assert value == changes[key]


NAMES = ["csa", "ce", "csa/threshold=0.3", "csa/bank_batches=4+mix=beta,2.0,2.0", "csa/data.split_seed=3"]
NAMES += ["csa/lr_drops=10,", "csa/lr_drops=,", "csa/lr_drops=8,9", "csa/activation_map=cam", "csa/weight_decay=1e-05"]


@pytest.mark.parametrize("name", [*NAMES, "class_balanced/balance_ratio=0.5"])
def test_a_typed_path_is_a_run(name: str) -> None:
    assert plan().run_at(name, "7").folder == f"results/demo/runs/{name}/seed=7"


@pytest.mark.parametrize("protocol", ["demo", "short", "paper", "imagenet_lt"])
def test_the_path_of_every_planned_run_is_that_run(protocol: str) -> None:
    p = plan(protocol=protocol, seeds=[1])
    for run in p.all_runs():
        assert p.run_at(run.name, "1") == run


@pytest.mark.parametrize(
    ("name", "seed", "match"),
    [
        ("csa/threshold=0.30", "1", "is called results/demo/runs/csa/threshold=0.3/seed=1"),
        ("csa/threshold=0.8", "1", "is called results/demo/runs/csa/seed=1"),
        ("csa", "01", "is called results/demo/runs/csa/seed=1"),
        ("csa/treshold=0.3", "1", "did you mean 'threshold'"),
        ("csa/threshold=3", "1", "less than or equal to 1"),
        ("csa/threshold", "1", "'threshold' is no key=value"),
        ("ce/threshold=0.3", "1", "threshold: method ce does not read it"),
        ("csa/bank_batches=0+threshold=0.3", "1", "threshold has no effect"),
        ("cas", "1", "did you mean 'csa'"),
        ("csa/threshold=NaN", "1", "NaN and infinity are not allowed"),
        ("csa/seed=3", "1", "seed is not a change"),
        ("csa/method=ce", "1", "method is not a change"),
        ("csa/data.root=elsewhere", "1", "data.root has no effect"),
        ("csa/data.image_size=32", "1", "data.image_size has no effect"),
        ("csa/lr_drops=10", "1", "lr_drops: input should be a valid array"),
    ],
)
def test_a_typed_path_that_is_no_run_says_why(name: str, seed: str, match: str) -> None:
    with pytest.raises(UserError, match=match):
        plan().run_at(name, seed)


def test_two_ratios_are_two_splits_however_close() -> None:
    names = [plan().run("csa", {"data.imbalance_ratio": ratio}, 1).split for ratio in (100.0, 100.00001, 1e6, 12.5)]
    ratios = [name.removeprefix("exponential-").removesuffix("-split_seed=0") for name in names]
    assert ratios == ["100", "100.00001", "1e+06", "12.5"]


def test_a_typed_path_brings_its_split_and_a_name_alone_does_not() -> None:
    p = plan()
    planned, data = p.splits(), p.data_json("demo")
    assert planned == ["results/data/demo/exponential-50-split_seed=0.json"]
    run = p.run("csa", {"data.split_seed": 3}, 7)
    with pytest.raises(UserError, match="no run uses it, did you mean 'exponential-50-split_seed=0'"):
        p.split_json(run.data, run.split)
    assert p.splits() == planned
    typed = p.run_at("csa/data.split_seed=3", "7")
    assert typed == run and '"split_seed":3' in p.split_json(run.data, run.split)
    assert p.data_json(run.data) == data


def test_tables_share_runs() -> None:
    p = plan()
    reference = {f"results/demo/runs/csa/seed={seed}" for seed in (1, 2, 3)}
    assert folders(p, "table4") == reference
    assert reference < folders(p, "table2") and len(folders(p, "table2")) == 30
    assert reference < folders(p, "table1")


def test_a_seed_or_a_value_adds_its_own_runs_alone() -> None:
    more = folders(plan(seeds=[1, 2, 3, 4]), "table2") - folders(plan(), "table2")
    assert {folder[-6:] for folder in more} == {"seed=4"} and len(more) == 10
    other = folders(plan(sweeps=CONFIG["sweeps"] | {"threshold": [0.8, 0.25]}), "table2") - folders(plan(), "table2")
    assert other == {f"results/demo/runs/csa/threshold=0.25/seed={seed}" for seed in (1, 2, 3)}


def test_a_change_of_the_protocol_touches_the_runs_that_read_it() -> None:
    def configs(p: Plan) -> dict[str, str]:
        return {run.folder: run.json for run in p.runs_of("baselines")}

    before, after = configs(plan()), configs(plan(overrides={"mix": ["beta", 1.0, 3.0]}))
    changed = {folder for folder in before if before[folder] != after[folder]}
    assert changed == {f"results/demo/runs/csa/seed={seed}" for seed in (1, 2, 3)}
    after = configs(plan(overrides={"epochs": 10, "lr_drops": [8, 9]}))
    assert all(before[folder] != after.get(folder) for folder in before)


def test_nested_overrides_keep_what_they_do_not_name() -> None:
    data = plan(overrides={"data": {"imbalance_ratio": 20}}).run("csa", {}, 1).config.data
    assert (data.source, data.imbalance_ratio) == ("demo", 20)


def test_the_paper_protocol_is_the_default_configuration() -> None:
    p = plan(protocol="paper")
    config = p.run("csa", {}, 1).config
    assert config == CsaConfig(data=DataConfig(groups="cifar100_paper"), evaluate_every=10)


def test_printed_values_stand_beside_the_paper_protocol_alone() -> None:
    assert [row.paper for row in plan(protocol="paper").rows("table4")][1] == {
        "all": 45.8, "many": 64.3, "medium": 49.7, "few": 18.2,
    }  # fmt: skip
    assert plan(protocol="paper").rows("table2")[3].paper == {"all": 44.83}
    for other in (plan(), plan(protocol="paper", overrides={"threshold": 0.7})):
        assert not any(row.paper for table in other.tables for row in other.rows(table))


def test_where_the_same_images_come_from_does_not_forbid_printed_values() -> None:
    own = {"data.source": "folder", "data.root": "elsewhere"}
    assert plan(protocol="paper", overrides={"data": {"root": "elsewhere"}}).declaration("table4")["paper_heading"]
    assert plan(protocol="short", overrides=own).rows("table4")[1].paper["all"] == 45.8
    listed = {"data.profile": "selection", "data.selection": "cifar100-lt-ir100"}
    assert plan(protocol="paper", overrides=own | listed).declaration("table6")["paper_heading"] == "paper"
    assert plan(protocol="short", overrides=listed).declaration("table4")["paper_heading"]
    other_list = {"data.profile": "selection", "data.selection": "mine.txt"}
    for other in ({"data.source": "demo"}, own | {"epochs": 40}, {"data.imbalance_ratio": 10}, other_list):
        p = plan(protocol="paper", overrides=other | {"lr_drops": []})
        assert p.declaration("table4")["paper_heading"] is None and not p.rows("table4")[1].paper


def test_a_protocol_says_what_heads_the_papers_values(tmp_path: Path) -> None:
    headings = [plan(protocol=name).declaration("table1")["paper_heading"] for name in ("paper", "short", "demo")]
    assert headings == ["paper", "paper, 200 epochs", None]
    path = tmp_path / "mine.yaml"
    path.write_text("data: {source: demo}\npaper_values: paper, other images")
    assert plan(protocol=str(path)).rows("table1")[1].paper["all"] == 41.2
    path.write_text("data: {source: demo}\npaper_values: 3")
    with pytest.raises(UserError, match="paper_values: input should be a valid string"):
        plan(protocol=str(path))


def test_claims_name_the_papers_rows_whatever_is_swept() -> None:
    sweeps = CONFIG["sweeps"] | {"threshold": [0.1, 0.8, 0.85], "bank_batches": [1], "mix": [["uniform", 0, 1]]}
    few, usual = plan(sweeps=sweeps), plan()
    for table, count in (("table2", 10), ("table3", 7), ("figure1", 10)):
        (claim,) = [c for c in few.declaration(table)["claims"] if c["kind"] == "best"]
        names = {row.name for row in usual.rows(table)} - {"×64, from one batch on"}  # not the appendix's
        assert len(claim["among"]) == count and set(claim["among"]) == names
    assert few.rows("table2")[2].label == "0.85"


def test_a_row_of_more_epochs_drops_its_learning_rate_later() -> None:
    p = plan(overrides={"epochs": 10, "lr_drops": [8, 9]})
    (run,) = {run.name for run in p.runs_of("baselines") if "epochs" in run.name}
    assert run == "ce/epochs=20+lr_drops=16,18"
    (run,) = {run.name for run in plan(overrides={"lr_schedule": "cosine"}).runs_of("baselines") if "epo" in run.name}
    assert run == "ce/epochs=60"


def test_a_share_of_the_epochs_is_of_those_that_the_row_trains(tmp_path: Path) -> None:
    sweeps = {"sweeps": CONFIG["sweeps"] | {"epochs": [30, 40]}}
    swept = {"sweep": "epochs", "label": "{value}"}

    def trained(**row: Any) -> list[tuple[int, list[int], int]]:
        configs: list[Any] = [
            row.runs[0].config for row in plan(**sweeps, **own_table(tmp_path, {}, **row)).rows("own")
        ]
        return [(each.epochs, list(each.lr_drops), each.warmup_epochs) for each in configs]

    assert trained(epochs_times=2, warmup_share=0.5, sweep="epochs", label="{value}") == [
        (60, [48, 54], 30),
        (80, [48, 54], 40),
    ]
    assert trained(warmup_share=0.5, **swept) == [(30, [24, 27], 15), (40, [24, 27], 20)]
    assert trained(epochs_times=2, **swept) == [(60, [48, 54], 3), (80, [48, 54], 3)]


def test_a_row_says_more_than_the_protocol_says_of_its_table(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {source: demo}\nmodel: resnet8\ntables: {own: {data.imbalance_ratio: 10}}\n")
    rows = plan(
        protocol=str(path),
        **own_table(tmp_path, {}, {"data": {"imbalance_ratio": 20}}, {"data.imbalance_ratio": 20}),
    ).rows("own")
    assert [row.runs[0].config.data.imbalance_ratio for row in rows] == [10, 20, 20]


def test_figures_are_named_by_kind_and_table() -> None:
    p = plan()
    assert p.drawn("figure1") == ("points", "figure1") and p.drawn("curves-table5") == ("curves", "table5")
    assert p.drawn("table2") == ("points", "table2") and p.drawn("confusion-table2") == ("confusion", "table2")
    for name in ("figure3", "curves", "curves-table9", "pies-table2", "points-table2"):
        with pytest.raises(UserError, match="no such figure"):
            p.drawn(name)


def test_each_table_has_one_reference_row_at_most_and_the_demo_all_have_one() -> None:
    p = plan()
    for table in p.tables:
        assert sum(row.reference for row in p.rows(table)) == (table != "encoders"), table


SWEEPS = {key: values for key, values in CONFIG["sweeps"].items() if key != "threshold"}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"protocol": "papper"}, "protocol: unknown name 'papper', did you mean 'paper'?"),
    ({"protocol": "gone.yaml"}, "gone.yaml: cannot be read"),
    ({"sedes": [1]}, "unknown key 'sedes': did you mean 'seeds'?"),
    ({"seeds": []}, "seeds: list should have at least 1 item"),
    ({"seeds": [1, 1]}, "names a seed twice"),
    ({"seeds": [1.5]}, "seeds.0: input should be a valid integer"),
    ({"seeds": 3}, "seeds: input should be a valid array"),
    ({"sweeps": SWEEPS}, "sweeps.threshold is missing, table2 needs it"),
    (
        {"sweeps": SWEEPS | {"threshold": [2.0]}},
        "config.yaml: sweeps.threshold: threshold: input should be less than or equal to 1",
    ),
    ({"overrides": {"epoch": 3}}, "config.yaml: overrides: unknown key 'epoch': did you mean 'epochs'?"),
    ({"overrides": {"data": {"sauce": "demo"}}}, "unknown key 'data.sauce'"),
    ({"overrides": {"seed": 3}}, "config.yaml: overrides: seed cannot be set for all runs; seeds in config.yaml are"),
    ({"gpus": 0}, "config.yaml: gpus: input should be a valid array, got 0; write a list, as [0]"),
    ({"seeds": 3}, "config.yaml: seeds: input should be a valid array, got 3; write a list, as [3]"),
    ({"code_version": "a b"}, "code_version: 'a b' cannot be used; write it with letters, digits and . _ + - alone"),
    ({"overrides": {"epochs": 20}}, "a drop after epoch 27 never comes in 20 epochs"),
    ({"overrides": {"warmup_epochs": 30}}, "the head that predicts would never be trained"),
    ({"device": "gpu"}, "device: unknown name 'gpu', did you mean 'cuda'? (one of auto, cpu, cuda, cuda:0, mps)"),
    ({"device": "cpu; touch /tmp/injected"}, "device: unknown name 'cpu; touch /tmp/injected', valid: auto, cpu"),
    (
        {"threshold": 0.5},
        "'threshold': threshold is a key of runs; write it in overrides: --config 'overrides={threshold: 0.5}'",
    ),
    ({"learning_rate": 0.1}, "lr is a key of runs; write it in overrides: --config 'overrides={lr: 0.1}'"),
    ({"treshold": 0.1}, "threshold is a key of runs; write it in overrides"),
    ({"dataset": "cifar10"}, "data.source is a key of runs; write it in overrides"),
    ({"seed": 3}, "unknown key 'seed': did you mean 'seeds'?"),
    ({"gpu": 3}, "unknown key 'gpu': did you mean 'device'?"),
    ({"overrides": {"threads": 2}}, "overrides: threads is a key of config.yaml itself; move it out of overrides"),
    ({"overrides": {"learning_rate": 2}}, "overrides: unknown key 'learning_rate': did you mean 'lr'?"),
    (
        {"sweeps": CONFIG["sweeps"] | {"treshold": [0.5]}},
        "sweeps.treshold: no table has this sweep, did you mean 'threshold'? (a row with `sweep: treshold` in a file",
    ),
    ({"code_version": ""}, "code_version: '' cannot be used; write it with letters"),
    ({"sweeps": SWEEPS | {"threshold": [float("nan")]}}, "NaN and infinity are not allowed"),
    ({"seeds": [2**64]}, "seeds.0: input should be less than 4294967296"),
    ({"threads": 0}, "threads: input should be greater than or equal to 1"),
    ({"sweeps": SWEEPS | {"threshold": [0.3, 0.3]}}, "table2: two rows are called '0.3'; name each value once"),
    ({"threads": "two"}, "threads: input should be a valid integer, got 'two'"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[m for _, m in BAD])
def test_a_mistake_in_config_yaml_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        plan(**changes)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_protocol_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {source: folder, root: photos/cats, image_size: 32, profile: as_is}\nmodel: resnet20\n")
    run = plan(protocol=str(path)).run("csa", {}, 1)
    assert run.folder == "results/mine/runs/csa/seed=1" and (run.data, run.split) == ("folder-cats-32px", "as_is")
    path.write_text("modell: resnet20")
    with pytest.raises(UserError, match="mine.yaml: unknown key 'modell': did you mean 'model'"):
        plan(protocol=str(path))
    path.write_text("seeds: [1]")
    with pytest.raises(UserError, match="mine.yaml: seeds is a key of config.yaml; move it there"):
        plan(protocol=str(path))
    path.write_text("[]")
    with pytest.raises(UserError, match="mine.yaml: expected a mapping of keys to values"):
        plan(protocol=str(path))


def test_a_protocol_of_ones_own_cannot_pass_for_the_papers(tmp_path: Path) -> None:
    path = tmp_path / "paper.yaml"
    path.write_text("data: {source: demo}")
    with pytest.raises(UserError, match="has the name of a protocol of the project; rename it"):
        plan(protocol=str(path))
    assert plan(protocol=str(ROOT / "workflow/protocols/paper.yaml")).paper_heading == "paper", "which it is"


def test_nested_changes_keep_what_they_do_not_name() -> None:
    p = plan()
    nested, dotted = (p.run("csa", changes, 1) for changes in ({"data": {"split_seed": 1}}, {"data.split_seed": 1}))
    assert nested == dotted and nested.config.data.source == "demo"


def test_photos_are_read_again_when_their_content_changes_and_not_otherwise(tmp_path: Path) -> None:
    photos, path = tmp_path / "photos", tmp_path / "mine.yaml"
    for part in ("train", "test"):
        for name in ("a", "b"):
            (photos / part / name).mkdir(parents=True)
            (photos / part / name / "1.png").write_bytes(f"one {part} {name}".encode())
    path.write_text(f"data: {{source: folder, root: {photos}, profile: as_is}}")

    def asked(name: str = "folder-photos") -> tuple[str, str]:
        p = plan(protocol=str(path), results=str(tmp_path / "results"))
        return p.data_files(name), p.data_json(name, False)

    before = asked()
    assert before[0] and asked() == before
    for each in photos.rglob("*.png"):
        os.utime(each, (1e9, 1e9))
    assert asked() == before, "touched"
    for stray in ("tmp/a/b", "train/a/.DS_Store", "train/a/Thumbs.db", "train/notes.txt"):
        (photos / stray).parent.mkdir(parents=True, exist_ok=True)
        (photos / stray).write_text("x")
    assert asked() == before, "what is no image of a class"
    shutil.copytree(photos, tmp_path / "copy")
    path.write_text(path.read_text().replace("/photos", "/copy"))
    assert asked("folder-copy") == before, "copied"
    path.write_text(path.read_text().replace("/copy", "/photos"))
    one, stamp = photos / "test/b/1.png", (photos / "test/b/1.png").stat()
    one.write_bytes(one.read_bytes()[::-1])
    os.utime(one, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    changed = asked()
    assert changed != before, "as long, and as old"
    one.rename(photos / "test/b/2.png")
    assert asked() not in (before, changed), "another name"


def test_contents_are_kept_for_files_that_have_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("one")
    cache = tmp_path / "cache.json"
    monkeypatch.setattr("workflow.sources.SETTLED", 0)
    whole = contents({"a": tmp_path / "a"}, cache)
    assert whole == {"a": hashlib.sha256(b"one").hexdigest()}
    cache.write_text(cache.read_text().replace(whole["a"], "from the cache"))
    assert contents({"a": tmp_path / "a"}, cache) == {"a": "from the cache"}
    (tmp_path / "a").write_text("two")
    os.utime(tmp_path / "a", (1, 1))  # both may have been written within one tick of the clock of files
    assert contents({"a": tmp_path / "a"}, cache) == {"a": hashlib.sha256(b"two").hexdigest()}
    cache.write_text("no JSON")
    monkeypatch.setattr("workflow.sources.SETTLED", 10**18)
    assert contents({"a": tmp_path / "a"}, cache) == {"a": hashlib.sha256(b"two").hexdigest()}
    assert cache.read_text() == "no JSON", "what has changed just now may change again unseen"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{label: a, head: single}", "method csa has no head 'single'"),
        ("{label: a, method: ce, head: ensemble}", "method ce has no head 'ensemble'"),
        ("{label: '{x}', sweep: threshold}", "label '{x}' may hold"),
        ("{label: '{value', sweep: threshold}", "label '{value' may hold"),
        ("{label: a, sweep: data}", "sweeps.data is missing"),
        ("{label: a, changes: {seed: 3}}", "seed is not a change"),
        ("{label: a, method: csaa}", "did you mean 'csa'"),
        ("{label: '{0.x}', sweep: threshold}", "label '{0.x}' may hold"),
        ("{label: '{0[0]}', sweep: threshold}", "label '{0[0]}' may hold"),
        ("{label: a, method: ce, warmup_share: 0.5}", "row 'a': method ce has no warmup_epochs; remove warmup_share"),
        ("{label: a, method: simsiam, epochs_times: 2}", "row 'a': method simsiam has no epochs; remove epochs_times"),
        ("{label: a, warmup_share: 0.5, changes: {warmup_epochs: 3}}", "in place of warmup_epochs; give one of them"),
        ("{label: a, paper: {al: 45}}", "paper: unknown column 'al', did you mean 'all'?"),
        ("{label: a, paper: {all: '45'}}", "paper: all: '45' is no number of percent"),
        ("{label: '{value}', sweep: threshold, paper: {'0.8': 45}}", "of a sweep it is by value and column"),
        ("{labl: a}", "unknown key 'rows.0.labl': did you mean 'label'?"),
        ("{label: a, swep: threshold}", "unknown key 'rows.0.swep': did you mean 'sweep'?"),
    ],
)
def test_a_mistake_in_a_table_is_one_line(row: str, message: str, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/mine.yaml").write_text(f"title: t\nsource: s\nrow_name: r\nrows: [{row}]")
    monkeypatch.setattr("workflow.declarations.HERE", tmp_path)
    with pytest.raises(UserError) as error:
        plan()
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": []}, "columns: needs a group of classes or a measure"),
        ({"columns": ["shifted_steps"]}, "columns: needs a group of classes or a measure"),
        ({"columns": ["shifted_steps", "all"]}, ""),
        ({"title": ""}, "title: string should have at least 1 character"),
        ({"row_name": ""}, "row_name: string should have at least 1 character"),
    ],
)
def test_a_table_has_a_name_and_a_measure(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "tables").mkdir()
    mine = {"title": "t", "source": "s", "row_name": "r", "rows": [{"label": "a"}]}
    (tmp_path / "tables/mine.yaml").write_text(yaml.safe_dump(mine | change))
    monkeypatch.setattr("workflow.declarations.HERE", tmp_path)
    if not message:
        assert plan(sweeps={}).tables
        return
    with pytest.raises(UserError) as error:
        plan()
    assert message in str(error.value) and "\n" not in str(error.value)


CLAIMS = [
    ("{more: [{row: '0.3'}], less: [{row: Ours}]}", ""),
    ("{more: [{row: '0.33'}], less: [{row: Ours}]}", ""),  # a value that another sweep would have
    ("{more: [{row: '0.30'}], less: [{row: Ours}]}", "no row is called '0.30', did you mean '0.3'?"),
    ("{more: [{row: '7.0'}], less: [{row: Ours}]}", "no row is called '7.0'"),
    ("{more: [{row: '0.3'}], less: [{row: Our}]}", "no row is called 'Our', did you mean 'Ours'?"),
    ("{kind: best, row: Ors}", "no row is called 'Ors', did you mean 'Ours'?"),
    ("{kind: best, row: Ours, apart: [Theirs]}", "no row is called 'Theirs'"),
    ("{kind: best, row: Ours, among: ['uniform (0, 0.7)', Ours]}", ""),
    ("{kind: best, row: Ours, among: ['unifrom 0', Ours]}", "no row is called 'unifrom 0'"),
]


@pytest.mark.parametrize(("claim", "message"), CLAIMS)
def test_a_claim_speaks_of_rows_that_can_be(claim: str, message: str, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "tables").mkdir()
    rows = "[{label: Ours}, {label: '{value}', sweep: threshold}, {label: '({1:g}, {2:g})', series: '{0}', sweep: mix}]"
    claims = f"[{claim.replace('{', '{text: t, section: s, ', 1)}]"
    text = f"title: t\nsource: s\nrow_name: r\nrows: {rows}\nclaims: {claims}"
    (tmp_path / "tables/mine.yaml").write_text(text)
    monkeypatch.setattr("workflow.declarations.HERE", tmp_path)
    sweeps = {key: CONFIG["sweeps"][key] for key in ("threshold", "mix")}
    if not message:
        plan(sweeps=sweeps)
        return
    with pytest.raises(UserError, match=r"mine: claims\.0: ") as error:
        plan(sweeps=sweeps)
    assert message in str(error.value)


def test_a_selection_whose_file_changes_is_read_again(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"

    def asked() -> str:
        data = {"source": "cifar100", "profile": "selection", "selection": str(mine)}
        return plan(overrides={"data": data}, state=str(tmp_path)).data_files("selection-mine")

    mine.write_text("one")
    before = asked()
    mine.write_text("another")
    assert before and asked() != before


def own_table(folder: Path, *changes: dict[str, Any], **row: Any) -> dict[str, Any]:
    """Write a table whose rows change so; return what config.yaml says of it."""
    rows = [{"label": f"row {number}", "changes": each} | row for number, each in enumerate(changes)]
    (folder / "own.yaml").write_text(yaml.safe_dump({"title": "t", "source": "s", "row_name": "r", "rows": rows}))
    return {"tables": [str(folder / "own.yaml")]}


def test_other_images_never_pass_under_one_name(tmp_path: Path) -> None:
    photos = {"data": {"source": "folder", "root": "photos", "image_size": 32}}
    for key, one, other in (("data.val_folder", "val.1", "val.2"), ("data.selection", "a.txt", "a.lst")):
        profile = {"data.profile": "selection"} if key == "data.selection" else {}
        tables = own_table(tmp_path, {key: one} | profile, {key: other} | profile)
        with pytest.raises(UserError, match="use other images under one name, .*; rename a file or folder"):
            plan(overrides=photos, **tables).splits()
    tables = own_table(tmp_path, {"data.val_folder": "val.1"}, {"data.resize": "pad"}, {"data.validation": 0.2})
    assert len(plan(overrides=photos, **tables).splits()) == 4


def test_a_change_that_no_folder_can_be_named_by_is_refused(tmp_path: Path) -> None:
    photos = {"data": {"source": "folder", "root": "photos", "image_size": 32}}
    chosen = {"data.profile": "selection", "data.selection": "lists/a.txt"}
    for name in ("2024", "a+b", "a{b}", "a<b>", "a,b", "true"):
        said = f"data.val_folder={re.escape(name)}: .* name a file or folder with letters"
        with pytest.raises(UserError, match=said):
            plan(overrides=photos, **own_table(tmp_path, {"data.val_folder": name}))
    p = plan(overrides=photos, **own_table(tmp_path, {"data.val_folder": "prüf 1"}))
    run = p.runs_of("own")[0]
    assert run.name == "csa/data.val_folder=prüf 1" and p.run_at(run.name, "1") == run
    with pytest.raises(UserError, match=r"data.selection=lists/a.txt: .* name a file or folder with letters, .*or set"):
        plan(overrides=photos, **own_table(tmp_path, chosen))
    plan(overrides={"data": photos["data"] | {"profile": "selection", "selection": "lists/a.txt"}})


def test_a_figure_that_is_none_is_told_each_name_once() -> None:
    with pytest.raises(UserError, match="xyzzy: no such figure, valid: ") as error:
        plan().drawn("xyzzy")
    names = str(error.value).partition("valid: ")[2].split(", ")
    assert len(names) == len(set(names)) and {"figure1", "table2", "curves-baselines"} <= set(names)
