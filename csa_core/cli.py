"""The command line: `python -m csa_core data|split|train|evaluate|contexts`.

Configuration is read and checked before torch is imported, so a mistake is answered at once.
"""

import argparse
import os
import signal
import sys
import textwrap
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from csa_core import __version__, store
from csa_core.config import METHOD_HEADS, DataConfig, RunConfig, load_yaml, parse, parse_yaml, set_dotted
from csa_core.errors import UserError

if TYPE_CHECKING:
    from csa_core.data.dataset import Dataset
    from csa_core.data.split import Split

EXAMPLES = """
examples:
  python -m csa_core train run.yaml --out results/mine
  python -m csa_core train run.yaml --out results/mine --set threshold=0.3 --set seed=2
  python -m csa_core evaluate results/mine
  python -m csa_core keys                # every key of run.yaml, its default and meaning

The smallest run.yaml is `data: {source: demo}`; every other key has a default.
"""


class Interrupted(Exception):
    """SIGTERM or SIGINT arrived."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0, 2 for bad input, 128 + signal when interrupted."""
    args = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        args.run(args)
    except UserError as error:
        print(f"csa_core: {error}", file=sys.stderr)
        return 2
    except Interrupted as signalled:
        print("csa_core: interrupted; the same command continues from the last checkpoint", file=sys.stderr)
        return 128 + int(signalled.args[0])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m csa_core",
        description="Context-shift augmentation for long-tail learning.",
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=f"csa_core {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str, config: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text.splitlines()[0], description=textwrap.dedent(text), formatter_class=raw
        )
        sub.set_defaults(run=run)
        if config:
            sub.add_argument("config", metavar="RUN.yaml", help="configuration of the run; - reads it from stdin")
            sub.add_argument(
                "--set",
                action="append",
                default=[],
                metavar="KEY=VALUE",
                help="change one key, dotted where nested; may be repeated",
            )
        return sub

    sub = command("data", _data, "Load the data set of a run, check it and write it as one file.")
    sub.add_argument("--out", type=Path, required=True, help="data set file to write (.safetensors)")

    sub = command("split", _split, "Make the long-tailed split of a run and write its indices.")
    sub.add_argument("--data", type=Path, help="data set file (default: loaded from the source)")
    sub.add_argument("--out", type=Path, required=True, help="split file to write (.json)")

    sub = command(
        "train",
        _train,
        """\
        Train one run and write its results.

        Writes metrics.json, history.csv, predictions.safetensors, weights.safetensors and
        provenance.json. Killed anywhere, the same command continues from the last checkpoint and
        ends with the same bytes; once finished, it fills --out again without training.""",
    )
    sub.add_argument("--out", type=Path, required=True, help="folder for the results")
    sub.add_argument("--data", type=Path, help="data set file (default: loaded from the source)")
    sub.add_argument("--split", type=Path, help="split file (default: made on the way)")
    sub.add_argument("--state", type=Path, help="folder for checkpoints and finished states (default: OUT/state)")
    _device_options(sub)
    sub.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=30.0,
        metavar="S",
        help="write a checkpoint at the first end of an epoch after S seconds (default 30)",
    )
    sub.add_argument(
        "--retrain",
        action="store_true",
        default=os.environ.get("CSA_RETRAIN", "") not in ("", "0"),
        help="train again even where this very run is finished (also: CSA_RETRAIN=1)",
    )
    sub.add_argument("--code-version", help="label the results with this instead of the digest of the code")
    sub.add_argument(
        "--expect-code",
        metavar="DIGEST",
        default=os.environ.get("CSA_EXPECT_CODE"),
        help="refuse to run when the code has another digest (default: CSA_EXPECT_CODE)",
    )

    sub = command(
        "evaluate",
        _evaluate,
        """\
        Evaluate the trained weights of a run on its test set, and print the accuracies.

        The metrics are made anew from the weights and compared with those of the run.""",
        config=False,
    )
    _of_run(sub)

    sub = command(
        "contexts",
        _contexts,
        """\
        Show what context shift does in a trained run, on a few images.

        Writes images, object maps, background masks, contexts and mixed images as tensors;
        `workflow/report/gallery.py` draws them.""",
        config=False,
    )
    _of_run(sub)
    sub.add_argument("--images", type=int, default=8, help="how many (default 8)")
    sub.add_argument("--out", type=Path, required=True, help="file to write (.safetensors)")

    command("keys", _keys, "Print every key of RUN.yaml with its default and meaning.", config=False)
    return parser


def _device_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--device",
        default=os.environ.get("CSA_DEVICE", "auto"),
        help="auto, cpu, cuda, cuda:N or mps (default: CSA_DEVICE, else auto)",
    )
    sub.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: as torch chooses)")


def _of_run(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("folder", metavar="RUN", type=Path, help="folder that `train --out` filled")
    sub.add_argument("--data", type=Path, help="data set file (default: loaded from the source)")
    sub.add_argument("--split", type=Path, help="split file (default: made on the way)")
    sub.add_argument("--root", help="folder of the images, where the source needs one (default: data)")
    _device_options(sub)


def _data(args: argparse.Namespace) -> None:
    from csa_core.data.sources import load_source

    dataset = load_source(_config(args).data)
    dataset.write(args.out)
    counts = f"{len(dataset.train_labels):,} train and {len(dataset.test_labels):,} test images"
    print(f"{args.out}: {counts}, {len(dataset.class_names)} classes, SHA-256 {dataset.digest[:12]}")


def _split(args: argparse.Namespace) -> None:
    from csa_core.data.split import make_split, write_split

    config = _config(args)
    dataset = _dataset(config.data, args.data)
    split = make_split(dataset, config.data)
    write_split(args.out, split, dataset, config.data)
    largest, smallest = max(split.class_counts), min(split.class_counts)
    print(f"{args.out}: {len(split.indices):,} images, classes of {largest} to {smallest}, SHA-256 {split.digest[:12]}")


def _train(args: argparse.Namespace) -> None:
    config = _config(args)
    device = _device(args)
    from csa_core.train.loop import train

    dataset, split = _inputs(args, config.data)
    if not args.checkpoint_seconds >= 0:
        raise UserError(f"--checkpoint-seconds {args.checkpoint_seconds}: a number of seconds, 0 or more")
    code = args.code_version or store.code_digest()
    if args.expect_code and args.expect_code != store.code_digest():
        raise UserError("csa_core: its code has changed since the workflow started; start snakemake again")
    state = args.state or args.out / "state"
    metrics = train(config, dataset, split, args.out, state, device, code, args.checkpoint_seconds, args.retrain)
    _print_accuracies(metrics)


def _evaluate(args: argparse.Namespace) -> None:
    stored = store.read_json(args.folder / "metrics.json")
    config, network, dataset, split = _trained(args)
    from csa_core.data.augment import evaluation_batches
    from csa_core.train.evaluate import predict
    from csa_core.train.results import make_metrics

    device = next(network.parameters()).device
    logits = predict(network, evaluation_batches(dataset, device))
    try:
        metrics = make_metrics(config, dataset, split, logits, stored["digests"])
        same = metrics["heads"] == stored["heads"]
    except (KeyError, TypeError):
        raise UserError(f"{args.folder / 'metrics.json'}: is not of a trained run; train it again") from None
    _print_accuracies(metrics)
    print("same as metrics.json" if same else "differs from metrics.json: another device or thread count can do that")


def _contexts(args: argparse.Namespace) -> None:
    config, network, dataset, split = _trained(args)
    from csa_core.train.gallery import show_contexts

    store.write_tensors(args.out, *show_contexts(config, network, dataset, split, args.images))


def _keys(args: argparse.Namespace) -> None:
    for model, prefix in ((RunConfig, ""), (DataConfig, "data.")):
        for name, field in model.model_fields.items():
            if name != "data":
                default = store.canonical(RunConfig().model_dump(mode="json")["data" if prefix else name])
                if prefix:
                    default = store.canonical(DataConfig().model_dump(mode="json")[name])
                print(f"{prefix + name + ': ' + default:<42} {field.description}")


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

    try:
        fields, digests = label["config"], label["digests"]
        config = parse(set_dotted(fields, "data.root", args.root) if args.root else fields, str(args.folder))
        wanted = digests["data"], digests["split"]
    except (KeyError, TypeError):
        raise UserError(f"{path}: holds no trained weights; train the run again") from None
    dataset, split = _inputs(args, config.data)
    if (dataset.digest, split.digest) != wanted:
        raise UserError(f"{args.folder}: was trained on other data or another split; name them with --data and --split")
    network = make_network(config.model, METHOD_HEADS[config.method], len(dataset.class_names), config.seed)
    try:
        network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    except RuntimeError:
        raise UserError(f"{path}: does not hold the weights of a {config.model}; train the run again") from None
    return config, network.to(device, memory_format=torch.channels_last), dataset, split  # type: ignore[call-overload]


def _print_accuracies(metrics: dict[str, Any]) -> None:
    columns = ("all", "many", "medium", "few")
    print(f"{'accuracy, %':<14}" + "".join(f"{column:>8}" for column in columns))
    for head, scores in metrics["heads"].items():
        values = (scores["accuracy"][column] for column in columns)
        cells = "".join(f"{'' if value is None else f'{100 * value:.1f}':>8}" for value in values)
        print(f"{head:<14}{cells}{'   <- predicts' if head == metrics['predicts'] else ''}")
