"""The runs that were asked for and are not there yet, from which a training job fills its gang."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from csa_core.store import write_json


def write_pending(path: Path, jobs: Iterable[Any]) -> None:
    """List Snakemake's `train` jobs in the order of their outputs: seeds of a run side by side."""
    listed = [
        {
            "config": json.loads(job.params.config),
            "data": str(job.input.data),
            "split": str(job.input.split),
            "encoder": "".join(job.input.encoder) or None,
        }
        for job in sorted(jobs, key=lambda job: str(job.output[0]))
    ]
    write_json(path, {"jobs": listed})
