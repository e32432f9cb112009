"""A signal that arrives while a destructor runs, which Python lets raise nothing, still ends the command."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.helpers.patience import PATIENCE

SCRIPT = """
import os, signal, sys, time
from csa_core import cli

class Deleted:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(0.01)

def run(args):
    for _ in range(3):
        Deleted()
        time.sleep(0.5)
    time.sleep(600)

parser = cli._parser()
cli._parser = lambda: parser
parser.parse_known_args = lambda argv: (type("Args", (), {"run": staticmethod(run)}), [])
sys.exit(cli.main([]))
"""


@pytest.mark.parametrize("number", [2, 15])
def test_it_ends(number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(number)], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE
    )
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr == "csa_core: interrupted; the same command continues from where it stopped\n"


HALF = """
import os, signal, sys, time
from csa_core import cli

class Half:
    def __init__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)
        self.pool = []

    def __del__(self):
        self.pool.clear()

def run(args):
    if sys.argv[1] == "signal":
        Half()
    object.__new__(Half)

parser = cli._parser()
cli._parser = lambda: parser
parser.parse_known_args = lambda argv: (type("Args", (), {"run": staticmethod(run)}), [])
sys.exit(cli.main([]))
"""


def test_what_a_signal_left_half_made_says_nothing() -> None:
    """A loader's destructor expects all that its constructor sets; without a signal, that is an error to be told."""
    signalled, sound = (
        subprocess.run([sys.executable, "-c", HALF, how], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
        for how in ("signal", "none")
    )
    said = "csa_core: interrupted; the same command continues from where it stopped\n"
    assert (signalled.returncode, signalled.stderr) == (143, said)
    assert sound.returncode == 0 and "has no attribute 'pool'" in sound.stderr


LATE = """
import os, signal, sys, time
from csa_core import cli

class Deleted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

def run(args):
    Deleted()

parser = cli._parser()
cli._parser = lambda: parser
parser.parse_known_args = lambda argv: (type("Args", (), {"run": staticmethod(run)}), [])
numbers = signal.SIGINT, signal.SIGTERM
before = [signal.getsignal(number) for number in numbers]  # SIGINT may be ignored, as in a script's background
code = cli.main([])
time.sleep(0.3)  # longer than a signal waits to come again
print(code, [signal.getsignal(number) for number in numbers] == before)
"""


def test_one_that_comes_when_all_is_done_is_too_late() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 True\n", "")
