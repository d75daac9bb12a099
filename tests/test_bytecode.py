"""Python may write bytecode beside what it imports; no command leaves any in an output folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from pathlib import Path

import mlx.core as mx
import torch

import mlxport
from mlxport.converter import api

assert not sys.dont_write_bytecode
folder = Path(sys.argv[1])
# one that needs files of layers/ beside model.py
net = torch.nn.Sequential(torch.nn.ConvTranspose2d(2, 4, 3, groups=2), torch.nn.PReLU()).eval()
torch.save(net.state_dict(), folder / "net.pt")
inputs = ["1,2,5,5"]
result = mlxport.convert_checkpoint(folder / "net.pt", folder / "out", model=net, inputs=inputs)
assert result.report.passed and (folder / "out" / "layers").is_dir()
mlxport.convert_checkpoint(folder / "net.pt", folder / "two", plan=folder / "out")
mlxport.load(folder / "out")(mx.zeros((1, 2, 5, 5)))
assert api.verify_folder(folder / "out", check_code=True).passed
api.export_function(folder / "out", folder / "net.mlxfn")
api.verify_weights(folder / "two")
mlxport.restore(folder / "out", folder / "back.pt")
assert not sys.dont_write_bytecode and sys.pycache_prefix is None
"""


def test_output_folders_hold_no_bytecode(tmp_path: Path) -> None:
    names = {"PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"}
    environment = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-W", "error::UserWarning", "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    words = [sys.executable, "-m", "mlxport.cli", "verify", str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert not [p for p in tmp_path.rglob("*") if p.name == "__pycache__" or p.suffix == ".pyc"]
