"""Schemas for editors, of config.yaml and of tables, and the reference of tables: `python -m workflow.schema`."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from csa_core.config import Strict
from csa_core.methods import METHODS
from csa_core.store import write_bytes, write_json
from workflow.declarations import Claim, Row, Table, Term, WorkflowConfig
from workflow.protocol import OF_ONE_RUN
from workflow.report.texts import markdown_text

HERE = Path(__file__).parent
SCHEMA, TABLE_SCHEMA = HERE / "config.schema.json", HERE / "table.schema.json"
REFERENCE = HERE.parent / "docs" / "tables.md"
HEAD = """# Keys of a table

A table, or a figure, is a YAML file: under `workflow/tables/`, or one of your own that `tables: [mine/*.yaml]` in the
configuration names. Its name is that of the target, `results/NAME.csv` and `results/figures/NAME.svg`.
[Adding an ablation](ablation.md) writes one step by step. An editor completes and checks the keys with this first line:

```yaml
# yaml-language-server: $schema=workflow/table.schema.json
```

`python -m workflow.schema` writes this page from the code.
"""


def schema() -> dict[str, Any]:
    """Return the schema of config.yaml; `overrides` may hold keys of any method, with values that all of these take."""
    config = WorkflowConfig.model_json_schema()
    keys: dict[str, list[Any]] = {}
    for method in METHODS.values():
        run = method.Config.model_json_schema()
        config.setdefault("$defs", {}).update(run.pop("$defs"))
        for name, key in run["properties"].items():
            if name not in OF_ONE_RUN and key not in keys.setdefault(name, []):
                keys[name].append(key)
    config["properties"]["overrides"] = {
        "type": "object",
        "description": WorkflowConfig.model_fields["overrides"].description,
        "additionalProperties": False,
        "properties": {name: each[0] if len(each) == 1 else {"allOf": each} for name, each in keys.items()},
    }
    return config


def table_schema() -> dict[str, Any]:
    """Return the schema of a file of a table."""
    return Table.model_json_schema()


def reference() -> str:
    """Return the page that lists the keys of a table, its rows, its claims and their cells."""
    parts: list[tuple[str, type[Strict]]] = [("Table", Table), ("Row", Row), ("Claim", Claim)]
    parts.append(("Cell of a claim", Term))
    return HEAD + "".join(f"\n## {title}\n\n{_section(model)}" for title, model in parts)


def _section(model: type[Strict]) -> str:
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    lines = ["| key | value | default | what it is |", "| :-- | :-- | :-- | :-- |"]
    for name, key in schema["properties"].items():
        default = f"`{json.dumps(key['default'], ensure_ascii=False)}`" if "default" in key else "required"
        values = markdown_text(_values(key, definitions))
        lines.append(f"| `{name}` | {values} | {markdown_text(default)} | {markdown_text(key['description'])} |")
    text = re.sub(r"\n(`\w+`:)", r"\n- \1", schema["description"])
    return f"{text}\n\n" + "\n".join(lines) + "\n"


def _values(key: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return what a key may hold, in words."""
    if "$ref" in key:
        name = key["$ref"].rpartition("/")[2]
        return _values(definitions[name], definitions) if "enum" in definitions[name] else name.lower()
    if "anyOf" in key:
        return ", ".join(dict.fromkeys(_values(each, definitions) for each in key["anyOf"]))
    if "enum" in key:
        return ", ".join(f"`{value}`" for value in key["enum"])
    if "const" in key:
        return f"`{key['const']}`"
    if key.get("type") == "array":
        return f"list of {_values(key['items'], definitions)}"
    kinds = {"string": "text", "boolean": "true, false", "object": "mapping", "integer": "whole number", "null": "null"}
    return kinds.get(key.get("type", ""), key.get("type", "any"))


def main() -> None:
    """Write them all."""
    argparse.ArgumentParser("python -m workflow.schema", description=__doc__.split("\n\n")[0]).parse_args()
    write_json(SCHEMA, schema())
    write_json(TABLE_SCHEMA, table_schema())
    write_bytes(REFERENCE, reference().encode())


if __name__ == "__main__":
    main()
