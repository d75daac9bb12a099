"""Commands in environments that lack what others have: done or refused, never a traceback.

``MLXPORT_SWEEP=1`` tries every command in every environment instead of a few.
"""

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
}
ALWAYS = [
    ("verify -o", "no such TMPDIR"),
    ("convert --layer", "all closed"),
    ("convert --plan", "nobody reads"),
    ("convert --layer", "stderr closed"),
    ("layers", "head"),
    ("help", "nobody reads"),
    ("inspect", "stdout full"),
    ("report -o", "stderr full"),
    ("restore", "no file may grow"),
    ("export", "files of 1 KiB"),
    ("report -o", "files of 1 KiB"),
    ("convert --plan", "files of 1 KiB"),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    model = nn.Conv2d(2, 3, 3).eval()
    torch.save(model.state_dict(), folder / "net.pt")
    mlxport.convert_checkpoint(folder / "net.pt", folder / "out", model=model, inputs=["1,2,8,8"])
    return folder


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
    words = f"'{sys.executable}' -m mlxport.cli {COMMANDS[command]}"
    result = subprocess.run(
        ["sh", "-c", around.format(words)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    said = result.stdout + result.stderr
    for blame in ("Traceback", "nobody foresaw", "Exception ignored", "your own code"):
        assert blame not in said
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
