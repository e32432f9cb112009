"""Data sets and splits: which runs use them, and what each is made from."""

from collections.abc import Iterable
from pathlib import Path

from csa_core.errors import UserError, nearest
from csa_core.store import canonical, digest
from workflow.naming import Run

READS = {
    "demo": {"source"},
    "folder": {"source", "root", "image_size"},
    "image_list": {"source", "root", "image_size", "train_list", "test_list"},
}


class Sources:
    """One run for each data set and split in use, by their names; all that use one say the same of it."""

    def __init__(self, folder: str, runs: Iterable[Run]) -> None:
        """Collect what `runs` use; the files lie in `folder`."""
        self.folder = folder
        self._datasets: dict[str, Run] = {}
        self._splits: dict[tuple[str, str], Run] = {}
        for run in runs:
            self.add(run)

    def add(self, run: Run) -> None:
        """Add what one more run uses."""
        self._datasets.setdefault(run.data, run)
        self._splits.setdefault((run.data, run.split), run)

    def splits(self) -> list[str]:
        """Return the files of all splits."""
        return [f"{self.folder}/{data}/{split}.json" for data, split in self._splits]

    def with_dataset(self, data: str) -> Run:
        """Return a run that uses a data set.

        Raises:
            UserError: none does.
        """
        if data not in self._datasets:
            raise UserError(f"target {self.folder}/{data}: no run uses it, {nearest(data, self._datasets)}")
        return self._datasets[data]

    def with_split(self, data: str, split: str) -> Run:
        """Return a run that uses a split.

        Raises:
            UserError: none does.
        """
        if (data, split) not in self._splits:
            names = [name for of, name in self._splits if of == data]
            raise UserError(f"target {self.folder}/{data}/{split}.json: no run uses it, {nearest(split, names)}")
        return self._splits[data, split]


def dataset_json(run: Run) -> str:
    """Return the configuration that makes a run's data set, as one sorted JSON string."""
    config = run.config.data
    read = READS.get(config.source, {"source", "root"}) | ({"profile", "selection"} if config.selection else set())
    return canonical({"data": config.model_dump(mode="json", include=read)})


def files_digest(run: Run) -> str:
    """Return a digest of names, sizes and times of a folder's images, of lists, or of a selection; else nothing."""
    config = run.config.data
    named = (config.train_list, config.test_list, config.selection)
    files = [Path(path) for path in named if path is not None and Path(path).is_file()]
    if config.source == "folder":
        files += sorted(path for path in Path(config.root).glob("t*/*/*") if path.is_file())
    if not files:
        return ""
    return digest([(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files])


def split_json(run: Run) -> str:
    """Return the configuration that makes a run's split, as one sorted JSON string."""
    fields = run.data_fields
    del fields["groups"]  # groups are of scores
    return canonical({"data": fields})
