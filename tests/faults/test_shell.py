"""What a person may write in a name: shell metacharacters in every key that reaches a command, run for real."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.conftest import TINY
from tests.helpers.workflows import Folder
from workflow.plan import Plan

HOSTILE = "O'Brien $(touch PWNED) `touch PWNED` ';touch PWNED;' \"&|*?!#~"


@pytest.mark.slow
def test_every_string_key_that_reaches_a_command(tmp_path: Path) -> None:
    """Folders, the protocol's name, GPUs and the data's root; with an encoder, a table, a figure and the gallery."""
    folder = Folder(tmp_path)
    protocol = yaml.safe_load((tmp_path / "tiny.yaml").read_text())
    (tmp_path / f"{HOSTILE}.yaml").write_text(yaml.safe_dump(protocol))
    keys = {"results": f"re {HOSTILE}", "state": f"st {HOSTILE}", "data_root": f"da {HOSTILE}", "gpus": [HOSTILE]}
    folder.write(seeds=[1], protocol=f"{HOSTILE}.yaml", **keys)
    results = keys["results"]
    targets = [f"{results}/{name}" for name in ("table4.csv", "figures/curves-table4.svg", "figures/contexts.png")]
    run = f"{results}/{HOSTILE}/runs/ce/pretrained=true/seed=1/metrics.json"
    done = folder.snakemake(run, *targets)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / run).read_text())["digests"]["parent"]
    for word in ("status", "estimate"):
        assert folder.snakemake(word).returncode == 0
    assert not list(tmp_path.rglob("PWNED*")) and not Path("PWNED").exists()
    assert folder.jobs(*targets) == {}


def plan(folder: Path, protocol: str = "tiny", **changes: object) -> Plan:
    (folder / f"{protocol}.yaml").write_text(yaml.safe_dump(TINY))
    return Plan({"protocol": str(folder / f"{protocol}.yaml"), "seeds": [1]} | changes, spell_out=())


@pytest.mark.parametrize("protocol", ["a{b}", "a<b>", "<results>", "{wildcards.run}", "a\x1b[31mb"])
def test_a_protocol_is_called_what_snakemake_can_name(protocol: str, tmp_path: Path) -> None:
    run = plan(tmp_path, protocol).run("ce", {}, 1)
    assert (
        not re.search(r"[{}<>\x00-\x1f]", run.folder)
        and run.folder.startswith("results/")
        and "/runs/ce/" in run.folder
    )


def test_the_working_folder_itself_may_hold_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert plan(tmp_path, results=".").shared == str(tmp_path) == plan(tmp_path, results="x/..").shared
    assert plan(tmp_path, results="./x").results == "x/tiny"


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("results", "a{b}", "results: 'a{b}' has one of {}<>"),
        ("state", "a<b>", "state: 'a<b>' has one of"),
        ("results", "/etc/passwd", "results: /etc/passwd is not a folder"),
        ("state", "/etc/passwd/x", "state: .*cannot be used|is not a folder"),
        ("results", "x" * 300, "cannot be used .File name too long"),
    ],
)
def test_a_folder_that_cannot_be_one_is_named(key: str, value: str, match: str, tmp_path: Path) -> None:
    from csa_core.errors import UserError

    with pytest.raises(UserError, match=match):
        plan(tmp_path, **{key: value})


@pytest.mark.parametrize("key", ["results", "state", "data_root"])
def test_the_home_folder_is_the_same_everywhere(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    made = plan(tmp_path, **{key: "~/x"})
    found = {"results": made.shared, "state": made.state, "data_root": made.reference.config.data.root}[key]
    assert found == str(tmp_path / "home/x")
    from csa_core.cli import _parser

    words = ["train", "run.yaml", "--out=~/x", "--data=~/x", "--split=~/x", "--state=~/x", "--parent=~/x"]
    args = vars(_parser().parse_args(words))
    assert {str(args[name]) for name in ("out", "data", "split", "state", "parent")} == {str(tmp_path / "home/x")}


def test_what_stands_in_a_command_is_quoted() -> None:
    rules = "".join(path.read_text() for path in (Path(__file__).parents[2] / "workflow/rules").glob("*.smk"))
    shells = re.findall(r"shell:\n((?: {8}.*\n)+)", rules)
    assert len(shells) >= 12
    unquoted = {field for text in shells for field in re.findall(r"\{([\w.\[\]]+)\}", text)}
    assert unquoted <= {
        *("resources.gpu", "resources.device", "resources.workers", "resources.compile", "resources.capture"),
        *("resources.expected", "threads", "wildcards.table", "wildcards.figure", "params.parent", "params.made_from"),
    }, "a new one: quote it, or see that it cannot hold a metacharacter"
