"""Real files of every format, mutated: they are read or refused, and nothing else happens.

``MLXPORT_FUZZ=20000`` draws so many mutations of each instead of a few.
"""

import io
import json
import os
import pickle
import signal
import struct
import warnings
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.errors import ConversionError

EXAMPLES = int(os.environ.get("MLXPORT_FUZZ", "25"))
SECONDS = 60  # for one file of a few kilobytes
MEMORY = 512 << 20  # in bytes, that all of them may add


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 3, 3)
        self.norm = torch.nn.BatchNorm2d(3)


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    made = dict(Net().state_dict())
    made |= {"half": torch.randn(4, 2).half().T, "brain": torch.randn(3).bfloat16()}
    made |= {"small": torch.randn(4).to(torch.float8_e4m3fn), "twice": made["conv.bias"]}
    return made | {"turned": torch.randn(3, dtype=torch.complex64).conj()}


def beside() -> dict[str, Any]:
    """What weights_only refuses, so that the inert unpickler reads it."""
    return {"net": state(), "dice": np.float64(0.5), "args": Namespace(lr=1), "parts": {1, 2}}


class File(NamedTuple):
    """One file that is mutated.

    Attributes:
        make: writes a whole checkpoint into a folder.
        mutated: the file of it whose bytes change.
        opened: what is given to the reader.
        mend: makes a checksum right again, given the bytes before and after.
    """

    make: Callable[[Path], object]
    mutated: str
    opened: str
    mend: Callable[[bytes, bytes], bytes] | None = None


def mended(before: bytes, after: bytes) -> bytes:
    """Return a zip archive with the checksums of its pickle as they are to be."""
    start, length = pickle_in(before)
    if len(before) != len(after):
        return after
    old, new = (zlib.crc32(data[start : start + length]) for data in (before, after))
    return after.replace(old.to_bytes(4, "little"), new.to_bytes(4, "little"))


def pickle_in(archive: bytes) -> tuple[int, int]:
    """Return where the pickle of a zip archive begins, and its length."""
    with zipfile.ZipFile(io.BytesIO(archive)) as members:
        info = next(info for info in members.infolist() if info.filename.endswith("/data.pkl"))
    name, extra = struct.unpack_from("<HH", archive, info.header_offset + 26)
    return info.header_offset + 30 + name + extra, info.file_size


def _index(folder: Path) -> None:
    save_file({k: v.resolve_conj().clone().contiguous() for k, v in state().items()}, folder / "s")
    weight_map = dict.fromkeys(state(), "s")
    (folder / "x.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _packed(folder: Path) -> None:
    torch.save(state(), folder / "stored.pt")
    with (
        zipfile.ZipFile(folder / "stored.pt") as source,
        zipfile.ZipFile(folder / "x.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))


def _distributed(folder: Path) -> None:
    plain = {k: v.resolve_conj() for k, v in state().items()}
    dcp.save({"model": plain, "step": 3}, checkpoint_id=folder / "x")


def _legacy(folder: Path) -> None:
    kept = {k: v for k, v in state().items() if k != "small"}
    torch.save(kept, folder / "x.pt", _use_new_zipfile_serialization=False)


FILES = {
    "safetensors": File(
        lambda folder: save_file(
            {k: v.resolve_conj().clone().contiguous() for k, v in state().items()},
            folder / "x.safetensors",
        ),
        "x.safetensors",
        "x.safetensors",
    ),
    "index": File(_index, "x.index.json", "x.index.json"),
    "shard of an index": File(_index, "s", "x.index.json"),
    "torch.save": File(lambda folder: torch.save(state(), folder / "x.pt"), "x.pt", "x.pt"),
    "torch.save, its pickle": File(
        lambda folder: torch.save(state(), folder / "x.pt"), "x.pt", "x.pt", mended
    ),
    "torch.save with objects": File(
        lambda folder: torch.save(beside(), folder / "x.pt"), "x.pt", "x.pt", mended
    ),
    "torch.save of a module": File(
        lambda folder: torch.save(Net(), folder / "x.pt"), "x.pt", "x.pt", mended
    ),
    "torch.save, packed again": File(_packed, "x.pt", "x.pt"),
    "legacy": File(_legacy, "x.pt", "x.pt"),
    "legacy with objects": File(
        lambda folder: torch.save(
            {"net": torch.nn.Linear(2, 3).state_dict(), "dice": np.float64(0.5)},
            folder / "x.pt",
            _use_new_zipfile_serialization=False,
        ),
        "x.pt",
        "x.pt",
    ),
    "pickle": File(
        lambda folder: (folder / "x.pkl").write_bytes(
            pickle.dumps(torch.nn.Linear(2, 3).state_dict())
        ),
        "x.pkl",
        "x.pkl",
    ),
    "distributed, metadata": File(_distributed, "x/.metadata", "x"),
    "distributed, data": File(_distributed, "x/__0_0.distcp", "x"),
}
BIG = [2**n + d for n in (7, 15, 31, 32, 47, 63) for d in (-1, 0)]

mutations = st.lists(
    st.tuples(
        st.sampled_from(["set", "bit", "cut", "drop", "double", "number", "copy"]),
        st.floats(0, 1),
        st.floats(0, 1),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=5,
)


def mutated(content: bytes, changes: list[tuple[str, float, float, int]], where: range) -> bytes:
    """Return content with some of its bytes within a range others; the range may be left."""
    data = bytearray(content)
    for kind, one, other, value in changes:
        at = min(where.start + int(one * (len(where) - 1)), len(data))
        there = min(where.start + int(other * (len(where) - 1)), len(data))
        if kind == "set":
            data[at : at + 1] = bytes([value])
        elif kind == "bit" and at < len(data):
            data[at] ^= 1 << value % 8
        elif kind == "cut":
            del data[at + value * 8 :]
        elif kind == "drop":
            del data[at : at + value % 16]
        elif kind == "double":
            data[at:at] = data[at : at + value]
        elif kind == "number":
            width = 4 if value % 2 else 8
            number = BIG[value % len(BIG)] % 256**width
            data[at : at + width] = number.to_bytes(width, "little")
        elif kind == "copy":
            data[at : at + value % 32] = data[there : there + value % 32]
    return bytes(data)


@pytest.fixture
def bounded(peak_memory: Callable[[], int]) -> Any:
    """Turn a hang into a failure, and memory that grew, too."""

    def hangs(*_: Any) -> None:
        raise TimeoutError(f"a file of a few kilobytes took more than {SECONDS} s")

    before = peak_memory()
    earlier = signal.signal(signal.SIGALRM, hangs)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, earlier)
    assert peak_memory() - before < MEMORY


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_a_mutated_file_is_read_or_refused(file: File, tmp_path: Path, bounded: None) -> None:
    file.make(tmp_path)
    path = tmp_path / file.mutated
    whole = path.read_bytes()
    assert open_checkpoint(tmp_path / file.opened).tensors
    where = range(len(whole))
    if file.mend:
        start, length = pickle_in(whole)
        where = range(start, start + length)
    refusals: list[str] = []

    @settings(
        max_examples=EXAMPLES,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(changes=mutations)
    def run(changes: list[tuple[str, float, float, int]]) -> None:
        content = mutated(whole, changes, where)
        path.unlink()  # the file of the last example may still be mapped
        path.write_bytes(file.mend(whole, content) if file.mend else content)
        signal.alarm(SECONDS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                for tensor in open_checkpoint(tmp_path / file.opened).tensors.values():
                    assert tensor.bits.nbytes < 1 << 27
                    tensor.bits.tobytes()
            except ConversionError as error:
                refusals.append(str(error))
        signal.alarm(0)

    run()
    assert refusals  # or the mutations touch nothing
    assert not [text for text in refusals if not text.replace("\n", "").isprintable()]
