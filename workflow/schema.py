"""The JSON schema of config.yaml, for editors: `python -m workflow.schema` writes it anew."""

from pathlib import Path
from typing import Any

from csa_core.config import RunConfig
from csa_core.store import write_json
from workflow.declarations import WorkflowConfig

SCHEMA = Path(__file__).parent / "config.schema.json"


def schema() -> dict[str, Any]:
    """Return the schema; `overrides` may hold any key of a run."""
    config, run = WorkflowConfig.model_json_schema(), RunConfig.model_json_schema()
    config["$defs"] = run.pop("$defs")
    config["properties"]["overrides"] = {
        "type": "object",
        "description": WorkflowConfig.model_fields["overrides"].description,
        "additionalProperties": False,
        "properties": run["properties"],
    }
    return config


if __name__ == "__main__":
    write_json(SCHEMA, schema())
