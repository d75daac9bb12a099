"""A few bytes that claim to be many are refused before anything is allocated for them."""

import resource
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
def peak() -> Any:
    """No test here may need as much memory as the bomb unpacks to."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < UNPACKED // 1024 // 2


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


@pytest.mark.parametrize("entry", [b"r\xff\xff\xff\x1f", b"p536870911\n"], ids=["binary", "text"])
@pytest.mark.parametrize("name", ["x.pkl", "x.pt"])
def test_room_for_a_far_entry_of_the_memo_is_not_made(name: str, entry: bytes, tmp_path) -> None:
    path = tmp_path / name
    content = b"\x80\x02}" + entry + b"cargparse\nNamespace\n)\x81."
    if name == "x.pt":
        torch.save({"a": torch.zeros(16)}, path)
        with zipfile.ZipFile(path) as archive:
            members = {key: archive.read(key) for key in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for key, value in members.items():
                archive.writestr(key, content if key.endswith("data.pkl") else value)
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="of the memo after"):
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
