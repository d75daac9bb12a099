"""Memory that a file is mapped to is given back, and a conversion needs little of it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mlxport.converter.checkpoint.formats.mapped import mapped_at, mappings_of, release, released
from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.plan.tensor import Tensor

in_proc = pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(), reason="the system does not tell what is resident"
)
SIZE = 480 << 20
SHARD = 64 << 20


def resident(address: int) -> int:
    """Return how much of the mapping at an address is resident, in bytes."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    for number, line in enumerate(lines):
        first = line.split()[0]
        if "-" in first and int(first.split("-")[0], 16) <= address < int(first.split("-")[1], 16):
            rss = next(line for line in lines[number:] if line.startswith("Rss:"))
            return int(rss.split()[1]) * 1024
    raise AssertionError("not mapped")


@in_proc
@pytest.mark.parametrize("ending", ["safetensors", "pt", "legacy.pt"])
def test_pages_come_and_go(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{ending}"
    values = np.random.randint(0, 256, (2 << 20) + 5, np.uint8)
    if ending.endswith("pt"):
        zipped = ending == "pt"
        content = {"a": torch.from_numpy(values)}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    else:
        write_safetensors(path, {"a": Tensor(values, "U8")})
    checkpoint = open_checkpoint(path)
    bits = checkpoint.tensors["a"].bits
    address = bits.__array_interface__["data"][0]
    assert (bits == values).all()
    assert resident(address) > 2 << 20
    ((name, tensor),) = released(checkpoint.tensors.items(), checkpoint.mapped)
    assert name == "a"
    assert resident(address) < 1 << 20
    assert (tensor.bits == values).all()


def test_other_memory_is_left_alone() -> None:
    mine, theirs = np.ones(1 << 20, np.uint8), np.ones(1 << 20, np.uint8)
    release([theirs, theirs[::-1], theirs[:0], np.ones(())], mapped_at(mine))
    assert theirs.all()


def test_a_file_that_is_not_mapped_has_no_addresses(tmp_path: Path) -> None:
    assert mappings_of(tmp_path / "x") == ()


CONVERT = """
import json, sys
from mlxport.converter import api
api.convert_checkpoint(sys.argv[1], sys.argv[2], layers=["down.*=Conv", "up.*=ConvTranspose"],
                       max_shard_size=int(sys.argv[3]))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps(int(status["VmHWM"].split()[0]) * 1024))
"""


@in_proc
@pytest.mark.slow
@pytest.mark.parametrize("ending", ["safetensors", "pt", "legacy.pt"])
def test_memory_does_not_grow_with_the_checkpoint(ending: str, tmp_path: Path) -> None:
    source = tmp_path / f"x.{ending}"
    shape = (256, 256, 4, 4, 4)  # 16 MiB of float32
    names = [f"{'up' if i % 2 else 'down'}.{i}.weight" for i in range(SIZE >> 24)]
    value = np.zeros(shape, np.float32)
    if ending.endswith("pt"):
        zipped = ending == "pt"
        content = {name: torch.from_numpy(value.copy()) for name in names}
        torch.save(content, source, _use_new_zipfile_serialization=zipped)
    else:
        write_safetensors(source, dict.fromkeys(names, Tensor(value, "F32")))
    assert source.stat().st_size > SHARD + (300 << 20)
    arguments = [str(source), str(tmp_path / "out"), str(SHARD)]
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, *arguments], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) < SHARD + 300e6
    assert len([*(tmp_path / "out").glob("weights-*.safetensors")]) == SIZE // SHARD + 1
