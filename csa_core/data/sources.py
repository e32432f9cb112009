"""Data sources: a name and a folder become a `Dataset`."""

from collections.abc import Callable
from pathlib import Path

from csa_core import store
from csa_core.config import DataConfig
from csa_core.data import dataset as in_memory
from csa_core.data import listed
from csa_core.data.cifar import read_cifar
from csa_core.data.dataset import Dataset
from csa_core.data.demo import DIGEST as DEMO_DIGEST
from csa_core.data.demo import make_demo
from csa_core.data.folder import read_folder
from csa_core.data.selection import select
from csa_core.errors import UserError


def load_source(data: DataConfig) -> Dataset | listed.ImageList:
    """Load the data set that `data.source` names, and check it.

    Raises:
        UserError: missing or unreadable files, wrong labels, empty classes.
    """
    try:
        if data.source == "image_list":
            return listed.read_lists(data)
        dataset = SOURCES[data.source](data).check(f"data.source {data.source}")
        return select(dataset, data.selection) if data.selection is not None else dataset
    except OSError as error:
        raise UserError(
            f"{error.filename or data.root}: cannot be read ({error.strerror}); check the file and its permissions"
        ) from None


def read_dataset(path: Path, data: DataConfig) -> Dataset | listed.ImageList:
    """Read a data set file, and check that it is what `data` asks for.

    Raises:
        UserError: missing, damaged, of another source or another size.
    """
    tensors, meta, digest = store.read_tensors(path)
    is_list = isinstance(meta, dict) and meta.get("source") == "image_list"
    read = listed.from_file(path, tensors, meta, data) if is_list else in_memory.from_file(path, tensors, meta, digest)
    wanted = "selection" if data.profile == "selection" else data.source
    if read.source != wanted:
        raise UserError(f"{path}: holds {read.source}, the run asks for data.source {wanted}")
    side = data.side if is_list else data.image_size
    if side and read.image_size != (side, side):
        raise UserError(f"{path}: its images are not {side} x {side} px, as data.image_size asks; make it again")
    if read.source in ("folder", "image_list") and read.resize != data.resize:
        asked = f"the run asks for data.resize: {data.resize}"
        raise UserError(f"{path}: its images become square by {read.resize}, {asked}; make it again")
    named = next((key for key in ("val_folder", "val_list") if getattr(data, key)), None)
    if named and read.validation is None:
        raise UserError(f"{path}: holds no validation images, the run asks for data.{named}; make it again")
    if not named and read.validation is not None and (data.validation or not is_list):
        raise UserError(f"{path}: holds validation images that the run does not ask for; make it again")
    return read


def _demo(data: DataConfig) -> Dataset:
    dataset = make_demo()
    if dataset.digest != DEMO_DIGEST:
        raise UserError(
            f"data.source demo: generated with digest {dataset.digest[:12]}, expected {DEMO_DIGEST[:12]}; "
            "install the versions of the lock file (NumPy, torch and scikit-learn make these images)"
        )
    return dataset


SOURCES: dict[str, Callable[[DataConfig], Dataset]] = {
    "demo": _demo,
    "cifar10": lambda data: read_cifar("cifar10", Path(data.root)),
    "cifar100": lambda data: read_cifar("cifar100", Path(data.root)),
    "folder": lambda data: read_folder(Path(data.root), data.image_size, data.val_folder, data.resize),
}
