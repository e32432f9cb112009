"""Data sets and splits: which runs use them, and what each is made from."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from csa_core.config import PLACES
from csa_core.errors import Damaged, Missing, UserError, nearest
from csa_core.layout import PARTS, image_files
from csa_core.store import canonical, digest, read_header, read_json, write_json
from workflow.naming import Run

READS = {
    "demo": {"source"},
    "folder": {"source", "root", "image_size", "val_folder", "resize"},
    "image_list": {"source", "root", "image_size", "train_list", "test_list", "val_list", "resize"},
}
SETTLED = 3_000_000_000  # nanoseconds, more than the coarsest clock of a file system


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
        """Add what one more run uses.

        Raises:
            UserError: other images have the name of its data set.
        """
        first = self._datasets.setdefault(run.data, run)
        if first.config.data != run.config.data and _images(first) != _images(run):
            others = f"{first.name} and {run.name} use other images under one name, {run.data}"
            raise UserError(f"data: {others}; rename a file or folder, endings do not count")
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


def _images(run: Run) -> str:
    """Return what tells the images of runs apart: a selection names the same ones in any source."""
    return run.config.data.selection or dataset_json(run)


def dataset_json(run: Run, with_places: bool = True) -> str:
    """Return the configuration that makes a run's data set, as one sorted JSON string.

    Args:
        with_places: say where images and lists lie, too, which changes no image.
    """
    config = run.config.data
    read = READS.get(config.source, {"source", "root"}) | ({"profile", "selection"} if config.selection else set())
    read -= config.as_before() | (set() if with_places else PLACES) | (set() if config.val_list else {"val_list"})
    return canonical({"data": config.model_dump(mode="json", include=read)})


def files_digest(run: Run, cache: Path) -> str:
    """Return a digest of what a data set is read from: names and bytes of a folder's images, of lists, a selection.

    Times, other files and where all of it lies are no part of it. Nothing where a source checks its own files.

    Args:
        cache: where digests of files are kept.
    """
    config = run.config.data
    keys = {"train": "train_list", "test": "test_list", "selection": "selection", "validation": "val_list"}
    files = {name: Path(path) for name, key in keys.items() if (path := getattr(config, key))}
    if config.source == "folder":
        root, more = Path(config.root), (config.val_folder,) if config.val_folder else ()
        files |= {path.relative_to(root).as_posix(): path for path in image_files(root, (*PARTS, *more))}
    known = {key: path for key, path in files.items() if path.is_file()}
    return digest(contents(known, cache)) if known else ""


def contents(files: dict[str, Path], cache: Path) -> dict[str, str]:
    """Return the SHA-256 of the bytes of each file, by its key.

    A file is read again where its size, its times or its number on the disk have changed since: the time of its last
    change of state cannot be set by hand. One that has changed within the last seconds might change again unseen.
    """
    try:
        before = read_json(cache)
    except UserError:
        before = {}
    before = before if isinstance(before, dict) else {}
    kept: dict[str, list[Any]] = {}
    found = {}
    now = time.time_ns()
    for key, path in files.items():
        with suppress(OSError), path.open("rb") as file:
            state = os.fstat(file.fileno())
            place = str(path.absolute())
            stamp = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev]
            known = before.get(place)
            if isinstance(known, list) and known[:-1] == stamp and isinstance(known[-1], str):
                found[key] = known[-1]
            else:
                found[key] = hashlib.file_digest(file, "sha256").hexdigest()
            if now - max(stamp[1:3]) > SETTLED:
                kept[place] = [*stamp, found[key]]
    if kept != before:
        with suppress(UserError):  # read again the next time
            write_json(cache, kept, lasting=False)
    return found


def stated_digest(path: Path) -> str:
    """Return the SHA-256 that the file of a data set or split states; empty where there is none."""
    read: Callable[[Path], Any] = read_json if path.suffix == ".json" else read_header
    try:
        return str(read(path)["sha256"])
    except (Missing, Damaged, KeyError, TypeError):
        return ""


def split_json(run: Run) -> str:
    """Return the configuration that makes a run's split, as one sorted JSON string."""
    fields = run.data_fields
    del fields["groups"]  # groups are of scores
    return canonical({"data": fields})
