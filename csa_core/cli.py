"""The command line: `csa train|evaluate|predict|export|ls|...`, or `python -m csa_core ...`.

Configuration is read and checked before torch is imported, so a mistake is answered at once.
"""

import argparse
import multiprocessing
import os
import re
import signal
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from csa_core import __version__, commands, finished
from csa_core.config import COMPILE_CHOICES
from csa_core.errors import UserError, likely, nearest, say, settle, write_any_name
from csa_core.files import from_home
from csa_core.methods import KEYS
from csa_core.train import launch
from csa_core.train.memory import is_out_of_memory

EXAMPLES = """
examples:
  csa train run.yaml --out results/mine
  csa train run.yaml --out results/mine --set threshold=0.3 --set seed=2
  csa evaluate results/mine
  csa predict results/mine photo.jpg photos/
  csa keys                # every key of run.yaml, its default and meaning

`csa` and `python -m csa_core` are the same. The smallest run.yaml is `data: {source: demo}`; every
other key has a default.
"""


# How often a thread of GNU OpenMP looks for work before it sleeps: what OpenMP takes itself where it has more threads
# than cores. Of other processes it knows nothing: two trainings at once would each wait for threads whose cores the
# other's waiting threads hold, and take five times as long (benchmarks/README.md).
SPINS = "1000"


class Interrupted(BaseException):
    """SIGTERM or SIGINT arrived. Like KeyboardInterrupt it is no `Exception`, which others may catch."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0, 2 for bad input, 128 + signal when interrupted."""
    args, others = _parser().parse_known_args(argv)
    if others:
        args.parser.refuse(others[0])
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # torch is not imported yet
    write_any_name()
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    sys.unraisablehook = _swallowed
    code = _run(args)
    if code and launch.is_rank():
        os._exit(code)  # to leave in good order would be to wait for the others, who wait for this one
    if code < 128:  # all is done, and nobody is left to catch what a late signal would raise
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
    launch.leave()
    with suppress(OSError):
        settle()
    return code


def _run(args: argparse.Namespace) -> int:
    try:
        args.run(args)
        settle()
    except (UserError, RuntimeError, OSError) as error:
        # A signal may surface as something else: while Python made a class, or where it met decoding workers, too.
        if signalled := _signal_behind(error):
            return _ended_by(signalled, error)
        if isinstance(error, UserError):
            _say(error)
            return 2
        if isinstance(error, OSError):
            return _without_output(error)
        if launch.is_about_a_lost_peer(error):
            return 1
        if launch.is_of_ranks(error):
            _say(f"{str(error).partition(chr(10))[0]}; NCCL_DEBUG=INFO says more")
            return 1
        if is_out_of_memory(error):  # a GPU's, or what torch asked for on the CPU
            _say("out of memory; end what else runs on this device, or name another with --device")
            return 2
        raise
    except MemoryError:
        _say("there is not enough memory; for many images use source: image_list, which holds one batch at a time")
        return 2
    except Interrupted as signalled:
        return _ended_by(signalled, signalled)
    except launch.RankLost as lost:
        _say(lost)
        return lost.code
    return 0


def _signal_behind(error: BaseException | None) -> Interrupted | None:
    while error is not None and not isinstance(error, Interrupted):
        error = error.__cause__ or error.__context__
    return error


def _ended_by(signalled: Interrupted, error: BaseException) -> int:
    notes = [*getattr(signalled, "__notes__", []), *getattr(error, "__notes__", [])]
    _say(f"interrupted; the same command continues {notes[0] if notes else 'from where it stopped'}")
    return 128 + int(signalled.args[0])


def _without_output(error: OSError) -> int:
    with suppress(OSError):
        settle()  # so that Python does not try again at its end
    if isinstance(error, BrokenPipeError):  # `| head`
        return 1
    _say(f"{error.filename or 'output'}: {error.strerror}")
    return 2


def _say(what: object) -> None:
    """Write one line at once, so that those of several ranks do not run into each other."""
    say(f"csa_core: {what}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    if multiprocessing.parent_process() is not None:
        os._exit(128 + number)  # decodes for the one that speaks
    if launch.is_rank():
        os._exit(128 + number)  # the one that started it speaks, and a state is sound after any end
    for each in (signal.SIGTERM, signal.SIGINT):  # a second one must not cut the clean end short
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)


def _swallowed(lost: "sys.UnraisableHookArgs") -> None:
    """Interrupt once more where Python dropped it: what a destructor raises goes no further."""
    if not isinstance(lost.exc_value, Interrupted):
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:  # what a signal left half made cannot tidy up
            sys.__unraisablehook__(lost)
        return
    number = int(lost.exc_value.args[0])
    signal.signal(signal.SIGALRM, lambda *_: _interrupt(number, None))
    signal.setitimer(signal.ITIMER_REAL, 0.05)  # not here: this, too, is within the destructor


class _Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, the nearest right word where there is one, and end with 2."""
        if found := re.fullmatch(r"(.*)invalid choice: '(.*)' \(choose from (.*)\)", message):
            message = f"{found[1]}unknown name '{found[2]}', {nearest(found[2], re.findall('[a-z_]+', found[3]))}"
        _say(f"{message} ({self.prog} --help shows what can be given)")
        sys.exit(2)

    def refuse(self, word: str) -> NoReturn:
        """Say what a word that the command does not know may be meant as, and end with 2."""
        name = word.partition("=")[0]
        options = [option for option in self._option_string_actions if option.startswith("--")]
        key = name.lstrip("-").replace("-", "_")
        if not name.startswith("-"):
            self.error(f"'{word}' is one argument too many")
        if "--set" in options and key and (meant := likely(key, KEYS)) and not likely(name, options):
            self.error(f"{name}: no such option; '{meant}' is a key of the run: --set {meant}=VALUE")
        self.error(f"{name}: no such option, {nearest(name, options)}")


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        "csa" if Path(sys.argv[0]).name == "csa" else "python -m csa_core",
        description="Context-shift augmentation for long-tail learning.",
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version=f"csa_core {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str, config: bool = True) -> argparse.ArgumentParser:
        sub = subparsers.add_parser(
            name, help=text.splitlines()[0], description=textwrap.dedent(text), formatter_class=raw
        )
        sub.set_defaults(run=run, parser=sub)
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

    sub = command("data", commands.data, "Load the data set of a run, check it and write it as one file.")
    sub.add_argument("--out", type=_path, required=True, help="data set file to write (.safetensors)")
    sub.add_argument("--made-from", default="", help="text to store in the file, by which a workflow recognises it")

    sub = command(
        "check",
        commands.check,
        """\
        Decode every image of a folder or image_list, and name those that cannot be decoded.

        It says which images are the same, how many are not square and how they are made so, and how many are held
        out for validation. Training reads every image of a folder before it starts, but only the lines of a list.""",
    )
    _workers_option(sub)

    sub = command("split", commands.split, "Make the long-tailed split of a run and write its indices.")
    sub.add_argument("--data", type=_path, help="data set file (default: loaded from the source)")
    sub.add_argument("--out", type=_path, required=True, help="split file to write (.json)")

    sub = command(
        "selection",
        commands.selection,
        """\
        Write the training images of a run as a selection: one line per image, with class and digest of its pixels.

        With `profile: selection` and `selection: FILE`, a run takes the same images in the same order from any
        source that has them.""",
    )
    sub.add_argument("--data", type=_path, help="data set file (default: loaded from the source)")
    sub.add_argument("--out", type=_path, required=True, help="selection file to write (.txt)")

    sub = command(
        "train",
        commands.train,
        """\
        Train one run and write its results.

        Writes metrics.json, history.csv, predictions.safetensors, weights.safetensors and
        provenance.json. After a run was killed, the same command continues from the last checkpoint
        and ends with the same bytes; after it has finished, the command restores --out without training.""",
    )
    sub.add_argument("--out", type=_path, required=True, help="folder for the results")
    sub.add_argument("--data", type=_path, help="data set file (default: loaded from the source)")
    sub.add_argument("--split", type=_path, help="split file (default: made on the way)")
    sub.add_argument(
        "--parent",
        type=_path,
        help="finished run to start from: a pre-training, or the first stage of a two-stage method",
    )
    sub.add_argument(
        "--state",
        type=_path,
        metavar="FOLDER",
        help="folder for checkpoints, finished states and caches (default: OUT/state)",
    )
    _device_options(sub)
    sub.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=os.environ.get("CSA_CHECKPOINT_SECONDS") or 30.0,
        metavar="S",
        help="write a checkpoint at the end of an epoch, at most every S seconds (CSA_CHECKPOINT_SECONDS, else 30)",
    )
    sub.add_argument(
        "--retrain",
        action="store_true",
        default=os.environ.get("CSA_RETRAIN", "").lower() not in ("", "0", "no", "false", "off"),
        help="train again even if this very run is finished (also: CSA_RETRAIN=1); an unfinished run continues",
    )
    sub.add_argument(
        "--compile",
        choices=COMPILE_CHOICES,
        default="auto",
        help="torch.compile the network: auto does it for long float32 runs on a CPU (default: auto)",
    )
    sub.add_argument(
        "--capture",
        choices=("auto", "no"),
        default="auto",
        help="replay steps as CUDA graphs: auto does it on one GPU, with images in memory (default: auto)",
    )
    sub.add_argument(
        "--wait", action="store_true", help="if another process is training this run, wait for it instead of refusing"
    )
    sub.add_argument("--code-version", help="label the results with this instead of the digest of the code")
    sub.add_argument(
        "--expect-code",
        action="store_true",
        help="refuse to run when the digest of the code is not the one of --code-version",
    )

    sub = command(
        "evaluate",
        commands.evaluate,
        """\
        Evaluate the trained weights of a run on its test set, and print the accuracies.

        The metrics are computed again from the weights and compared with those of the run.""",
        config=False,
    )
    _of_run(sub)

    sub = command(
        "contexts",
        commands.contexts,
        """\
        Show what context shift does in a trained run, on a few images.

        Writes images, object maps, background masks, contexts and mixed images as tensors;
        `workflow/report/gallery.py` draws them.""",
        config=False,
    )
    _of_run(sub)
    sub.add_argument("--images", type=int, default=8, help="how many (default 8)")
    sub.add_argument("--out", type=_path, required=True, help="file to write (.safetensors)")

    sub = command(
        "mistakes",
        commands.mistakes,
        """\
        Write the test images that a run gets most confidently wrong.

        The file has their pixels as a tensor, and in its header their true and predicted classes and probabilities.""",
        config=False,
    )
    _run_argument(sub)
    sub.add_argument("--data", type=_path, help="data set file (default: loaded from the source)")
    sub.add_argument("--root", type=_root, help="folder of the images, where the source needs one (default: data)")
    sub.add_argument("--images", type=int, default=12, help="how many at most (default 12)")
    sub.add_argument("--out", type=_path, required=True, help="file to write (.safetensors)")

    sub = command(
        "predict",
        finished.predict,
        """\
        Name the likeliest classes of images.

        Images are decoded as in training and resized like those that the run was trained on. Probabilities
        are the softmax of the head's logits.""",
        config=False,
    )
    _run_argument(sub)
    sub.add_argument("images", metavar="IMAGE|FOLDER", nargs="+", help="PNG, JPEG or WebP, or a folder of such images")
    sub.add_argument("--out", type=_path, help="CSV file to write, one line per image (default: a table on the screen)")
    sub.add_argument("--top", type=int, default=5, metavar="N", help="how many classes (default 5)")
    sub.add_argument("--head", help="uniform, resampling, ensemble, ... (default: the one that predicts)")
    _device_options(sub, workers=False)

    sub = command(
        "export",
        finished.export,
        """\
        Write a trained run as a file that other programs can load, and beside it a JSON file that says how to use it.

        ONNX and TorchScript files take decoded, resized pixels; normalisation is inside. A safetensors
        file holds the weights; `csa predict` and `csa_core.load` accept it in place of a run.""",
        config=False,
    )
    sub.add_argument("--format", choices=finished.FORMATS, required=True, help="format of the file")
    sub.add_argument("--out", type=_path, required=True, help="file to write")
    _of_run(sub)

    sub = command(
        "ls",
        finished.ls,
        """\
        List the finished runs below a folder: method, changes, seed, accuracies of the predicting head, hours.

        A run's changes are where it differs from most runs of its method in the list.""",
        config=False,
    )
    sub.add_argument("folder", metavar="FOLDER", type=_path, help="folder to look below")

    sub = command(
        "diff", finished.diff, "Show where two runs differ: configuration, digests, accuracies.", config=False
    )
    sub.add_argument("folders", metavar="RUN", type=_path, nargs=2, help="folders that `train --out` filled")

    command("keys", commands.keys, "Print every key of RUN.yaml with its default and meaning.", config=False)
    return parser


def _path(text: str) -> Path:
    """Return a path; `~` is expanded here where the shell has left it, as in --out=~/mine.

    Raises:
        ArgumentTypeError: it is empty, as of a variable of the shell that is not set.
    """
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a file or folder")
    return from_home(text)


def _root(text: str) -> str:
    """Return a path as `data.root` holds it."""
    return str(_path(text))


def _device_options(sub: argparse.ArgumentParser, workers: bool = True) -> None:
    sub.add_argument(
        "--device",
        default="auto",
        help="auto (a GPU, else the CPU), cpu, cuda, cuda:N, or mps, which is not tested (default: auto)",
    )
    threads = "CPU threads of all ranks (default: one per core; of several ranks, one each)"
    sub.add_argument("--threads", type=int, metavar="N", help=threads)
    if workers:
        _workers_option(sub)


def _workers_option(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="image_list: processes that decode, for each rank (default: the cores left idle)",
    )


def _run_argument(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("folder", metavar="RUN", type=_path, help="folder that `train --out` filled")


def _of_run(sub: argparse.ArgumentParser) -> None:
    _run_argument(sub)
    sub.add_argument("--data", type=_path, help="data set file (default: loaded from the source)")
    sub.add_argument("--split", type=_path, help="split file (default: made on the way)")
    sub.add_argument("--root", type=_root, help="folder of the images, where the source needs one (default: data)")
    _device_options(sub)
