"""Memory that a file is mapped to is given back, and a conversion needs little of it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mlxport.converter.checkpoint.formats.mapped import (
    Reader,
    mapped_at,
    mappings_of,
    release,
    released,
)
from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.errors import CheckpointError
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
    assert resident(address) > 2 << 20
    with Reader(checkpoint.mapped) as read:
        read.release([tensor, Tensor(values, "U8")])
    assert resident(address) < 1 << 20
    assert (tensor.bits == values).all()


def test_other_memory_is_left_alone() -> None:
    mine, theirs = np.ones(1 << 20, np.uint8), np.ones(1 << 20, np.uint8)
    mapped = mapped_at(mine, Path(__file__), Path(__file__).stat())
    arrays = [theirs, theirs[::-1], theirs[:0], np.ones(())]
    release(arrays, mapped)
    assert theirs.all()
    with Reader(mapped) as read:
        for array in arrays:
            assert read(Tensor(array, "U8" if array.ndim else "F64")).bits is array


VALUES = np.arange(6000, dtype=np.float32).reshape(20, 30, 10)
VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "whole": lambda bits: bits,
    "turned": lambda bits: bits.transpose(2, 0, 1),
    "a part": lambda bits: bits[3:17:2, 5:],
    "repeated": lambda bits: np.broadcast_to(bits[:, :1], (20, 4, 10)),
}


def _many(folder: Path, ending: str) -> Path:
    path = folder / f"x.{ending}"
    if ending == "safetensors":
        write_safetensors(path, {"first": Tensor(VALUES, "F32"), "a": Tensor(VALUES + 1, "F32")})
    elif ending == "unpadded.safetensors":  # as the format's library wrote them at first
        write_safetensors(path, {"first": Tensor(VALUES, "F32"), "a": Tensor(VALUES + 1, "F32")})
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little") + 1
        start = length + 7
        path.write_bytes(length.to_bytes(8, "little") + content[8:start] + b" " + content[start:])
    else:
        content_of = {"first": torch.from_numpy(VALUES), "a": torch.from_numpy(VALUES + 1)}
        torch.save(content_of, path, _use_new_zipfile_serialization=ending == "pt")
    return path


@in_proc
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("ending", ["safetensors", "unpadded.safetensors", "pt", "legacy.pt"])
def test_what_is_read_is_what_is_mapped(
    ending: str, view: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(_many(tmp_path, ending))
    with Reader(checkpoint.mapped) as read:
        for key, values in (("first", VALUES), ("a", VALUES + 1)):
            tensor = checkpoint.tensors[key]
            found = read(tensor.with_bits(view(tensor.bits)))
            assert (found.bits == view(values)).all()
            is_copied = ending == "unpadded.safetensors"  # as nothing may begin there
            assert np.shares_memory(found.bits, tensor.bits) is is_copied
            assert found.bits.strides == view(tensor.bits).strides


@in_proc
@pytest.mark.parametrize("ending", ["safetensors", "unpadded.safetensors", "pt", "legacy.pt"])
def test_a_file_cut_short_is_an_error_where_it_is_read(ending: str, tmp_path: Path) -> None:
    path = _many(tmp_path, ending)
    size = path.stat().st_size
    checkpoint = open_checkpoint(path)
    reader = Reader(checkpoint.mapped)
    tensor = reader(checkpoint.tensors["a"])
    os.truncate(path, size // 2)
    pattern = f"{path.name}: cut short while it was read: {size // 2} bytes, and {size} when"
    with reader as read, pytest.raises(CheckpointError, match=pattern):
        read(checkpoint.tensors["a"])
    assert (tensor.bits == VALUES + 1).all()


def test_a_file_that_is_another_by_now_is_read_where_it_is_mapped(tmp_path: Path) -> None:
    path = _many(tmp_path, "safetensors")
    checkpoint = open_checkpoint(path)
    path.unlink()
    tensor = checkpoint.tensors["a"]
    with Reader(checkpoint.mapped) as read:
        assert read(tensor) is tensor
        path.write_bytes(b"another")
        assert read(tensor) is tensor
    assert (tensor.bits == VALUES + 1).all()


def test_a_file_that_is_not_mapped_has_no_addresses(tmp_path: Path) -> None:
    assert mappings_of(tmp_path / "x") == ()


CONVERT = """
import json, sys
from mlxport.converter import api

def peak():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0]) * 1024

if sys.argv[1].endswith("pt"):
    import torch  # which reads the file: alone it takes 200 MB, and 500 MB where it knows CUDA
before = peak()
api.convert_checkpoint(sys.argv[1], sys.argv[2], layers=["down.*=Conv", "up.*=ConvTranspose"],
                       max_shard_size=int(sys.argv[3]))
print(json.dumps(peak() - before))
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
    assert json.loads(done.stdout) < SHARD + 200e6
    assert len([*(tmp_path / "out").glob("weights-*.safetensors")]) == SIZE // SHARD + 1
