"""What the commands do. Each imports torch only once its configuration is found sound."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csa_core import store
from csa_core.config import (
    METHOD_HEADS,
    DataConfig,
    PretrainingConfig,
    RunConfig,
    load_yaml,
    parse,
    parse_yaml,
    set_dotted,
)
from csa_core.errors import UserError

if TYPE_CHECKING:
    from csa_core.data.dataset import Dataset
    from csa_core.data.split import Split


def data(args: argparse.Namespace) -> None:
    """Load the data set of a run, check it and write it as one file."""
    from csa_core.data.sources import load_source

    dataset = load_source(_config(args).data)
    dataset.write(args.out)
    counts = f"{len(dataset.train_labels):,} train and {len(dataset.test_labels):,} test images"
    print(f"{args.out}: {counts}, {len(dataset.class_names)} classes, SHA-256 {dataset.digest[:12]}")


def split(args: argparse.Namespace) -> None:
    """Make the long-tailed split of a run and write its indices."""
    from csa_core.data.split import make_split, write_split

    config = _config(args)
    dataset = _dataset(config.data, args.data)
    kept = make_split(dataset, config.data)
    write_split(args.out, kept, dataset, config.data)
    largest, smallest = max(kept.class_counts), min(kept.class_counts)
    print(f"{args.out}: {len(kept.indices):,} images, classes of {largest} to {smallest}, SHA-256 {kept.digest[:12]}")


def train(args: argparse.Namespace) -> None:
    """Train one run and write its results."""
    config = _config(args)
    device = _device(args)
    from csa_core.train.loop import train as train_run

    dataset, kept = _inputs(args, config.data)
    if not args.checkpoint_seconds >= 0:
        raise UserError(f"--checkpoint-seconds {args.checkpoint_seconds}: a number of seconds, 0 or more")
    code = args.code_version or store.code_digest()
    if args.expect_code and args.expect_code != store.code_digest():
        raise UserError("csa_core: its code has changed since the workflow started; start snakemake again")
    state = args.state or args.out / "state"
    metrics = train_run(
        config, dataset, kept, args.out, state, device, code, args.checkpoint_seconds, args.retrain, args.encoder
    )
    _print_accuracies(metrics)


def evaluate(args: argparse.Namespace) -> None:
    """Score the trained weights of a run anew, print the accuracies and compare them with its metrics."""
    stored = store.read_sealed(args.folder / "metrics.json")
    config, network, dataset, kept = _trained(args)
    from csa_core.data.augment import evaluation_batches
    from csa_core.train.evaluate import predict
    from csa_core.train.probe import Probe
    from csa_core.train.results import make_metrics

    device = next(network.parameters()).device
    if config.method == "simsiam":
        logits = Probe(dataset, kept, device).logits(network.body, linear=True)
        stored["heads"].pop("knn_untrained", None)
    else:
        logits = predict(network, evaluation_batches(dataset, device))
    try:
        metrics = make_metrics(config, dataset, kept, logits, stored["digests"])
        same = metrics["heads"] == stored["heads"]
    except (KeyError, TypeError):
        raise UserError(f"{args.folder / 'metrics.json'}: is not of a trained run; train it again") from None
    _print_accuracies(metrics)
    print("same as metrics.json" if same else "differs from metrics.json: another device or thread count can do that")


def contexts(args: argparse.Namespace) -> None:
    """Write what context shift does in a trained run, on a few images."""
    config, network, dataset, kept = _trained(args)
    from csa_core.train.gallery import show_contexts

    store.write_tensors(args.out, *show_contexts(config, network, dataset, kept, args.images))


def keys(args: argparse.Namespace) -> None:
    """Print every key of a run's configuration with its default and meaning."""
    for model, prefix in ((RunConfig, ""), (DataConfig, "data."), (PretrainingConfig, "pretraining.")):
        defaults = model().model_dump(mode="json")
        for name, field in model.model_fields.items():
            if name not in ("data", "pretraining"):
                print(f"{f'{prefix}{name}: {store.canonical(defaults[name])}':<42} {field.description}")


def _config(args: argparse.Namespace) -> RunConfig:
    where = "stdin" if args.config == "-" else args.config
    fields = parse_yaml(sys.stdin.read(), where) if args.config == "-" else load_yaml(args.config)
    fields = {} if fields is None else fields
    for change in args.set:
        key, equals, value = change.partition("=")
        if not equals or not isinstance(fields, dict):
            raise UserError(f"--set {change}: expected KEY=VALUE, as in --set threshold=0.3")
        fields = set_dotted(fields, key, parse_yaml(value, f"--set {key}"))
    return parse(fields, where)


def _dataset(data: DataConfig, path: Path | None) -> "Dataset":
    from csa_core.data.dataset import read_dataset
    from csa_core.data.sources import load_source

    if path is None:
        return load_source(data)
    dataset = read_dataset(path)
    if dataset.source != data.source:
        raise UserError(f"{path}: holds {dataset.source}, the run asks for data.source {data.source}")
    side = data.image_size
    if side and dataset.train_images.shape[1:3] != (side, side):
        raise UserError(f"{path}: its images are not {side} x {side} px, as data.image_size asks; make it again")
    return dataset


def _inputs(args: argparse.Namespace, data: DataConfig) -> "tuple[Dataset, Split]":
    from csa_core.data.split import make_split, read_split

    dataset = _dataset(data, args.data)
    return dataset, read_split(args.split, dataset, data) if args.split else make_split(dataset, data)


def _device(args: argparse.Namespace) -> Any:
    import torch

    from csa_core.train.run import choose_device

    if args.threads is not None:
        if not 1 <= args.threads <= 1024:
            raise UserError(f"--threads {args.threads}: from 1 to 1024")
        torch.set_num_threads(args.threads)
    return choose_device(args.device)


def _trained(args: argparse.Namespace) -> Any:
    """Return configuration, network with the trained weights, data set and split of a run's folder."""
    path = args.folder / "weights.safetensors"
    weights, label, _ = store.read_tensors(path)
    device = _device(args)
    import torch

    from csa_core.models.resnet import make_network
    from csa_core.models.simsiam import make_simsiam

    try:
        fields, digests = label["config"], label["digests"]
        config = parse(set_dotted(fields, "data.root", args.root) if args.root else fields, str(args.folder))
        wanted = digests["data"], digests["split"]
    except (KeyError, TypeError):
        raise UserError(f"{path}: holds no trained weights; train the run again") from None
    dataset, kept = _inputs(args, config.data)
    if (dataset.digest, kept.digest) != wanted:
        raise UserError(f"{args.folder}: was trained on other data or another split; name them with --data and --split")
    network: torch.nn.Module
    if config.method == "simsiam":
        network = make_simsiam(config.model, config.pretraining, config.seed)
    else:
        network = make_network(config.model, METHOD_HEADS[config.method], len(dataset.class_names), config.seed)
    try:
        network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    except RuntimeError:
        raise UserError(f"{path}: does not hold the weights of a {config.model}; train the run again") from None
    return config, network.to(device, memory_format=torch.channels_last), dataset, kept  # type: ignore[call-overload]


def _print_accuracies(metrics: dict[str, Any]) -> None:
    columns = ("all", "many", "medium", "few")
    print(f"{'accuracy, %':<14}" + "".join(f"{column:>8}" for column in columns))
    for head, scores in metrics["heads"].items():
        values = (scores["accuracy"][column] for column in columns)
        cells = "".join(f"{'' if value is None else f'{100 * value:.1f}':>8}" for value in values)
        print(f"{head:<14}{cells}{'   <- predicts' if head == metrics['predicts'] else ''}")
