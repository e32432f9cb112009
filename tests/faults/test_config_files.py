"""As many malformed files as docs/reliability.md says: exit code 2, one line, before torch."""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.helpers.malformed import MALFORMED
from tests.helpers.patience import PATIENCE

MORE = {
    "model: ../resnet32": "model: unknown name '../resnet32'",
    "method: ../../csa": "method: unknown name",
    "data: {source: ../cifar10}": "data.source: unknown name '../cifar10'",
    "data: {root: NO}": "data.root: input should be a valid string, got False",
    "data: {root: !!python/object/apply:os.system [ls]}": "is not valid YAML",
    "data: !!python/object:csa_core.config.DataConfig {source: demo}": "is not valid YAML",
    "horizontal_flip: NOPE": "horizontal_flip: input should be a valid boolean",
    "model: NO": "model: ",
    "mask_forward: on": "mask_forward: ",
}
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
# What only means to take time or memory, or breaks what reads it.
HOSTILE = {
    BOMB: "its aliases stand for more than 100,000 values",
    "&a {data: *a}": "an alias stands for what it is part of",
    "lr: " + "1" * 100_000: "is too long",
    "lr: 0x" + "f" * 1900: "YAML 1.1 reads 0xffffffff",
    "".join(f"k{i}: 1\n" for i in range(700_000)): "bytes, more than 131,072",
    "[" * 100_000: "is not valid YAML",
    "{a: " * 30_000: "is not valid YAML",
    "lr: !!timestamp x": "is not valid YAML",
    "lr: !!bool x": "is not valid YAML",
    'data: {root: "a\\0b"}': "holds what is no character",
    'data: {root: "\\ud800"}': "holds what is no character",
    'model: "\\e[2J"': "model: unknown name '\\x1b[2J'",
    "method: 0x" + "f" * 1900: "YAML 1.1 reads 0xffffffff",
}  # fmt: skip
RUN = """
import contextlib, io, json, sys, time
from csa_core import cli
report = []
for path in sys.argv[1:]:
    said, start = io.StringIO(), time.perf_counter()
    with contextlib.redirect_stderr(said):
        code = cli.main(["train", path, "--out", path + ".out"])
    report.append([code, said.getvalue(), time.perf_counter() - start])
print(json.dumps([report, "torch" in sys.modules]))
"""


def test_malformed_files_are_refused_in_one_line_before_torch(tmp_path: Path) -> None:
    cases = list((MALFORMED | MORE | HOSTILE).items())
    told = (ROOT / "docs/reliability.md").read_text()
    assert f"{len(cases)} of {len(cases)} malformed configuration files" in told
    for number, (text, _) in enumerate(cases):
        (tmp_path / f"{number}.yaml").write_text(text)
    paths = [str(tmp_path / f"{number}.yaml") for number in range(len(cases))]
    done = subprocess.run(
        [sys.executable, "-c", RUN, *paths], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    report, with_torch = json.loads(done.stdout)
    assert not with_torch, "torch was imported"
    for (text, wanted), path, (code, said, _) in zip(cases, paths, report, strict=True):
        assert code == 2 and said.count("\n") == 1 and "Traceback" not in said, (text, said)
        assert said.startswith("csa_core: ") and wanted.replace("run.yaml", path) in said, (text, said)
    assert not list(tmp_path.glob("*.out")), "something was written"
    print(f"{len(cases)} files, the slowest in {max(seconds for *_, seconds in report):.3f} s")
