"""What validation images choose: the value of a sweep, its test score, and nothing where they cannot."""

import csv
import json
import math
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from scipy import stats

from csa_core.errors import UserError
from csa_core.store import sealed
from tests.conftest import ROOT, TINY, Cli
from tests.helpers.workflows import Folder, metrics, table
from workflow.plan import Plan
from workflow.report import choices as choices_command
from workflow.report import tables
from workflow.report.choices import choose, sentences
from workflow.snake import check_targets
from workflow.standing import RunStatus
from workflow.status import _cells

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
# By label: the validation accuracy and the test accuracy of three seeds.
SCORES = {"0.1": ([0.50, 0.54, 0.52], [0.70, 0.60, 0.65]), "0.2": ([0.60, 0.62, 0.58], [0.61, 0.60, 0.65])}
SCORES |= {"0.3": ([0.59, 0.60, 0.61], [0.40, 0.44, 0.42])}


def sweep(scores: dict[str, tuple[list[float], list[float]]], pool: int | None = 0) -> dict[str, Any]:
    """Return a table of one sweep, its row of each label."""
    row: dict[str, Any] = {
        "series": "",
        "head": None,
        "paper": {},
        "code": "c",
        "parents": [None] * 3,
        "digests": ["x"] * 3,
    }
    rows = [row | {"label": label, "pool": pool, "reference": False, "run": f"csa/t={label}"} for label in scores]
    return table(rows=rows, row_name="threshold")


def frame(scores: dict[str, tuple[list[float], list[float]]]) -> pd.DataFrame:
    lines = []
    for number, both in enumerate(scores.values()):
        for column, each in zip(("validation_balanced", "all"), both, strict=True):
            lines += [
                {"row": number, "seed": seed, "column": column, "value": value} for seed, value in enumerate(each, 1)
            ]
    return pd.DataFrame(lines)


def facts(images: list[tuple[str, str]] | None = None) -> dict[str, Any]:
    return {"images_of": dict(enumerate(images or [("d", "s")] * 3))}


def test_the_best_mean_over_seeds_is_chosen_and_its_test_score_said() -> None:
    found = choose(sweep(SCORES), frame(SCORES), facts())
    (line,) = found.to_dict("records")
    validated, tested = SCORES["0.2"]
    mean, sem = statistics.mean(tested), statistics.stdev(tested) / math.sqrt(3)
    low, high = stats.t.interval(0.95, 2, mean, sem)
    assert (line["chosen"], line["second"], line["seeds"]) == ("0.2", "0.3", 3)
    assert line["validation_percent"] == pytest.approx(100 * statistics.mean(validated))
    assert line["validation_sd_percent"] == pytest.approx(100 * statistics.stdev(validated))
    for key, wanted in {"test": mean, "test_low": low, "test_high": high}.items():
        assert line[f"{key}_percent"] == pytest.approx(100 * wanted)
    assert line["lead_percent"] == pytest.approx(0)
    assert (line["best_on_test_not_to_be_used"], line["best_on_test_not_to_be_used_percent"]) == (
        "0.1",
        pytest.approx(65),
    )
    (text,) = sentences(found)
    assert text.startswith(
        "Chosen on the validation images, threshold: 0.2, with 60.0 ± 2.0 there, level with 0.3. Its"
    )
    ahead = SCORES | {"0.3": ([0.55, 0.56, 0.57], SCORES["0.3"][1])}
    assert ", 4.0 [−2.6, +10.6] ahead of 0.3. Its" in sentences(choose(sweep(ahead), frame(ahead), facts()))[0]
    assert f"Its test score, All: 62.0 (95 % interval over seeds {100 * low:.1f} to {100 * high:.1f})." in text
    assert text.endswith("The best test score is that of 0.1, 65.0: not to be used, for the test set chose it.")


def test_of_equal_ones_the_first_is_chosen() -> None:
    scores = {"0.1": SCORES["0.2"], "0.2": SCORES["0.2"]}
    found = choose(sweep(scores), frame(scores), facts())
    assert found["chosen"].tolist() == ["0.1"]
    assert sentences(found)[0].endswith("The test set would have chosen the same.")


def test_a_choice_that_is_as_good_as_the_best_on_the_test_set_is_the_test_set_s_too() -> None:
    scores = {"0.1": ([0.1, 0.1, 0.1], SCORES["0.2"][1]), "0.2": SCORES["0.2"]}
    found = choose(sweep(scores), frame(scores), facts())
    assert found["chosen"].tolist() == ["0.2"]
    assert sentences(found)[0].endswith("The test set would have chosen the same.")


def test_test_scores_choose_nothing() -> None:
    """Whatever they are, the choice stays."""
    for seed in range(5):
        tested = np.random.default_rng(seed).random((3, 3)).tolist()
        scores = {label: (both[0], other) for (label, both), other in zip(SCORES.items(), tested, strict=True)}
        assert choose(sweep(scores), frame(scores), facts())["chosen"].tolist() == ["0.2"]


def test_nothing_is_chosen_of_what_cannot_be_compared() -> None:
    whole = frame(SCORES)
    lacking = whole[~((whole["row"] == 0) & (whole["seed"] == 2))]
    assert not len(choose(sweep(SCORES), lacking, facts())), "a run is missing"
    assert not len(choose(sweep(SCORES), whole, facts([("d", "s"), ("d", "s"), ("d", "other")]))), "other images"
    assert not len(choose(sweep(SCORES, pool=None), whole, facts())), "no sweep"
    assert not len(choose(sweep(SCORES), whole[whole["column"] == "all"], facts())), "no validation images"


def test_a_table_without_validation_is_as_it_was(results: Path) -> None:
    drawn = tables.drawn(table())
    assert "alidation" not in "".join(str(text) for suffix, text in drawn.items() if suffix != ".choices.csv")
    assert drawn[".choices.csv"].count("\n") == 1


def test_counts_that_do_not_fit_are_refused(results: Path) -> None:
    path = results / "results/demo/runs/csa/seed=1/metrics.json"
    stored = metrics("csa", 1, 0)
    accuracy = {"all": 0.5, "many": None, "medium": None, "few": 0.9}
    counts = {"images": [1, 1], "correct": [1, 0]}
    stored["validation"] = {"single": {"accuracy": accuracy, "balanced": 0.5} | counts}
    path.write_text(json.dumps(sealed(stored)))
    with pytest.raises(UserError, match="of its validation images: accuracy of few is 0.9, its counts say 0.5; delete"):
        tables.drawn(table())


# A whole workflow.


def photographs(root: Path) -> Path:
    """Write three classes of 20, 9 and 4 small images, each bright somewhere else."""
    rng = np.random.default_rng(0)
    for part, counts in {"train": (20, 9, 4), "test": (6, 6, 6)}.items():
        for k, count in enumerate(counts):
            (root / part / f"class{k}").mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 140, (12, 12, 3), dtype=np.uint8)
                pixels[4 * k : 4 * k + 4] += 60
                Image.fromarray(pixels).save(root / part / f"class{k}" / f"{i}.png")
    return root


def own_folder(path: Path) -> Folder:
    made = Folder(path)
    data = {"source": "folder", "root": str(photographs(path / "photos")), "validation": 0.25}
    protocol = TINY | {"data": data, "epochs": 3, "lr_drops": [2], "batch_size": 8}
    (path / "tiny.yaml").write_text(yaml.safe_dump(protocol))
    made.write(seeds=[1, 2], device="cpu")
    return made


def check_choice(made: Folder, table: str, labels: list[str]) -> None:
    """See that the choice is the one that the runs' own metrics make, by plain arithmetic."""
    scores: dict[str, dict[str, float]] = {"validation": {}, "heads": {}}
    for label in labels:
        name = "csa" if label == "0.05" else f"csa/threshold={label}"
        runs = [json.loads(made.read(f"results/tiny/runs/{name}/seed={seed}/metrics.json")) for seed in (1, 2)]
        assert all(run["class_counts"] == [15, 7, 3] for run in runs)
        of = [run["validation"]["resampling"] for run in runs]
        assert all(each["images"] == [5, 2, 1] for each in of)
        recalls = [[c / n for c, n in zip(each["correct"], each["images"], strict=True)] for each in of]
        scores["validation"][label] = statistics.mean(statistics.mean(each) for each in recalls)
        scores["heads"][label] = statistics.mean(
            sum(run["heads"]["resampling"]["correct"]) / sum(run["heads"]["resampling"]["images"]) for run in runs
        )
    best = max(labels, key=scores["validation"].__getitem__)
    (line,) = csv.DictReader(made.read(f"results/{table}.choices.csv").decode().splitlines())
    assert line["chosen"] == best and line["table"] == table
    assert float(line["validation_percent"]) == pytest.approx(100 * scores["validation"][best])
    assert float(line["test_percent"]) == pytest.approx(100 * scores["heads"][best])
    assert float(line["best_on_test_not_to_be_used_percent"]) == pytest.approx(100 * max(scores["heads"].values()))
    text = made.read(f"results/{table}.md").decode()
    assert "| All, validation | Balanced, validation |" in " ".join(text.split()) and "(and 8 to validate on)" in text
    assert f"Chosen on the validation images, δ: {best}, with" in text
    page = json.loads(made.read(f"results/{table}.json"))
    assert f"Chosen on the validation images, δ: {best}, with" in page["note"]


def test_a_sweep_on_an_own_folder_makes_a_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    made = own_folder(tmp_path)
    made.write(sweeps=made.config["sweeps"] | {"threshold": [0.05, 0.2]})
    monkeypatch.chdir(tmp_path)
    plan = Plan(CONFIG | made.config)
    assert "table2" in plan.choosing and plan.reference.split == "as_is-validation=0.25-validation_seed=0"
    for run in plan.runs_of("table2"):
        fields = json.loads(run.json)
        fields["data"]["root"] = str(tmp_path / "photos")
        code = plan.code_of(run.config.method)
        out = ["--out", str(tmp_path / run.folder), "--state", str(tmp_path / "state"), "--device", "cpu"]
        done = cli("train", "-", *out, "--code-version", code, "--compile", "no", stdin=yaml.safe_dump(fields))
        assert done.returncode == 0, done.stderr
    tables.write(plan.declaration("table2"), "results/table2")
    check_choice(made, "table2", ["0.05", "0.2"])
    assert choices_command.main(["results/table2.choices.csv", "--out", "results/choices.csv"]) == 0
    assert made.read("results/choices.csv") == made.read("results/table2.choices.csv")


@pytest.mark.long
def test_a_target_gives_the_choice(tmp_path: Path) -> None:
    made = own_folder(tmp_path)
    made.write(sweeps=made.config["sweeps"] | {"threshold": [0.05, 0.2]})
    jobs = made.jobs("results/table2.choices.csv")
    assert (jobs["data"], jobs["split"], jobs["train"], jobs["table"]) == (1, 1, 4, 1)
    done = made.snakemake("results/table2.choices.csv")
    assert done.returncode == 0, done.stderr
    check_choice(made, "table2", ["0.05", "0.2"])
    done = made.snakemake("results/table2.choices.csv")
    assert "Nothing to be done" in done.stderr, done.stderr
    done = made.snakemake("check")
    assert done.returncode == 0 and "note: 8 validation images of 3 of 3 classes are held" in done.stdout + done.stderr
    # Another part held out is another sweep.
    protocol = yaml.safe_load(made.read("tiny.yaml"))
    protocol["data"]["validation_seed"] = 1
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(protocol))
    jobs = made.jobs("results/table2.choices.csv")
    assert jobs["train"] == 4 and "data" not in jobs


def test_without_validation_images_the_target_is_refused_before_anything_is_made() -> None:
    plain = Plan(CONFIG)
    for target in ("results/choices.csv", "choices", "results/table2.choices.csv"):
        with pytest.raises(UserError, match=r"there are no validation images; write data: {validation: 0.1} in the"):
            check_targets([target], [], plain)
    one = {key: values[:1] for key, values in CONFIG["sweeps"].items()}
    alone = Plan(CONFIG | {"overrides": {"data": {"validation": 0.2}}, "sweeps": one})
    with pytest.raises(UserError, match="no table has a sweep of two values"):
        check_targets(["results/choices.csv"], [], alone)


def test_every_value_of_a_sweep_has_a_name_of_its_own() -> None:
    plan = Plan(CONFIG | {"overrides": {"data": {"validation": 0.2, "validation_seed": 4}}})
    assert plan.reference.split.endswith("-validation=0.2-validation_seed=4")
    plain = Plan(CONFIG)
    assert plain.reference.name == plan.reference.name and plain.reference.digest != plan.reference.digest
    assert "validation" not in plain.reference.split and "validation" not in plain.reference.json


def test_the_status_shows_it_beside_the_test_accuracy() -> None:
    standing = RunStatus(Plan(CONFIG).reference, "running", epoch=3, left=9.0, process=("here", 1))
    standing.train_accuracy, standing.test_accuracy, standing.validation_balanced = 0.5, 0.25, 0.125
    assert _cells(standing)[2:5] == ["train 50.0%", "test 25.0%", "validation, balanced 12.5%"]


def test_a_table_chooses_by_the_images_of_its_own_runs(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(TINY | {"tables": {"table2": {"data.validation": 0.2}}}))
    plan = Plan(CONFIG | {"protocol": str(tmp_path / "own.yaml")})
    assert plan.choosing == ["table2"]
    one = {key: values[:1] for key, values in CONFIG["sweeps"].items()}
    config = CONFIG | {"overrides": {"data": {"validation": 0.2}}, "tables": [str(tmp_path / "extra.yaml")]}
    for key, values, can in (("weight_decay", [1e-4, 1e-3], True), ("data.imbalance_ratio", [10, 50], False)):
        own = {
            "title": "t",
            "source": "s",
            "row_name": "r",
            "rows": [{"label": "{value}", "sweep": key}],
            "extra": True,
        }
        (tmp_path / "extra.yaml").write_text(yaml.safe_dump(own))
        plan = Plan(config | {"sweeps": one | {key: values}})
        assert plan.chooses("extra") is can and not plan.choosing
        if can:
            check_targets(
                ["results/extra.choices.csv"],
                [SimpleNamespace(name="results/extra.choices.csv", wildcard_names=set())],
                plan,
            )
        else:
            with pytest.raises(UserError, match="no table has a sweep of two values on the same images"):
                check_targets(["results/extra.choices.csv"], [], plan)
