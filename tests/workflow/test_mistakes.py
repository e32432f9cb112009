"""Mistakes on snakemake's command line: one line, with the nearest right word."""

import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.cli import main  # type: ignore[import-untyped]

from csa_core.errors import UserError
from tests.conftest import ROOT
from tests.helpers.inside import run_inside
from tests.helpers.workflows import Folder
from tests.workflow.test_plan import plan
from workflow.command_line import check_command
from workflow.snake import check_targets

PATTERNS = {
    "all": "-",
    "estimate": "-",
    "table": r"results/(table[1-7]|figure[12]|baselines|encoders)\.(csv|md)",
    "figure": r"results/figures/[a-z_]+[0-9]*(-[a-z0-9]+)?\.(svg|pdf|png|csv)",
    "train": r"results/demo/runs/[a-z_]+(/[^/]+)?/seed=\d+/metrics.json",
}
RULES = [
    SimpleNamespace(
        name=name,
        is_producer=lambda path, form=form: re.fullmatch(form, path) is not None,
        wildcard_names={"name"} if form.startswith("results") else set(),
    )
    for name, form in PATTERNS.items()
]
BOMB = "[" + ", ".join(["&a [x, x]", *(f"&{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in pairwise("abcdefgh"))]) + "]"
NEAREST = {
    "results/tabel2.csv": "results/table2.csv",
    "table2": "results/table2.csv",
    "table2.csv": "results/table2.csv",
    "Table2.csv": "results/table2.csv",
    "results/Table2.csv": "results/table2.csv",
    "result/table2.csv": "results/table2.csv",
    "/elsewhere/results/table2.csv": "results/table2.csv",
    "results/table2.xlsx": "results/table2.csv",
    "results/figures/figure2.jpg": "results/figures/figure2.svg",
    "figures/figure2.svg": "results/figures/figure2.svg",
    "report.html": "results/report.html",
    "results/claim.csv": "results/claims.csv",
    "estimat": "estimate",
    "table99": "results/table7.csv",
    "figures": "results/figure2.csv",
    "results/demo/runs/csa/threshold=0.35/seed=7": "results/demo/runs/csa/threshold=0.35/seed=7/metrics.json",
    "results/demo/runs/csa/seed=7/weights.pt": "results/demo/runs/csa/seed=7/metrics.json",
}


@pytest.mark.parametrize("target", NEAREST)
def test_a_target_that_nothing_makes_leads_to_the_nearest(target: str) -> None:
    with pytest.raises(UserError) as error:
        check_targets([target], RULES, plan())
    assert str(error.value) == f"target {target}: nothing makes it, did you mean '{NEAREST[target]}'?"


def test_a_target_like_nothing_says_what_there_is() -> None:
    with pytest.raises(UserError, match=r"nothing makes it; there are results/baselines.csv, .* and \d+ more$"):
        check_targets(["xyzzy"], RULES, plan())


@pytest.mark.parametrize("target", ["results/short/table2.csv", "results/photos/runs/csa/seed=1/metrics.json"])
def test_a_target_of_another_protocol_says_so(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where it is there: nothing would see whether it is out of date."""
    monkeypatch.chdir(tmp_path)
    Path("results/photos/runs/csa/seed=1").mkdir(parents=True)
    Path("results/photos/runs/csa/seed=1/metrics.json").touch()
    other = target.split("/")[1]
    name = {"short": "short", "photos": "FOLDER/photos.yaml"}[other]
    with pytest.raises(
        UserError, match=f"of protocol {other}, and config.yaml says demo; add --config protocol={name}"
    ):
        check_targets([target], RULES, plan())
    check_targets(["results/table2.csv"], RULES, plan())


@pytest.mark.parametrize("target", ["all", "results/table2.csv", "./results//table2.csv"])
def test_targets_that_are_made(target: str) -> None:
    check_targets([target], RULES, plan())


def test_what_lies_there_and_is_no_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").touch()
    with pytest.raises(UserError, match=r"^target mine.yaml: lies there, and no rule makes it; leave it out$"):
        check_targets(["mine.yaml"], RULES, plan())
    Path("results/demo/runs/csa/seed=1").mkdir(parents=True)
    with pytest.raises(UserError, match=r"did you mean 'results/demo/runs/csa/seed=1/metrics.json'\?$"):
        check_targets(["results/demo/runs/csa/seed=1"], RULES, plan())
    with pytest.raises(UserError, match=r"^target '': is empty; leave it out$"):
        check_targets([""], RULES, plan())


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    check_command(["seeds=[1]", "device=cpu"], [])
    check_command(None, [])
    with pytest.raises(UserError, match="--config: seeds is given 2 times; give it once"):
        check_command(["seeds=[1]", "device=cpu", "seeds=[2]"], [])
    (tmp_path / "mine.yaml").write_text("threads: 1\nthreads: 2\n")
    with pytest.raises(UserError, match="mine.yaml: line 2 is not valid YAML: key 'threads' is given twice"):
        check_command([], [tmp_path / "mine.yaml"])
    (tmp_path / "mine.yaml").write_text("seeds: [0123]\n")
    with pytest.raises(UserError, match="YAML 1.1 reads 0123 as 83"):
        check_command([], [tmp_path / "mine.yaml"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["results/tabel2.csv"], "target results/tabel2.csv: nothing makes it, did you mean 'results/table2.csv'?"),
        (["all", "--config", "threshold=0.5"], "write it in overrides: --config 'overrides={threshold: 0.5}'"),
        (["all", "--config", "sweeps={treshold: [0.5]}"], "sweeps.treshold: no table has this sweep, did you mean"),
        (["all", "--config", "seeds=[1]", "seeds=[2]"], "--config: seeds is given 2 times"),
        (["--config", "seeds=[1]", "--config", "device=cpu"], "--config is given twice, and Snakemake reads the last"),
        (["-C", "seeds=[1]", "--config=device=cpu"], "--config is given twice, and Snakemake reads the last"),
        (["--configfile", "config.yaml"], "--configfile is given twice, and Snakemake reads the last alone"),
        (["--config", "overrides.lr=0.1"], "a key within a key is written as --config 'overrides={lr: 0.1}'"),
        (["--config", "overrides.data.root=x"], "is written as --config 'overrides={data: {root: x}}'"),
        (["--config", "data.root=x"], "is written as --config 'overrides={data: {root: x}}'"),
        (["--config", "1seeds=2"], "--config 1seeds=2: '1seeds' is no key, did you mean 'seeds'?"),
        (["--config", "results/table2.csv"], "is no KEY=VALUE; if it is a target, targets come first"),
        (["--config", f"sweeps={BOMB}"], "--config sweeps: is not valid YAML: its aliases stand for more than"),
        (["--config", "seeds=[1"], "--config seeds: line 1 is not valid YAML"),
    ],
)
def test_snakemake_itself_says_so(words: list[str], message: str, tmp_path: Path) -> None:
    done = Folder(tmp_path).snakemake(*words)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith("snakemake: ") and message in last, done.stderr
    assert "Traceback" not in done.stderr and "MissingRule" not in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothere.yaml", None, "nothere.yaml: cannot be read (no such file); check the path"),
        ("nothere.json", None, "nothere.json: cannot be read (no such file); check the path"),
        ("table2.csv", None, "table2.csv: holds no keys with their values; if it is a target, targets come first"),
        ("table2.csv", "protocol,label\ndemo,a: b: c\n", "if it is a target, targets come first"),
        ("bomb.yaml", f"sweeps: {BOMB}", "bomb.yaml: is not valid YAML: its aliases stand for more than"),
        ("deep.json", "[" * 100_000, "deep.json: is not JSON"),
        ("list.yaml", "[1, 2]", "list.yaml: holds no keys with their values"),
        ("empty.yaml", "", "empty.yaml: holds no keys with their values"),
    ],
)
@pytest.mark.parametrize("profile", ["default", "slurm"])
def test_a_configfile_that_is_none(profile: str, name: str, content: str | None, message: str, tmp_path: Path) -> None:
    folder, path = Folder(tmp_path), tmp_path / name
    if content is not None:
        path.write_text(content)
    words = [str(path) if word.endswith("mine.yaml") else word for word in folder.words()]
    done = run_inside(main, [*words, "--workflow-profile", f"profiles/{profile}"], ROOT, program="snakemake")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith("snakemake: --configfile") and message in last, done.stderr
    assert "Traceback" not in done.stderr


def test_a_home_folder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/dev/null/home")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    done = Folder(tmp_path).snakemake("--dry-run", "results/table2.csv")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".snakemake/cache").is_dir()
