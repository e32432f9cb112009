"""Tables that lie in a person's own folder."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from csa_core.errors import UserError
from tests.conftest import ROOT
from tests.helpers.workflows import SWEEPS as FEW
from tests.helpers.workflows import Folder
from workflow.plan import Plan
from workflow.schema import reference

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
TABLE = {
    "title": "Two exponents",
    "source": "Mine",
    "row_name": "exponent",
    "rows": [{"label": "{value}", "sweep": "mask_exponent"}],
}
SWEEPS = CONFIG["sweeps"] | {"mask_exponent": [1.0, 2.0]}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    path = tmp_path / "mine/Exponents2.yaml"
    path.write_text(yaml.safe_dump(TABLE))
    return path


def plan(**changes: Any) -> Plan:
    return Plan(CONFIG | {"tables": ["mine/*.yaml"], "sweeps": SWEEPS} | changes)


def test_an_own_table_is_a_table_with_a_picture(mine: Path) -> None:
    p = plan()
    assert [row.label for row in p.rows("Exponents2")] == ["1.0", "2.0"] and "Exponents2" in p.usual
    assert p.drawn("Exponents2") == ("points", "Exponents2") and "table1" in p.tables
    mine.write_text(yaml.safe_dump(TABLE | {"protocol": "paper"}))
    assert "Exponents2" not in plan(sweeps=CONFIG["sweeps"]).tables
    assert "Exponents2" in plan(protocol="paper").tables


def test_what_is_no_table_is_named(mine: Path) -> None:
    with pytest.raises(UserError, match=r"config.yaml: tables: 'none/\*.yaml' matches no file"):
        plan(tables=["none/*.yaml"])
    with pytest.raises(UserError, match=r"mine/Exponents2.yaml: there is a table of the name 'Exponents2' already"):
        plan(tables=["mine/*.yaml", "mine/Exponents2.yaml"])
    mine.rename(mine.with_name("table1.yaml"))
    with pytest.raises(UserError, match=r"mine/table1.yaml: there is a table of the name 'table1' already; rename"):
        plan()
    (mine.with_name("table1.yaml")).rename(mine.with_name("a-b.yaml"))
    with pytest.raises(UserError, match=r"mine/a-b.yaml: name the file with letters"):
        plan()
    for taken in ("claims", "choices", "contexts"):
        mine.with_name("a-b.yaml").rename(mine.with_name(f"{taken}.yaml"))
        with pytest.raises(UserError, match=f"mine/{taken}.yaml: {taken} is a file of the results already; rename"):
            plan()
        mine.with_name(f"{taken}.yaml").rename(mine.with_name("a-b.yaml"))
    mine.with_name("a-b.yaml").rename(mine)
    mine.write_text("rowz: []")
    with pytest.raises(UserError, match=r"mine/Exponents2.yaml: "):
        plan()


@pytest.mark.parametrize("name", ["contexts_of_mine", "Exponents_é"])
def test_an_own_table_of_any_name_has_its_picture(name: str, mine: Path, tmp_path: Path) -> None:
    mine.unlink()
    mine.with_name(f"{name}.yaml").write_text(yaml.safe_dump(TABLE | {"draw": "line"}))
    folder = Folder(tmp_path)
    folder.write(tables=[str(mine.with_name(f"{name}.yaml"))], seeds=[1], sweeps=FEW | {"mask_exponent": [1.0, 2.0]})
    target = f"results/figures/{name}.svg"
    assert folder.jobs(target) == {"data": 1, "split": 1, "train": 2, "figure": 1}


def test_the_reference_names_each_key_and_its_values() -> None:
    text = reference()
    for word in ("`series`", "`columns`", "`draw`", "`more`", "`less`", "`apart`", "`scatter`", "`insensitive`"):
        assert word in text
