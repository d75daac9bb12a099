"""A command in a child process: what it reports counts, not how it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlxport.converter.child_process import EndedEarly, in_child

CHILD = """
import os, signal, sys, time
from mlxport.converter.child_process import report_exit_code

def reports(descriptor):
    report_exit_code(descriptor, int(sys.argv[1]))
    os._exit(0)

def ends(descriptor):
    os._exit(int(sys.argv[1]))

def is_killed(descriptor):
    os.kill(os.getpid(), signal.SIGKILL)

def leaves_a_process(descriptor):
    if os.fork():
        os._exit(0)
    time.sleep(30)

def waits(descriptor):
    with open(sys.argv[1], "w") as file:
        file.write(str(os.getpid()))
    time.sleep(30)
"""


@pytest.fixture(autouse=True)
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("code", [0, 3, 120])
def test_the_code_is_the_one_reported(code: int) -> None:
    assert in_child("child:reports", [str(code)]) == code


@pytest.mark.parametrize(
    ("entry", "how"),
    [
        ("child:ends", "with exit status 0"),
        ("child:is_killed", "by signal 9"),
        ("child:leaves_a_process", "with exit status 0"),
        ("child:nothing", "with exit status 1"),
    ],
)
def test_a_child_that_reports_nothing_is_no_success(entry: str, how: str) -> None:
    with pytest.raises(EndedEarly, match=how):
        in_child(entry, ["0"])


PARENT = """
import sys
from mlxport.converter.child_process import in_child
from mlxport.converter.signals import ending_cleanly
with ending_cleanly():
    in_child("child:waits", sys.argv[1:])
"""


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    environment = {**os.environ, "PYTHONPATH": ":".join([str(tmp_path), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", PARENT, told], env=environment) as parent:
        while not (told.exists() and told.read_text()):
            assert parent.poll() is None
            time.sleep(0.01)
        parent.send_signal(signal.SIGTERM)
    assert parent.returncode == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)
