"""Commands in environments that lack what others have: done or refused, never a traceback.

``MLXPORT_SWEEP=1`` tries every command in every environment instead of a few.
"""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

import mlxport

SWEEP = os.environ.get("MLXPORT_SWEEP", "0") != "0"

# Of linux/prctl.h and linux/capability.h.
_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2

COMMANDS = {
    "inspect": "inspect net.pt --layer '*=Conv'",
    "convert --layer": "convert net.pt --layer '*=Conv' -o new",
    "convert --plan": "convert net.pt --plan out -o new",
    "convert --model": "convert net.pt --model torch.nn:Conv2d --input 1,2,8,8 -o new"
    ' --model-args \'{"in_channels": 2, "out_channels": 3, "kernel_size": 3}\'',
    "verify": "verify out",
    "verify -o": "verify out -o new.json",
    "verify --weights": "verify out --weights",
    "report -o": "report out -o new.html",
    "restore": "restore out -o new.safetensors",
    "restore .pt": "restore out -o new.pt",
    "export": "export out -o new.mlxfn",
    "layers": "layers",
    "help": "--help",
}
READ_ONLY = {"inspect", "verify", "verify --weights", "layers", "help"}

# What the shell does around a command, and whether the work is done.
ENVIRONMENTS: dict[str, tuple[str, bool]] = {
    "no HOME": ("unset HOME; {}", True),
    "no such HOME": ("HOME=/nonexistent {}", True),
    "no such TMPDIR": ("TMPDIR=/nonexistent {}", True),
    "ASCII": ("LC_ALL=C PYTHONIOENCODING=ascii {}", True),
    "stdin closed": ("{} <&-", True),
    "stdout closed": ("{} >&-", True),
    "stderr closed": ("{} 2>&-", True),
    "all closed": ("{} <&- >&- 2>&-", True),
    "nobody reads": ("{{ {}; echo $? >code; }} | :; exit $(cat code)", True),
    "head": ("{{ {}; echo $? >code; }} | head -n1; exit $(cat code)", True),
    "stdout full": ("{} >/dev/full", False),
    "stderr full": ("{} 2>/dev/full", True),
    "no file may grow": ("ulimit -f 0; {}", False),
    "files of 1 KiB": ("ulimit -f 2; {}", False),
    "read-only folder": ("chmod 555 . && {}", False),
}
ALWAYS = [
    ("verify -o", "no such TMPDIR"),
    ("convert --layer", "all closed"),
    ("convert --plan", "nobody reads"),
    ("convert --layer", "stderr closed"),
    ("layers", "head"),
    ("help", "nobody reads"),
    ("inspect", "stdout full"),
    ("help", "stdout full"),
    ("report -o", "stderr full"),
    ("restore", "no file may grow"),
    ("export", "files of 1 KiB"),
    ("report -o", "files of 1 KiB"),
    ("convert --plan", "files of 1 KiB"),
    ("convert --layer", "read-only folder"),
    ("verify -o", "read-only folder"),
    ("export", "read-only folder"),
]
UNREADABLE = [
    ("inspect", "net.pt"),
    ("verify", "out/model.py"),
    ("restore", "out/weights.safetensors"),
    ("convert --plan", "out/conversion.json"),
    ("convert --plan", "out/model.py"),
    ("convert --model", "net.pt"),
    ("verify", "out/reference.safetensors"),
    ("verify", "out/weights.safetensors"),
    ("verify", "out/conversion.json"),
    ("verify --weights", "out/weights.safetensors"),
    ("verify --weights", "out"),
    ("export", "out/reference.safetensors"),
    ("export", "out/model.py"),
    ("report -o", "out/parity.json"),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    model = nn.Conv2d(2, 3, 3).eval()
    torch.save(model.state_dict(), folder / "net.pt")
    mlxport.convert_checkpoint(folder / "net.pt", folder / "out", model=model, inputs=["1,2,8,8"])
    return folder


def _bound_by_permissions() -> None:
    """Let root go without what it may do whatever the permissions of a file say."""
    if sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None)
        for capability in _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def run(around: str, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = f"'{sys.executable}' -m mlxport.cli {COMMANDS[command]}"
    return subprocess.run(
        ["sh", "-c", around.format(words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_bound_by_permissions,
    )


def assert_nothing_unforeseen(said: str) -> None:
    for blame in ("Traceback", "nobody foresaw", "Exception ignored", "your own code"):
        assert blame not in said


@pytest.mark.parametrize(("command", "name"), UNREADABLE if SWEEP else UNREADABLE[:5])
def test_what_may_not_be_read_is_named(
    command: str, name: str, written: Path, tmp_path: Path
) -> None:
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    before = {path.name for path in tmp_path.iterdir()}
    mode = (tmp_path / name).stat().st_mode
    (tmp_path / name).chmod(0)
    try:
        result = run("{}", command, tmp_path)
    finally:
        (tmp_path / name).chmod(mode)
    assert_nothing_unforeseen(result.stdout + result.stderr)
    assert result.returncode == 1, result.stderr
    assert name in result.stderr
    assert "Permission denied" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("command", ["layers", "convert --layer"])
def test_a_folder_that_is_gone_is_named(command: str, tmp_path: Path) -> None:
    result = run("mkdir gone && cd gone && rmdir ../gone && {}", command, tmp_path)
    assert_nothing_unforeseen(result.stdout + result.stderr)
    assert result.returncode == 1
    assert "the current folder is not there any more" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(
    ("command", "environment"), [*product(COMMANDS, ENVIRONMENTS)] if SWEEP else ALWAYS
)
def test_a_command_is_done_or_refused(
    command: str, environment: str, written: Path, tmp_path: Path
) -> None:
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    before = {path.name for path in tmp_path.iterdir()}
    around, done = ENVIRONMENTS[environment]
    result = run(around, command, tmp_path)
    said = result.stdout + result.stderr
    assert_nothing_unforeseen(said)
    tmp_path.chmod(0o755)
    after = {path.name for path in tmp_path.iterdir()} - {"code"}
    if done:
        assert result.returncode == 0, said
        assert after - before or command in READ_ONLY
    elif command in READ_ONLY and "full" not in environment:
        assert result.returncode == 0, said
    elif environment == "files of 1 KiB" and result.returncode == 0:  # they are no larger
        assert all((tmp_path / name).stat().st_size <= 1024 for name in after - before)
    elif "full" in environment:  # the work is done; what there is to say cannot be said
        assert result.returncode in (0, 1)
    else:
        assert result.returncode == 1, said
        assert re.search("can(not)? be written", said)
        assert after == before
