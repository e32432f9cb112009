"""What the commands do. Each imports torch only once its configuration is found sound."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_core import store
from csa_core.code import code_digest
from csa_core.compare import percent
from csa_core.config import PLACES, DataConfig, RunConfig, Strict, flat, load_yaml, parse_yaml, read_stdin, set_dotted
from csa_core.errors import UserError, printable, say, settle, untrusted
from csa_core.methods import DEFAULT, METHODS, parse, readers, recipe
from csa_core.store import canonical
from csa_core.train import launch

if TYPE_CHECKING:
    from csa_core.data.dataset import Dataset
    from csa_core.data.listed import ImageList
    from csa_core.data.split import Split
    from csa_core.methods.base import Method

OTHER_KINDS = {
    *(".png", ".jpg", ".jpeg", ".webp", ".svg", ".pdf", ".csv", ".tsv", ".md", ".html", ".tex", ".yaml", ".yml"),
    *(".json", ".txt", ".pt", ".pth", ".ckpt", ".npy", ".npz", ".onnx", ".safetensors"),
}
OF_A_PROTOCOL = ("tables", "paper_values")
"""What a protocol of the workflow says beside the keys of runs: of tables."""
OWN_ROOTS = {
    "folder": "name the folder that holds train/<class>/ and test/<class>/, or the data set file with --data",
    "image_list": "name the folder that the paths of the lists start from",
}


def data(args: argparse.Namespace) -> None:
    """Load the data set of a run, check it and write it as one file."""
    from csa_core.data.sources import load_source

    config = _config(args)
    check_out(args.out, ".safetensors", *_inputs_of(args, config.data))
    dataset = load_source(config.data)
    dataset.write(args.out, args.made_from)
    counts = [f"{len(dataset.train_labels):,} train"]
    counts += [f"{len(val.test_labels):,} validation"] if (val := dataset.validation) is not None else []
    named = f"{', '.join(counts)} and {len(dataset.test_labels):,} test images"
    print(f"{args.out}: {named}, {len(dataset.class_names)} classes, SHA-256 {dataset.digest[:12]}")


def check(args: argparse.Namespace) -> None:
    """Decode every image of a folder or image_list; name those that cannot be, and those that are the same.

    How many are not square, and what is held out to validate on, is said, too.
    """
    config = _config(args)
    if config.data.source not in OWN_ROOTS:
        raise UserError(
            f"check: data.source is {config.data.source}, which checks its own files; use it on folder or image_list"
        )
    from csa_core.data.decode import check_images
    from csa_core.data.split import make_split

    if config.data.source == "image_list":
        count = 0
        _check_count("--workers", args.workers, lowest=0)
        for line in check_images(config.data, _workers(args)):
            count += 1
            print(printable(line))
        if count:
            raise UserError(f"{count} images cannot be decoded; replace them or take their lines out of the lists")
    dataset = _dataset(config.data, None)
    if config.data.validation:
        _say_held_out(dataset, make_split(dataset, config.data))
    print(f"every image of the {'lists' if config.data.source == 'image_list' else 'folder'} can be decoded")


def split(args: argparse.Namespace) -> None:
    """Make the long-tailed split of a run and write its indices."""
    from csa_core.data.split import make_split, write_split

    config = _config(args)
    check_out(args.out, ".json", *_inputs_of(args, config.data))
    dataset = _dataset(config.data, args.data)
    kept = make_split(dataset, config.data)
    write_split(args.out, kept, dataset, config.data)
    largest, smallest = max(kept.class_counts), min(kept.class_counts)
    print(f"{args.out}: {len(kept.indices):,} images, classes of {largest} to {smallest}, SHA-256 {kept.digest[:12]}")
    if len(kept.validation):
        _say_held_out(dataset, kept)


def _say_held_out(dataset: "Dataset | ImageList", kept: "Split") -> None:
    """Say how many images a split holds out to validate on, and of which classes it holds out none."""
    from csa_core.data.dataset import note_untested

    labels = dataset.train_labels[kept.validation]
    classes = f"{len(set(labels.tolist()))} of {len(dataset.class_names)} classes"
    say(f"note: {len(labels):,} validation images of {classes} are held out of training")
    note_untested(dataset.class_names, labels, "validation")


def selection(args: argparse.Namespace) -> None:
    """Write which training images a run's split keeps, by class and pixels."""
    from csa_core.data.dataset import Dataset
    from csa_core.data.selection import write_selection
    from csa_core.data.split import make_split

    config = _config(args)
    check_out(args.out, ".txt", *_inputs_of(args, config.data))
    dataset = _dataset(config.data, args.data)
    if not isinstance(dataset, Dataset):
        raise UserError("selection: works on images in memory; an image_list names its images already")
    kept = make_split(dataset, config.data.model_copy(update={"validation": 0.0}))  # it says which itself
    write_selection(args.out, dataset, kept)
    print(f"{args.out}: {len(kept.indices):,} images of {len(dataset.class_names)} classes")


def train(args: argparse.Namespace) -> None:
    """Train one run and write its results."""
    text = _stdin() if args.config == "-" else ""
    config = _config(args, text)
    ranks = config.processes
    if ranks > 1 and not launch.is_rank():
        return launch.launch(ranks, sys.argv[1:], text)
    if launch.is_rank():
        args.device = launch.join(args.device, ranks)
    state = args.state or args.out / "state"
    launch.keep_compiled(state / "compiled")
    device = device_of(args, config.precision)
    from csa_core.data.ranks import rank
    from csa_core.train.loop import Options
    from csa_core.train.loop import train as train_run
    from csa_core.train.state.results import see_same_run

    dataset, kept = _inputs(args, config.data)
    if rank() == 0:
        if len(kept.validation) and not args.split:
            _say_held_out(dataset, kept)
        see_same_run(args.out, config, {"data": dataset.digest, "split": kept.digest})
    if not args.checkpoint_seconds >= 0:
        raise UserError(f"--checkpoint-seconds {args.checkpoint_seconds}: a number of seconds, 0 or more")
    code = args.code_version or code_digest(config.method)
    if args.expect_code and code != code_digest(config.method):
        raise UserError("csa_core: its code has changed since the workflow started; start snakemake again")
    given = args.checkpoint_seconds, args.retrain, args.parent, args.compile, args.capture, args.wait
    metrics = train_run(config, dataset, kept, Options(args.out, state, device, code, *given))
    if rank() == 0:
        try:
            _print_accuracies(metrics)
            settle()
        except OSError as error:
            say(f"warning: the accuracies could not be printed ({error.strerror}); the results are in {args.out}")
    return None


def evaluate(args: argparse.Namespace) -> None:
    """Score the trained weights of a run anew, print the accuracies and compare them with its metrics."""
    stored = store.read_sealed(_run_folder(args) / "metrics.json")
    if store.read_header(args.folder / "weights.safetensors")["meta"].get("digests") != stored.get("digests"):
        raise UserError(f"{args.folder}: its weights are of another run than its metrics; train it again")
    method, network = trained(args)
    from csa_core.train.metrics import make_metrics

    config, dataset, kept = method.config, method.setting.dataset, method.setting.split
    logits = method.logits_by_part(network, final=True)
    try:
        metrics = make_metrics(config, dataset, kept, logits, stored["digests"])
        same = all(metrics[part] == stored[part] for part in ("heads", "validation") if part in metrics)
    except (KeyError, TypeError):
        raise UserError(f"{args.folder / 'metrics.json'}: is not of a trained run; train it again") from None
    _print_accuracies(metrics)
    print("same as metrics.json" if same else "differs from metrics.json: another device or thread count can do that")


def contexts(args: argparse.Namespace) -> None:
    """Write what context shift does in a trained run, on a few images."""
    if args.images < 1:
        raise UserError(f"--images {args.images}: 1 or more")
    check_out(args.out, ".safetensors", args.data, more="; `python -m workflow.report.gallery` draws it")
    method, network = trained(args)
    from csa_core.methods.gallery import show_contexts

    tensors, meta = show_contexts(method, network, args.images)
    store.write_tensors(args.out, tensors, meta | {"run": method.config.digest()})


def mistakes(args: argparse.Namespace) -> None:
    """Write the test images that a run gets most confidently wrong."""
    if args.images < 1:
        raise UserError(f"--images {args.images}: 1 or more")
    check_out(args.out, ".safetensors", args.data)
    path = _run_folder(args) / "predictions.safetensors"
    logits, label, _ = store.read_tensors(path)
    from csa_core.evaluation.mistakes import pictures, worst_mistakes

    config = _config_of(args, label, path)
    dataset = _dataset(config.data, args.data)
    head = METHODS[config.method].scored_as(config).predicts
    with untrusted(f"{path}: holds no predictions of a run; train the run again"):
        if dataset.digest != label["digests"]["data"]:
            raise UserError(f"{args.folder}: was trained on other data; name its data set file with --data")
        names, labels = dataset.class_names, dataset.test_labels
        numbers, predicted, confidence = worst_mistakes(logits[head], labels, args.images)
        meta = {"run": label["digests"]["config"], "method": config.method, "seed": config.seed, "head": head}
        meta |= {"test_image": numbers.tolist(), "confidence": confidence.tolist()}
        meta |= {"true": [names[k] for k in labels[numbers]], "predicted": [names[k] for k in predicted]}
    store.write_tensors(args.out, {"images": pictures(dataset, numbers)}, meta)
    print(f"{args.out}: the {len(numbers)} most confident mistakes of the run")


def keys(args: argparse.Namespace) -> None:
    """Print every key of a run's configuration with its default, its meaning, and who reads it."""
    print(f"{f'method: {canonical(DEFAULT)}':<42} {' | '.join(METHODS)}")
    fields = {key: field for method in METHODS.values() for key, field in method.Config.model_fields.items()}
    for key, field in fields.items():
        if key == "method":
            continue
        owners = readers(key)
        whose = f"{', '.join(owners)}: " if len(owners) < len(METHODS) - 1 else ""
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, Strict):
            inner = {f"{key}.{name}": part for name, part in nested.model_fields.items()}
        else:
            inner = {key: field}
        for name, part in inner.items():
            print(f"{f'{name}: {canonical(part.default)}':<42} {whose}{part.description}")


def check_out(out: Path, suffix: str, *read: Path | str | None, more: str = "") -> None:
    """See that a file is not called what it will not be, and takes the place of nothing that is read or of a run.

    Args:
        suffix: of the kind that is written.
        read: what the command reads; None is nothing.
        more: what a message says of another kind.
    """
    if out.suffix.lower() in OTHER_KINDS - {suffix}:
        raise UserError(f"--out {out}: no {out.suffix} file is written; name it {out.with_suffix(suffix)}{more}")
    if any(path is not None and out.exists() and os.path.realpath(path) == os.path.realpath(out) for path in read):
        raise UserError(f"--out {out}: is read by this very command; name another file")
    beside = os.path.realpath(out.parent)
    if (out.exists() and not (out.is_file() or out.is_dir())) or beside == "/dev" or beside.startswith("/proc/"):
        raise UserError(f"--out {out}: is no regular file; name a file")
    if out.name in store.RESULTS and out.exists():
        raise UserError(f"--out {out}: is a result of the run in {out.parent}; name another file")


def _inputs_of(args: argparse.Namespace, data: DataConfig) -> list[Path | str | None]:
    """Return the files that a command on a configuration reads."""
    return [args.config, getattr(args, "data", None), data.train_list, data.test_list, data.val_list, data.selection]


def _stdin() -> str:
    """Return what came through stdin; a rank is told by who started it."""
    if launch.is_rank() and "CSA_STDIN" not in os.environ:
        raise UserError("stdin: torchrun does not share it among its processes; name the configuration's file")
    return os.environ["CSA_STDIN"] if launch.is_rank() else read_stdin()


def _config(args: argparse.Namespace, text: str | None = None) -> RunConfig:
    where = "stdin" if args.config == "-" else args.config
    fields = parse_yaml(_stdin() if text is None else text, where) if args.config == "-" else load_yaml(args.config)
    fields = {} if fields is None else fields
    if isinstance(fields, dict):  # a protocol of the workflow is a file of runs, too
        fields = {key: value for key, value in fields.items() if key not in OF_A_PROTOCOL}
    for change in args.set:
        key, equals, value = change.partition("=")
        if not equals or not isinstance(fields, dict):
            raise UserError(f"--set {change}: expected KEY=VALUE, as in --set threshold=0.3")
        fields = set_dotted(fields, key, parse_yaml(value, f"--set {key}"))
    # A file may be a recipe for several methods; what is asked for with --set must have an effect.
    asked = fields.get("method") if any(change.startswith("method=") for change in args.set) else None
    remedy = "remove it" if asked else "remove it, or name the method with --set method=csa"
    if isinstance(asked, str) and asked in METHODS:
        keys = {change.partition("=")[0].partition(".")[0] for change in args.set}
        fields = recipe(fields, asked) | {key: value for key, value in fields.items() if key in keys}
    config = parse(fields, where, remedy)
    # A selection names images whichever source and size they come from.
    origin = {"source", "image_size", "resize"} if config.data.profile == "selection" else set()
    read = flat(config.read()).keys() | {f"data.{key}" for key in PLACES | origin}
    for key in (change.partition("=")[0] for change in args.set):
        if not any(f"{leaf}.".startswith(f"{key}.") for leaf in read):
            raise UserError(f"--set {key}: has no effect with what else is set; leave it out")
    return config


def _dataset(data: DataConfig, path: Path | None) -> "Dataset | ImageList":
    from csa_core.data.sources import load_source, read_dataset

    return load_source(data) if path is None else read_dataset(path, data)


def _inputs(args: argparse.Namespace, data: DataConfig) -> "tuple[Dataset | ImageList, Split]":
    from csa_core.data.listed import ImageList, with_workers
    from csa_core.data.split import make_split, read_split

    _check_count("--workers", args.workers, lowest=0)
    dataset = _dataset(data, args.data)
    if isinstance(dataset, ImageList):
        dataset = with_workers(dataset, _workers(args))
    return dataset, read_split(args.split, dataset, data) if args.split else make_split(dataset, data)


def _workers(args: argparse.Namespace) -> int:
    """Return how many processes decode: as asked for, else the cores that training leaves idle."""
    return max(0, _cores() - 1) if args.workers is None else int(args.workers)


def _cores() -> int:
    """Return how many cores a rank may use; of a container's quota Python and torch know nothing, joblib does."""
    from joblib import cpu_count

    return cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _check_count(option: str, count: int | None, lowest: int) -> None:
    if count is not None and not lowest <= count <= 1024:
        raise UserError(f"{option} {count}: from {lowest} to 1024")


def device_of(args: argparse.Namespace, precision: str) -> Any:
    """Return the device that is asked for, set up, with the threads that are asked for or that the cores allow."""
    _check_count("--threads", args.threads, lowest=1)
    import torch

    from csa_core.train.run import choose_device

    if args.threads is not None:
        torch.set_num_threads(max(1, args.threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), _cores())))
    return choose_device(args.device, precision)


def trained(args: argparse.Namespace) -> "tuple[Method, Any]":
    """Return the method of a run's folder in its setting, and its network with the trained weights."""
    path = _run_folder(args) / "weights.safetensors"
    weights, label, _ = store.read_tensors(path)
    import torch

    from csa_core.data.split import apart
    from csa_core.methods.base import Setting
    from csa_core.models.precision import allow_tf32, place

    config = _config_of(args, label, path)
    with untrusted(f"{path}: holds no trained weights; train the run again"):
        wanted = label["digests"]["data"], label["digests"]["split"]
    device = device_of(args, "float32")
    if device.type == "cuda":  # elsewhere what was trained in TF32 is evaluated without
        allow_tf32(config.precision == "tf32")
    dataset, kept = _inputs(args, config.data)
    if (dataset.digest, kept.digest) != wanted:
        raise UserError(f"{args.folder}: was trained on other data or another split; name them with --data and --split")
    method = METHODS[config.method](config, Setting(*apart(dataset, kept), device, "float32"))
    network = method.network()
    try:
        network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    except RuntimeError:
        raise UserError(f"{path}: does not hold the weights of a {config.model}; train the run again") from None
    return method, place(network, device)


def _run_folder(args: argparse.Namespace) -> Path:
    if not args.folder.is_dir():
        raise UserError(f"{args.folder}: is no folder; name the one that `csa train --out` filled")
    return args.folder


def _config_of(args: argparse.Namespace, label: dict[str, Any], path: Path) -> RunConfig:
    """Return the configuration that a run's file carries, with its images where they are now.

    Raises:
        UserError: it carries none, or where its images are has to be said.
    """
    with untrusted(f"{path}: does not say of which run it is; train the run again"):
        fields = label["config"]
        if fields["data"].get("source") == "image_list":  # whose lists are in the data set file
            if args.data is None:
                raise UserError(
                    "--data is missing: name the data set file that `python -m csa_core data` made of the lists"
                )
            lists = {"train_list": str(args.data), "test_list": str(args.data)}
            fields = set_dotted(fields, "data", lists)
        config = parse(set_dotted(fields, "data.root", args.root) if args.root else fields, str(args.folder))
        kind = config.data.source if config.data.selection is None else "selection"
        if args.root is None and (kind == "image_list" or (kind == "folder" and args.data is None)):
            raise UserError(f"--root is missing: {OWN_ROOTS[kind]}")
    return config


def _print_accuracies(metrics: dict[str, Any]) -> None:
    columns = ("all", "many", "medium", "few")
    parts = {"": metrics["heads"], "validation ": metrics.get("validation", {})}
    rows = {f"{part}{head}": scores for part, heads in parts.items() for head, scores in heads.items()}
    width = max(14, *(len(name) + 2 for name in rows))
    print(f"{'accuracy, %':<{width}}" + "".join(f"{column:>8}" for column in columns))
    for name, scores in rows.items():
        values = (scores["accuracy"][column] for column in columns)
        cells = "".join(f"{percent(value):>8}" for value in values)
        balanced = f"   mean over classes {percent(scores['balanced'])}" if name.startswith("validation ") else ""
        print(f"{name:<{width}}{cells}{'   <- predicts' if name == metrics['predicts'] else balanced}")
