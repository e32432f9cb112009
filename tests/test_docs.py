"""Every command and script of the documentation, run; and the site, built.

A copy of the project stands for the reader's: its demo trains few epochs, seeds and sweep values, so
that all commands together take minutes. Nothing else is changed, the commands least of all.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.conftest import ROOT
from tests.helpers.patience import PATIENCE, wait_until
from tests.helpers.project import copy_project

# docs/new-method.md adds files of its own to the project: tests/test_new_method.py follows it.
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES.remove(ROOT / "docs/new-method.md")
BLOCK = re.compile(
    r"(?:^ *<!-- (?P<how>[^\n]*) -->\n)?^(?P<indent> *)```(?P<kind>sh|yaml|python)\n(?P<text>.*?)^ *```$", re.M | re.S
)
# What tells that a command which stays has begun: a server's address, or the last line of a table.
STAYS = re.compile(r"http://|^all ", re.M)
# These run everything, or for a quarter of an hour: that make knows them is what is tested here.
LONG = ("make test", "make test-faults", "make test-slurm", "make bench")


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Return (kind, how it is to be run, text) of each block of shell, YAML or Python on a page."""
    found = []
    for match in BLOCK.finditer(page.read_text()):
        indent = len(match["indent"])
        found.append(
            (match["kind"], match["how"] or "", "".join(line[indent:] for line in match["text"].splitlines(True)))
        )
    return found


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder: the files under version control, those that the pages name, an environment, photos."""
    folder = tmp_path_factory.mktemp("reader")
    copy_project(folder)
    for path, keys in (
        ("workflow/protocols/demo.yaml", {"epochs": 6, "lr_drops": [5], "lr_warmup_epochs": 1, "evaluate_every": 2}),
        ("docs/examples/demo.yaml", {"epochs": 6, "lr_drops": [5], "lr_warmup_epochs": 1}),
    ):
        fields = yaml.safe_load((folder / path).read_text()) | keys
        if "pretraining" in fields:
            fields["pretraining"] |= {"epochs": 2, "projector_width": 16, "predictor_width": 4}
        (folder / path).write_text(yaml.safe_dump(fields))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config |= {"seeds": [1], "sweeps": {key: values[:2] for key, values in config["sweeps"].items()}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    for made in ("ready", "ready-dev"):
        (folder / ".venv" / made).touch()
    for kind, _, text in (block for page in PAGES for block in blocks(page)):
        # As `mine.yaml`, which the next page goes on with.
        if kind == "yaml" and (named := re.match(r"# (\w+\.yaml)\b", text)):
            (folder / named[1]).write_text(_short(text))
    rng = np.random.default_rng(0)
    for part, counts in (("train", (40, 12)), ("test", (6, 6))):
        for k, count in enumerate(counts):
            images = folder / "photos" / part / "ab"[k]
            images.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 200, (32, 32, 3), dtype=np.uint8)
                pixels[8:20, 4 + 12 * k : 14 + 12 * k] += 55
                Image.fromarray(pixels).save(images / f"{i}.png")
    return folder


def run(command: str, folder: Path, stays: bool = False) -> str:
    """Run one command as a reader would; return what was wrong, "" for nothing.

    Args:
        stays: it is a server, or repeats itself: it must say where it is or what it sees, and not end by itself.
    """
    path = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "HOME": str(folder), "PYTHONPATH": str(folder)}
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            ["bash", "-ec", command], cwd=folder, env=env, stdout=said, stderr=said, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            if stays:
                wait_until(lambda: process.poll() is not None or STAYS.search((folder / "said").read_text()), command)
                code = int(process.poll() is not None)
            else:
                code = process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            code = -9
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return f"{command}\n{(folder / 'said').read_text()[-3000:]}" if code else ""


def test_no_block_of_commands_is_overlooked() -> None:
    fences = sum(len(re.findall("^ *```sh", page.read_text(), re.M)) for page in PAGES)
    assert fences == sum(kind == "sh" for page in PAGES for kind, *_ in blocks(page)) > 40


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_commands_of_the_page(page: Path, reader: Path) -> None:
    wrong = []
    for kind, how, text in blocks(page):
        if kind == "yaml" and text.startswith("# in config.yaml"):
            config = yaml.safe_load((reader / "config.yaml").read_text())
            config["sweeps"] |= yaml.safe_load(text)["sweeps"]
            (reader / "config.yaml").write_text(yaml.safe_dump(config))
        if kind == "yaml":
            yaml.safe_load(text)
            if named := re.match(r"#(?: yaml-language.*\n#)? (\w+/[\w/.]+\.yaml)\b", text):
                (reader / named[1]).write_text(text)
            continue
        how, _, elsewhere = how.partition(": ")
        assert how in ("", "dry run", "stays", "run elsewhere"), f"{page.name}: what is '{how}'?"
        if named := re.search(r"tests/[\w/]+\.py|Makefile", elsewhere):
            assert (ROOT / named[0]).exists(), elsewhere
        if how == "run elsewhere":
            assert named, f"{page.name}: where is it run?"
            continue
        if kind == "python":
            (reader / "notebook.py").write_text(text)
            wrong.append(run(f"{sys.executable} notebook.py", reader))
            continue
        for line in text.replace("\\\n", " ").splitlines():
            command = line.partition(" # ")[0].strip()
            if not command or command.startswith("#"):
                continue
            if command in LONG:
                command = command.replace("make", "make --dry-run")
            if how == "dry run":
                assert "snakemake" in command, f"{command}: what is a dry run of it?"
                command += " --dry-run"
            wrong.append(run(command, reader, stays=how == "stays"))
    assert not any(wrong), "\n".join(filter(None, wrong))


@pytest.mark.long
def test_commands_within_the_text(reader: Path) -> None:
    """Those in `code` between words: dry runs; --report is run by tests/workflow/test_snakemake.py."""
    found = [span for page in PAGES for span in re.findall(r"`(snakemake [^`]+)`", page.read_text())]
    spans = {" ".join(span.split()) for span in found}  # as Markdown reads them: a line's end is a space
    assert len(spans) > 5
    for span in sorted(spans - {"snakemake --report report.html"}):
        assert not run(span if "--unlock" in span else f"{span} --dry-run", reader)


def _short(text: str) -> str:
    """Return a protocol of the reader's with few epochs; what else it says stays."""
    fields = yaml.safe_load(text)
    if "epochs" in fields:
        fields |= {"model": "resnet8", "epochs": 6, "batch_size": 16, "lr_warmup_epochs": 1, "lr_drops": [5]}
        fields |= {"warmup_epochs": 1, "plain_epochs": 1, "threshold": 0.1}
        fields["pretraining"] = {"epochs": 2, "batch_size": 16, "projector_width": 16, "predictor_width": 4}
    if "threshold" in fields.get("sweeps", {}):  # so few steps recognise nothing with more confidence
        fields["sweeps"]["threshold"] = [0.1, 0.15]
    if "seeds" in fields:
        fields["seeds"] = fields["seeds"][:1]
    return yaml.safe_dump(fields)


def test_the_site_is_built_and_fetches_nothing_from_elsewhere(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE, env=env)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="https?://', page.read_text()), page
    reference = (tmp_path / "reference/index.html").read_text()
    for name in ("csa_core.methods.csa.Csa", "csa_core.ops.bank.ContextBank", "csa_core.config.RunConfig"):
        assert f'id="{name}"' in reference
