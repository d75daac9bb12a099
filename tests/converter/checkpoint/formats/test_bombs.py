"""A few bytes that claim to be many are refused before anything is allocated for them."""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.errors import CheckpointError

UNPACKED = 1 << 28


def packed_again(path: Path, compression: int = zipfile.ZIP_DEFLATED) -> None:
    """Compress the members of a zip archive, as another program may."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.fixture(autouse=True)
def peak(peak_memory: Callable[[], int]) -> Any:
    """No test here may need as much memory as the bomb unpacks to."""
    before = peak_memory()
    yield
    assert peak_memory() - before < UNPACKED // 2


@pytest.fixture
def bomb(tmp_path: Path) -> Path:
    """A torch.save archive of zeros, made without ever holding them."""
    path = tmp_path / "bomb.pt"
    torch.save({"a": torch.zeros(16)}, path)
    packed_again(path)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("bomb/data/1", "w") as member,
    ):
        for _ in range(UNPACKED >> 20):
            member.write(bytes(1 << 20))
    return path


def test_a_zip_bomb_is_refused_unread(bomb: Path) -> None:
    with pytest.raises(CheckpointError, match="claim to unpack to"):
        open_checkpoint(bomb)


@pytest.mark.filterwarnings("ignore")  # of torch.distributed, without a group
def test_a_zip_bomb_in_a_distributed_checkpoint_is_refused(bomb: Path, tmp_path: Path) -> None:
    folder, content = tmp_path / "dcp", bomb.read_bytes()
    dcp.save({"a": torch.zeros(len(content), dtype=torch.uint8)}, checkpoint_id=folder)
    (file,) = folder.glob("*.distcp")
    # as long as what is to be there; a zip archive may have a little behind it
    file.write_bytes(content + bytes(file.stat().st_size - len(content)))
    checkpoint = open_checkpoint(folder)
    with pytest.raises(CheckpointError, match="claim to unpack to"):
        _ = checkpoint.tensors["a"]


def test_a_compressed_checkpoint_of_zeros_is_read(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "x.pt")
    packed_again(tmp_path / "x.pt")
    assert not open_checkpoint(tmp_path / "x.pt").tensors["a"].bits.any()


class Claim:
    """Pickles as a tensor of another size over a storage of four values."""

    def __init__(self, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.size, self.stride = size, stride

    def __reduce_ex__(self, _protocol: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        storage = torch.storage.TypedStorage(
            wrap_storage=torch.ones(4).untyped_storage(), dtype=torch.float32, _internal=True
        )
        arguments = (storage, 0, self.size, self.stride, False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, arguments


CLAIMS = {
    "past its storage": ((5,), (1,)),
    "far past its storage": ((10**6,), (1,)),
    "more than any memory": ((2**40,), (1,)),
    "one value, repeated": ((10**9,), (0,)),
    "one value, repeated without end": ((2**60,), (0,)),
    "more than can be counted": ((2**31,) * 3, (0,) * 3),
}


@pytest.mark.parametrize("packing", ["stored", "compressed", "legacy"])
@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_a_tensor_larger_than_its_storage_is_refused(claim, packing: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": Claim(*claim)}, path, _use_new_zipfile_serialization=packing != "legacy")
    if packing == "compressed":
        packed_again(path)
    with pytest.raises(CheckpointError):
        open_checkpoint(path)


def test_a_value_may_be_repeated_within_reason(tmp_path: Path) -> None:
    torch.save({"mask": torch.ones(1, 1, 8, 8).expand(4, 12, 8, 8)}, tmp_path / "x.pt")
    assert open_checkpoint(tmp_path / "x.pt").tensors["mask"].shape == (4, 12, 8, 8)


DEEP = 10**5
LONG = b"m" * 2000
HOSTILE = {
    "a far entry of the memo": (
        b"}r\xff\xff\xff\x1fcargparse\nNamespace\n)\x81.",
        "of the memo after",
    ),
    "a far entry, as text": (b"}p536870911\ncargparse\nNamespace\n)\x81.", "of the memo after"),
    "nested tuples as a key": (b"})" + b"\x85" * DEEP + b"K\1s.", "nested more than 1000 deep"),
    "nested pairs": (b"})" + b"K\0\x86" * DEEP + b"K\1s.", "nested more than 1000 deep"),
    "tuples of marks": (b"}" + b"(" * DEEP + b"t" * DEEP + b"K\1s.", "nested more than 1000 deep"),
    "tuples through the memo": (
        b"})" + b"q\0" + b"0h\0\x85q\0" * DEEP + b"K\1s.",
        "nested more than 1000 deep",
    ),
    "tuples in lists made tuples": (
        b"})" + b"\x85" * 999 + b"q\0]h\0aq\1(0\x85" + b"\x85" * DEEP + b"K\1s.",
        "nested more than 1000 deep",
    ),
    "tuples of sizes": (
        b"})" + b"q\0ctorch\nSize\nh\0\x85\x85R" * 1 + b"\x85" * DEEP + b"K\1s.",
        "nested more than 1000 deep",
    ),
    "a long name": (b"c" + LONG + b"\nx\n)R.", "a name of 2002 characters"),
    "a long name on the stack": (
        b"\x8c\x01mB" + len(LONG).to_bytes(4, "little") + LONG + b"\x93)R.",
        "a name of 2001 characters",
    ),
    "a long name of an instance": (b"(i" + LONG + b"\nx\n.", "a name of 2002 characters"),
}


@pytest.mark.parametrize(("content", "message"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ["x.pkl", "x.pt", "legacy.pt"])
def test_a_pickle_that_unpicklers_cannot_read_is_refused(name, content, message, tmp_path) -> None:
    path, content = tmp_path / name, b"\x80\x02" + content
    if name == "x.pt":
        torch.save({"a": torch.zeros(16)}, path)
        with zipfile.ZipFile(path) as archive:
            members = {key: archive.read(key) for key in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for key, value in members.items():
                archive.writestr(key, content if key.endswith("data.pkl") else value)
    elif name == "legacy.pt":
        torch.save({"a": torch.zeros(16)}, path, _use_new_zipfile_serialization=False)
        whole = path.read_bytes()
        head = io.BytesIO(whole)
        for _ in range(3):
            pickle.load(head)
        path.write_bytes(whole[: head.tell()] + content + whole[head.tell() :])
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)


# torch would read on behind what was unpacked
def test_a_storage_shorter_than_the_pickle_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(1000)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {key: archive.read(key) for key in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, value in members.items():
            archive.writestr(key, value[:100] if key.endswith("data/0") else value)
    with pytest.raises(CheckpointError, match="'0' has not the 1000 values"):
        open_checkpoint(path)
