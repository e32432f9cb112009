"""The runs that were asked for and are not there yet, from which a training job fills its gang."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from csa_core.store import write_json


def write_pending(path: Path, jobs: Iterable[Any]) -> None:
    """List Snakemake's `train` jobs in the order of their outputs: seeds of a run side by side.

    A target that trains nothing leaves the list of a sweep that may be running as it is.
    """
    listed = [
        {
            "config": json.loads(job.params.config),
            "data": str(job.input.data),
            "split": str(job.input.split),
            "encoder": "".join(job.input.encoder) or None,
            "out": str(job.params.out),
        }
        for job in sorted(jobs, key=lambda job: str(job.output[0]))
    ]
    if listed:
        write_json(path, {"jobs": listed})
