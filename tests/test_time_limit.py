"""A test that hangs ends, in Python by a failure and elsewhere with its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

IN_PYTHON = """
import time

def test_hangs():
    try:
        time.sleep(60)
    except Exception:  # as a test of errors might
        pass

def test_comes_after():
    pass
"""
# PyTorch's and MLX's kernels run like this: no signal handler is called before they return.
IN_A_LIBRARY = """
import signal

def test_hangs():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    signal.sigtimedwait([signal.SIGUSR2], 60)
"""


def test_every_test_has_a_limit(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.hasplugin("timeout")
    assert float(pytestconfig.getini("timeout")) == 600
    assert pytestconfig.getini("timeout_method") == "signal"
    assert float(pytestconfig.getini("faulthandler_timeout")) > 600  # the last resort comes last
    assert pytestconfig.getini("faulthandler_exit_on_timeout")


def run(file: Path, *limits: str) -> subprocess.CompletedProcess[str]:
    """Run a test file under this project's settings, with limits of a moment."""
    settings = [part for limit in limits for part in ("-o", limit)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    place = ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={file.parent}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    return subprocess.run(
        [*command, *place, *settings],
        capture_output=True,
        text=True,
        check=False,
        cwd=file.parent,
        env=environment,
        timeout=50,
    )


def test_a_hang_in_python_fails_and_the_next_test_runs(tmp_path: Path) -> None:
    file = tmp_path / "test_hanging.py"
    file.write_text(IN_PYTHON)
    done = run(file, "timeout=0.5")
    assert done.returncode == 1, done.stderr
    assert "Timeout" in done.stdout
    assert "1 failed, 1 passed" in done.stdout


@pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="macOS has no sigtimedwait")
def test_a_hang_in_a_library_ends_its_process(tmp_path: Path) -> None:
    file = tmp_path / "test_hanging.py"
    file.write_text(IN_A_LIBRARY)
    done = run(file, "timeout=0.2", "faulthandler_timeout=1")
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "test_hanging.py" in done.stderr
