"""The JSON schema of config.yaml, for editors: `python -m workflow.schema` writes it anew."""

from pathlib import Path
from typing import Any

from csa_core.methods import METHODS
from csa_core.store import write_json
from workflow.declarations import WorkflowConfig

SCHEMA = Path(__file__).parent / "config.schema.json"


def schema() -> dict[str, Any]:
    """Return the schema; `overrides` may hold any key of a run of any method."""
    config = WorkflowConfig.model_json_schema()
    keys: dict[str, Any] = {}
    for method in METHODS.values():
        run = method.Config.model_json_schema()
        config.setdefault("$defs", {}).update(run.pop("$defs"))
        keys = run["properties"] | keys
    config["properties"]["overrides"] = {
        "type": "object",
        "description": WorkflowConfig.model_fields["overrides"].description,
        "additionalProperties": False,
        "properties": keys,
    }
    return config


if __name__ == "__main__":
    write_json(SCHEMA, schema())
