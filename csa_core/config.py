"""Configurations: typed and validated, with the keys that runs of every method share.

Names are the field's; the symbol of the paper stands in each description. A value that is not
given takes the default below, which is the appendix's CIFAR100-LT recipe.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self, TypeVar, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from csa_core.errors import UserError, nearest
from csa_core.files import read_text
from csa_core.store import digest

Source = Literal["demo", "cifar10", "cifar100", "folder", "image_list"]
ARCHIVES = ("cifar10", "cifar100")  # whose images have the order that they were published in
_USUAL_RESIZE = {"folder": "stretch", "image_list": "crop"}  # of a person's own images, where nothing is said
Profile = Literal["exponential", "step", "as_is", "selection"]
ModelName = Literal["resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "resnet18_cifar", "resnet10", "resnet50"]
COMPILE_CHOICES = ("auto", "yes", "no")
# What a configuration may have at most: a text within these limits is read in seconds, and no person needs more.
LONGEST_YAML, LONGEST_VALUE, MOST_NODES, DEEPEST = 2**17, 2000, 100_000, 50
Model = TypeVar("Model", bound=BaseModel)
# A generator takes 32 bits of a seed alone (torch), or mixes what is above with the stream (NumPy): both would repeat.
Seed = Annotated[int, Field(ge=0, lt=2**32)]


# Keys that came later, and what was done before them: at that value they are left out of a run's identity, so that
# results from before have the identity that they had.
LATER: dict[str, Any] = {
    "bank_start": "full",
    "resampling_prior": "training_set",
    "uniform_mixup": 0.0,
    "batch_norm": "frozen",
    "data.subset": "by_seed",
    "data.validation": 0.0,
    "data.val_folder": None,
    "data.resize": "stretch",
}


PLACES = {"root", "train_list", "test_list", "val_list"}
"""Keys of `data` that say where images and lists lie, not which they are."""
PathText = Annotated[str, AfterValidator(os.path.expanduser)]
"""The path of a file or folder; `~` is the home folder, as in a shell."""


class Strict(BaseModel):
    """A model that refuses unknown keys, loose types, NaN, and change."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class DataConfig(Strict):
    """Where the images come from and how the training set is made long-tailed."""

    source: Source = "cifar100"
    """demo (embedded digits), cifar10, cifar100, folder (train/<class>/*, test/<class>/*), or image_list."""
    root: PathText = "data"
    """Folder of the downloaded or own images; not read by the demo source."""
    train_list: PathText | None = None
    """image_list only: text file with a line `path label` for each training image, paths below root."""
    test_list: PathText | None = None
    """image_list only: the same for the images that results are scored on."""
    val_list: PathText | None = None
    """image_list only: the same for validation images, by which values are chosen; null is none."""
    val_folder: Annotated[str, Field(min_length=1)] | None = None
    """folder only: name of the folder beside train and test that holds validation images, as val; null is none."""
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each class's training images, after its profile, that is held out as validation images; 0 is none."""
    validation_seed: Seed = 0
    """Which of them are held out; never the training seed."""
    image_size: Annotated[int, Field(ge=8, le=512)] | None = None
    """folder, image_list: pixels a side; null keeps the size of a folder's images, and is 224 for image_list."""
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    """folder, image_list: how an image becomes square: stretch (a folder's default), crop to the middle (image_list's
    default), or pad with black."""
    profile: Profile = "exponential"
    """Long-tailed profile: exponential, step, selection (the images that a file names), or as_is (as they are), which
    is the default of a folder or image_list with neither imbalance_ratio nor max_class_count."""
    selection: PathText | None = None
    """selection only: the file that names the kept images by their pixels, or the name of a shipped one."""
    imbalance_ratio: Annotated[float, Field(ge=1)] = 100.0
    """Largest class over smallest class, written 100 and not 0.01; not read by as_is."""
    max_class_count: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Images of the largest class; null takes all that the first class has; not read by as_is."""
    subset: Literal["by_seed", "conventional"] = "by_seed"
    """Which images are kept: by split_seed; or conventional, those of the field's codes (cifar10, cifar100 alone)."""
    split_seed: Seed = 0
    """Which images are kept; never the training seed. Not read by the conventional subset."""
    groups: Literal["by_count", "cifar100_paper", "cifar10_field"] = "by_count"
    """many/medium/few: by_count (>100, 20-100, <20), cifar100_paper (36, 35, 29 classes), cifar10_field (3, 4, 3)."""

    @model_validator(mode="before")
    @classmethod
    def _own_images_as_they_are(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("source") in ("folder", "image_list"):
            said = fields.keys() & {"profile", "selection", "imbalance_ratio", "max_class_count"}
            fields = {"resize": _USUAL_RESIZE[fields["source"]]} | fields
            return fields if said else fields | {"profile": "as_is"}
        return fields

    @model_validator(mode="after")
    def _has_its_lists(self) -> Self:
        for key in ("train_list", "test_list"):
            if self.source == "image_list" and getattr(self, key) is None:
                raise ValueError(f"{key} is missing: image_list needs a file with a line 'path label' for each image")
            if "source" not in self.model_fields_set and getattr(self, key) is not None:
                raise ValueError(f"{key} is for source image_list, and no source is given; add source: image_list")
        if (self.profile == "selection") != (self.selection is not None):
            raise ValueError("profile: selection and selection: FILE go together; give both or neither")
        if self.profile == "selection" and self.source == "image_list":
            raise ValueError("profile: selection is for images in memory; an image_list names its images already")
        if self.subset == "conventional" and not (self.profile == "exponential" and self.source in ARCHIVES):
            raise ValueError(
                f"subset: conventional is for profile exponential and source {' or '.join(ARCHIVES)}, not for "
                f"{self.profile} and {self.source}: it needs the original order of the images; use subset: by_seed"
            )
        if self.resize != _USUAL_RESIZE["folder"] and self.source == "folder" and self.image_size is None:
            raise ValueError(f"resize: {self.resize} needs image_size, the side of the square")
        return self

    @model_validator(mode="after")
    def _validates_in_one_way(self) -> Self:
        for key, source, else_ in (("val_folder", "folder", "val_list"), ("val_list", "image_list", "val_folder")):
            if getattr(self, key) is None:
                continue
            if self.source != source:
                instead = f"{else_} or validation: 0.1" if self.source in _USUAL_RESIZE else "validation: 0.1"
                raise ValueError(f"{key} is for source {source}, not for {self.source}; use {instead}")
            if self.validation:
                raise ValueError(
                    f"validation: {self.validation:g} holds out training images, {key} names others; give one of them"
                )
            if self.profile == "selection":
                raise ValueError(f"{key} is not for profile selection, which names all images; use validation: 0.1")
        if self.val_folder and (self.val_folder == ".." or Path(self.val_folder).name != self.val_folder):
            raise ValueError(
                f"val_folder: {self.val_folder} is a path; give the name of a folder beside train and test"
            )
        if self.val_folder in ("train", "test"):
            raise ValueError(f"val_folder: {self.val_folder} is no folder of its own; name another one, as val")
        return self

    @property
    def validates(self) -> bool:
        """Whether there are validation images."""
        return bool(self.validation or self.val_folder or self.val_list)

    def as_before(self) -> set[str]:
        """Return the keys that came later and say what was done before them."""
        keys = {key.removeprefix("data."): value for key, value in LATER.items() if key.startswith("data.")}
        keys["resize"] = _USUAL_RESIZE.get(self.source, keys["resize"])
        return {key for key, value in keys.items() if getattr(self, key) == value}

    @property
    def side(self) -> int:
        """Pixels a side of the images of an image_list."""
        return self.image_size or 224

    def read(self) -> dict[str, Any]:
        """Return what determines images and split, JSON types only.

        Where images and lists lie does not change them: their digest, not their path, is compared.
        """
        unread = PLACES | (set() if self.validation else {"validation_seed"})
        if self.profile in ("as_is", "selection"):
            unread |= {"imbalance_ratio", "max_class_count", "split_seed"}
        unread |= {"split_seed"} if self.subset == "conventional" else set()
        if self.profile == "selection":  # the same images, whichever source they come from
            unread |= {"source", "image_size", "resize"}
        elif self.source not in _USUAL_RESIZE:
            unread |= {"image_size", "resize"}
        fields = self.model_dump(mode="json", exclude=unread | {"selection"})
        if self.source == "image_list":
            fields["image_size"] = self.side
        if self.selection is not None:
            fields["selection"] = Path(self.selection).stem
        return fields

    def identity(self) -> dict[str, Any]:
        """Return what is read, without the keys that say what was done before there were such keys."""
        before = self.as_before()
        return {key: value for key, value in self.read().items() if key not in before}


class PretrainingConfig(Strict):
    """SimSiam pre-training (section C.5). A reconstruction: the appendix prints no hyper-parameters."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 1600
    """Passes over the long-tailed training set."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 512
    """Images a step, each in two views; what does not fill a batch is left out of the epoch."""
    lr: Annotated[float, Field(gt=0)] = 0.06
    """Learning rate of SGD at the start; it falls to zero along a cosine."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD (no Nesterov)."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Weight decay of SGD, on every parameter."""
    smallest_crop: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Smallest share of an image's area that a view is cropped from."""
    projector_width: Annotated[int, Field(ge=2, le=65_536)] = 2048
    """Channels of the projector, hidden and out (d)."""
    predictor_width: Annotated[int, Field(ge=1, le=65_536)] = 512
    """Hidden channels of the predictor."""
    sam: Literal["none", "sam", "rwsam"] = "rwsam"
    """Sharpness-aware minimisation: none, sam, or rwsam (its ascent weighted by inverse density)."""
    sam_radius: Annotated[float, Field(gt=0)] = 0.05
    """sam, rwsam: length of the ascent (rho)."""
    density_exponent: Annotated[float, Field(ge=0)] = 1.0
    """rwsam: weight of an image = its density ** -this (alpha)."""

    def read(self) -> dict[str, Any]:
        """Return what determines the encoder, JSON types only."""
        unread = {"none": {"sam_radius", "density_exponent"}, "sam": {"density_exponent"}, "rwsam": set()}
        return self.model_dump(mode="json", exclude=unread[self.sam])


class RunConfig(Strict):
    """What every run's configuration holds; each method adds its own keys (`csa_core.methods`)."""

    borrowed: ClassVar[frozenset[str]] = frozenset()
    """Keys that it has for the run that it starts from alone; they are that one's method's."""

    method: str
    """Which method trains: `python -m csa_core keys` lists them with their keys."""
    data: DataConfig = DataConfig()
    """The data set and its long-tailed split."""
    model: ModelName = "resnet32"
    """CIFAR ResNet of this depth, resnet18_cifar (3 x 3 stem, no max pooling), or ImageNet's resnet10, resnet50."""
    seed: Seed = 1
    """Training seed: initial weights and every random pick of training."""
    horizontal_flip: bool = True
    """Random horizontal flip."""
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    """float32, bfloat16 (network's body), tf32 (all, NVIDIA GPUs); auto: bfloat16 on CPUs that gain, else float32."""
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    """Test accuracy in the history every this many epochs, 0 is never; chooses nothing, the last epoch counts."""

    def unread(self) -> set[str]:
        """Return the keys that have no effect with the values of the others."""
        return set()

    def read(self) -> dict[str, Any]:
        """Return what determines the result: every key that the run reads, JSON types only."""
        return self.model_dump(mode="json", exclude=self.unread()) | {"data": self.data.read()}

    def identity(self) -> dict[str, Any]:
        """Return what is read, without the keys that say what was done before there were such keys."""
        fields = {key: value for key, value in self.read().items() if key not in LATER or value != LATER[key]}
        return fields | {"data": self.data.identity()}

    def digest(self) -> str:
        """Return the SHA-256 of `identity()`."""
        return digest(self.identity())

    def parent(self) -> dict[str, Any] | None:
        """Return the configuration of the run that this one starts from, None where it starts from none."""
        return None

    @property
    def total_epochs(self) -> int:
        """How many epochs it trains."""
        raise NotImplementedError

    @property
    def processes(self) -> int:
        """How many processes train it."""
        return 1

    @property
    def cost(self) -> str:
        """What the time of an epoch depends on, beside the data and the machine."""
        return f"one branch of {self.model}"


class Supervised(RunConfig):
    """Training on labels. Defaults: the appendix's recipe for CIFAR100-LT (section B)."""

    pretrained: bool = False
    """Start from the encoder that simsiam pre-trains with the keys below, the same data, model and seed."""
    pretraining: PretrainingConfig = PretrainingConfig()
    """SimSiam pre-training: read by simsiam, and by the others where pretrained is true."""

    epochs: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Passes over the long-tailed training set."""
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 128
    """Images a step in each branch (B)."""
    lr: Annotated[float, Field(gt=0)] = 0.2
    """Peak learning rate of SGD."""
    lr_schedule: Literal["drops", "cosine"] = "drops"
    """After its rise the learning rate is divided by 10 at lr_drops, or falls to zero along a cosine."""
    lr_warmup_epochs: Annotated[int, Field(ge=0)] = 5
    """Epochs over which the learning rate rises linearly to its peak."""
    lr_drops: tuple[Annotated[int, Field(ge=1)], ...] = (160, 180)
    """Epochs after which the learning rate is divided by 10."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD (no Nesterov)."""
    weight_decay: Annotated[float, Field(ge=0)] = 2e-4
    """Weight decay of SGD, on every parameter."""
    crop_padding: Annotated[int, Field(ge=0, le=64)] = 4
    """Random crop after zero padding by this many pixels; 0 is no crop. image_list: random resized crop instead."""
    colour_jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    """image_list only: strength of random brightness, contrast and saturation (the released code: 0.4)."""
    ranks: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processes, each with a GPU where there are GPUs, that share every batch; batch norm sees each rank's part."""
    sync_batch_norm: bool = False
    """Let batch norm see the whole batch instead; several GPUs only."""

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        if self.batch_size % self.ranks:
            raise ValueError(f"batch_size {self.batch_size} cannot be shared by {self.ranks} ranks; use a multiple")
        if 1 < self.ranks == self.batch_size and not self.sync_batch_norm:
            raise ValueError(
                f"batch_size {self.batch_size} with {self.ranks} ranks leaves batch norm one image each; use a larger"
            )
        drops = () if self.lr_schedule == "cosine" else self.lr_drops
        if list(drops) != sorted(set(drops)):
            raise ValueError(f"lr_drops {list(drops)} must rise, each epoch once")
        if drops and drops[-1] >= self.epochs:
            raise ValueError(
                f"lr_drops {list(self.lr_drops)}: a drop after epoch {self.lr_drops[-1]} never comes in "
                f"{self.epochs} epochs; move it, or write lr_drops: []"
            )
        return self

    def unread(self) -> set[str]:
        """Return the keys that have no effect with the values of the others."""
        keys = {"crop_padding"} if self.data.source == "image_list" else {"colour_jitter"}
        keys |= {"lr_drops"} if self.lr_schedule == "cosine" else set()
        keys |= {"sync_batch_norm"} if self.ranks == 1 else set()
        return super().unread() | keys | (set() if self.pretrained else {"pretraining"})

    def read(self) -> dict[str, Any]:
        """Return what determines the result: every key that the run reads, JSON types only."""
        return super().read() | ({"pretraining": self.pretraining.read()} if self.pretrained else {})

    def parent(self) -> dict[str, Any] | None:
        """Return the pre-training that fine-tuning starts from, None where it starts from none."""
        if not self.pretrained:
            return None
        shared = set(RunConfig.model_fields) | {"pretraining"}
        return self.model_dump(mode="json", include=shared) | {"method": "simsiam"}

    @property
    def total_epochs(self) -> int:
        """How many epochs it trains."""
        return self.epochs

    @property
    def processes(self) -> int:
        """How many processes train it."""
        return self.ranks


def validate(model: type[Model], fields: Any, where: str) -> Model:
    """Validate `fields` against a pydantic `model`; a `UserError` names the first wrong key."""
    if not isinstance(fields, dict):
        raise UserError(f"{where}: expected a mapping of keys to values, got {_shown(fields)}")
    waiting, count = [fields], 0
    while waiting and count <= MOST_NODES:  # one list in many places is written out many times
        value, count = waiting.pop(), count + 1
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if waiting:
        raise UserError(f"{where}: holds more than {MOST_NODES:,} values, or itself")
    try:
        # Through JSON, where a list may stand for a tuple while numbers stay strictly typed.
        return model.model_validate_json(json.dumps(fields, default=str))
    except ValidationError as error:
        _explain(error, model, where)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise UserError(f"{where}: is not a plain mapping of keys to values ({error})") from None


def load_yaml(path: Path | str) -> Any:
    """Read one YAML file, refusing duplicate keys.

    Raises:
        UserError: the file is missing, unreadable, or not YAML.
    """
    return parse_yaml(read_text(Path(path), LONGEST_YAML), str(path))


def read_stdin() -> str:
    """Return what comes through standard input.

    Raises:
        UserError: it is closed, or no text.
    """
    try:
        return sys.stdin.read(LONGEST_YAML + 1)
    except (AttributeError, OSError, ValueError):  # closed before we began, a folder, not UTF-8
        raise UserError("stdin: cannot be read; give the configuration through it, or name its file") from None


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML text, refusing duplicate keys and anything but plain values, and what only means to take time."""
    if len(text) > LONGEST_YAML:
        raise UserError(f"{where}: is longer than the {LONGEST_YAML:,} characters that a configuration may have")
    try:
        loader = _UniqueKeyLoader(text)
        node = loader.get_single_node()
        if node is not None and _nodes(node, {}) > MOST_NODES:
            raise ValueError(f"its aliases stand for more than {MOST_NODES:,} values")
        return None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        what = problem if problem.startswith("YAML 1.1") else f"is not valid YAML: {problem}"
        raise UserError(f"{where}:{line} {what}") from None
    except Exception as error:  # a date that is none, a list as key, a tag with another value than it is for
        raise UserError(f"{where}: is not valid YAML: {str(error)[:200]}") from None


def _nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node stands for, aliases spelt out.

    Raises:
        ValueError: one holds itself, or no file or number can be called so.
    """
    if known.setdefault(id(node), 0):
        return known[id(node)]
    count = 1
    if isinstance(node, yaml.ScalarNode):
        if len(node.value) > LONGEST_VALUE or re.search("[\0\ud800-\udfff]", node.value):
            raise ValueError(f"'{node.value[:20]}...' is too long, or holds what is no character")
    else:
        inner = node.value if isinstance(node, yaml.SequenceNode) else [each for pair in node.value for each in pair]
        if any(known.get(id(each)) == 0 for each in inner):
            raise ValueError("an alias stands for what it is part of")
        count += sum(_nodes(each, known) for each in inner)
    known[id(node)] = count
    return count


def flat(fields: dict[str, Any], between: str = ".") -> dict[str, Any]:
    """Return nested fields as one mapping, their keys joined."""
    leaves: dict[str, Any] = {}
    for key, value in fields.items():
        inner = flat(value, between) if isinstance(value, dict) else None
        leaves |= {key: value} if inner is None else {f"{key}{between}{name}": leaf for name, leaf in inner.items()}
    return leaves


def set_dotted(fields: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return a copy of nested `fields` with the dotted `key` set to `value`; a mapping is merged in."""
    if isinstance(value, dict):
        for inner, leaf in value.items():
            fields = set_dotted(fields, f"{key}.{inner}", leaf)
        return fields
    head, _, rest = key.partition(".")
    if not rest:
        return fields | {head: value}
    inner = fields.get(head)
    return fields | {head: set_dotted(inner if isinstance(inner, dict) else {}, rest, value)}


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a mapping with the same key twice, of which YAML keeps the last, and deep nesting."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} levels deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _plain_number(loader: _UniqueKeyLoader, node: yaml.ScalarNode) -> Any:
    """Return a number that anybody reads as YAML does: `0123` would be 83, `1:30` 90, and `1_000` 1000."""
    is_int = node.tag.endswith("int")
    value = loader.construct_yaml_int(node) if is_int else loader.construct_yaml_float(node)
    if re.search(r"[_:xXbB]|^[-+]?0\d", node.value):
        text = node.value if len(node.value) < 40 else f"{node.value[:30]}..."
        problem = f"YAML 1.1 reads {text} as {_shown(value)}; write that, or '{text}' in quotes if it is text"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return value


_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:int", _plain_number)
_UniqueKeyLoader.add_constructor("tag:yaml.org,2002:float", _plain_number)
# Numbers as JSON and YAML 1.2 write them, 1e-05: YAML 1.1 takes those without a point and a sign for text.
_UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


OF_THE_COMMAND = ("compile", "device", "out", "threads")
"""Options of `csa train`: how and where a run is computed does not make it another run."""


def _explain(error: ValidationError, model: type[BaseModel], where: str) -> NoReturn:
    """Turn pydantic's first complaint into one line with the dotted key and the remedy."""
    # Of a key that may be a word or something else, each is tried, and named within it: the word is not what is said.
    errors = error.errors(include_url=False)
    errors = [each for each in errors if not str(each["loc"][-1:]).startswith('("literal[')] or errors
    # A misspelt key is said before the one that is missing because of it.
    first = min(errors, key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"] if not re.match(r"(literal|list|function-after)\[", str(part)))
    value, kind = first["input"], first["type"]
    if kind == "extra_forbidden":
        valid, name = _keys_beside(model, first["loc"]), str(first["loc"][-1])
        outer, _, inner = name.partition(".")
        if inner and outer in valid:
            hint = f"a key within a key is written as {outer}: {{{inner}: {_shown(value)}}}"
        elif name in OF_THE_COMMAND and name not in valid:
            hint = f"an option of the command: csa train --{name}"
        else:
            hint = nearest(name, valid)
        message = f"unknown key '{key}': {hint}"
    elif kind == "literal_error" and isinstance(value, str):
        names = re.findall(r"'([^']+)'", first["ctx"]["expected"])
        message = f"{key}: unknown name '{value}', {nearest(value, names)}"
    elif kind == "string_pattern_mismatch" and (examples := model.model_fields[str(first["loc"][0])].examples):
        hint = nearest(str(value), examples)
        every = f" (one of {', '.join(examples)})" if hint.startswith("did") else ""
        message = f"{key}: unknown name '{value}', {hint}{every}"
    elif kind == "string_pattern_mismatch":
        message = f"{key}: {_shown(value)} cannot be used; write it with letters, digits and . _ + - alone"
    elif kind == "value_error":
        message = f"{key}: {first['ctx']['error']}" if key else str(first["ctx"]["error"])
    else:
        message = f"{key}: {first['msg'][0].lower()}{first['msg'][1:]}, got {_shown(value)}"
        if kind in ("literal_error", "string_type") and isinstance(value, bool):
            message += ": YAML reads yes, no, on and off as true and false; write it in quotes"
        elif kind == "string_type" and isinstance(value, int | float):
            message += ": YAML reads that as a number; write it in quotes"
        if kind in ("list_type", "tuple_type") and isinstance(value, int | float | str):
            message += f"; write a list, as [{value}]"
        if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?e[-+]?\d{1,3}", value, re.I):
            whole = kind.startswith("int") and float(value).is_integer()
            number = str(int(float(value))) if whole else _yaml_number(value)
            message += f": YAML reads that as text, write {number}"
    more = len(errors) - 1
    raise UserError(f"{where}: {message}" + (f" (and {more} more)" if more else "")) from None


def _yaml_number(text: str) -> str:
    """Write a number in exponent form so that YAML 1.1 reads it as one: 2e4 -> 2.0e+4."""
    mantissa, _, exponent = text.lower().partition("e")
    sign = "" if exponent[0] in "+-" else "+"
    return f"{mantissa}{'' if '.' in mantissa else '.0'}e{sign}{exponent}"


def _keys_beside(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the model, within lists and mappings, too, that a key at `loc` would be one of."""
    kind: Any = model
    for part in loc[:-1]:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation if str(part) in kind.model_fields else None
        else:  # an item of a list, or a value of a mapping
            kind = get_args(kind)[-1] if get_args(kind) else None
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
    is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
    return list(kind.model_fields if is_model else model.model_fields)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
