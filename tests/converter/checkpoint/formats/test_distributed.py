"""Folders of torch.distributed.checkpoint, read without running anything of them."""

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from mlxport.converter import api
from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.errors import CheckpointError, ConversionError, StateDictError

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch.distributed, without a group


def save(content: dict[str, Any], folder: Path) -> Path:
    dcp.save(content, checkpoint_id=folder)
    return folder


def model() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).bfloat16()


@pytest.mark.parametrize("named", ["the folder", "the metadata"])
def test_a_training_checkpoint(tmp_path: Path, named: str) -> None:
    net = model()
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.randn(1, 3, 8, 8).bfloat16()).sum().backward()
    optimizer.step()
    content = {"model": net.state_dict(), "optim": optimizer.state_dict(), "epoch": 3}
    folder = save(content, tmp_path / "step_3")
    found = open_checkpoint(folder if named == "the folder" else folder / ".metadata")
    assert found.key == "model"
    assert any("optim" in note for note in found.notes)
    assert {*found.tensors} == {*net.state_dict()}
    for key, tensor in net.state_dict().items():
        bits = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
        assert found.tensors[key].shape == tuple(tensor.shape)
        assert found.tensors[key].bits.tolist() == bits.tolist()
    assert [file.name for file in found.files] == [".metadata", "__0_0.distcp"]
    assert found.digest() == found.digest()


def test_a_bare_state_dict_converts(tmp_path: Path) -> None:
    linear = nn.Linear(3, 2)
    save(linear.state_dict(), tmp_path / "dcp")
    api.convert_checkpoint(tmp_path / "dcp", tmp_path / "out")
    api.restore(tmp_path / "out", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt")
    assert torch.equal(back["weight"], linear.weight)


def test_several_are_told_apart_by_key(tmp_path: Path) -> None:
    content = {"a": nn.Linear(3, 2).state_dict(), "b": nn.Linear(2, 1).state_dict()}
    save(content, tmp_path / "dcp")
    with pytest.raises(StateDictError, match=r"a: 2 tensors"):
        open_checkpoint(tmp_path / "dcp")
    assert open_checkpoint(tmp_path / "dcp", "b").tensors["weight"].shape == (1, 2)


Edit = Callable[[dict[str, Any], dict[str, Any]], None]
TENSOR = torch.arange(24.0).reshape(4, 6)


def by_hand(folder: Path, edit: Edit = lambda _chunk, _info: None) -> Path:
    """Write a tensor in four chunks and two files, as four processes do."""
    folder.mkdir()
    files = {name: io.BytesIO() for name in ("__0_0.distcp", "__1_0.distcp")}
    chunks, places = [], {}
    for number, offset in enumerate([(0, 0), (0, 4), (3, 0), (3, 4)]):
        name = f"__{number // 2}_0.distcp"
        sizes = (3 if offset[0] == 0 else 1, 4 if offset[1] == 0 else 2)
        part = TENSOR[offset[0] : offset[0] + sizes[0], offset[1] : offset[1] + sizes[1]]
        start = files[name].tell()
        torch.save(part.clone(), files[name])
        chunk = {"offsets": torch.Size(offset), "sizes": torch.Size(sizes)}
        info = {"relative_path": name, "offset": start}
        info["length"] = files[name].tell() - start
        if number == 3:
            edit(chunk, info)
        chunks.append(ChunkStorageMetadata(**chunk))
        index = MetadataIndex("weight", torch.Size(chunk["offsets"]), number)
        places[index] = _StorageInfo(**info)
    for name, file in files.items():
        (folder / name).write_bytes(file.getvalue())
    entry = TensorStorageMetadata(TensorProperties(torch.float32), TENSOR.size(), chunks)
    metadata = Metadata({"weight": entry}, {"weight": ("weight",)}, places)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))
    return folder


def test_chunks_are_put_together(tmp_path: Path) -> None:
    found = open_checkpoint(by_hand(tmp_path / "dcp"))
    assert found.tensors["weight"].bits.tolist() == TENSOR.tolist()


DAMAGE: dict[str, tuple[Edit, str]] = {
    "outside the folder": (
        lambda _, info: info.update(relative_path="../secret.distcp"),
        "no file '../secret.distcp'",
    ),
    "missing": (lambda _, info: info.update(relative_path="__9_0.distcp"), "no file '__9_0"),
    "cut short": (lambda _, info: info.update(length=10**9), "is cut short"),
    "outside the shape": (lambda c, _: c.update(offsets=(3, 5)), "lies outside its shape"),
    "a gap": (lambda c, _: c.update(sizes=(1, 1)), "do not fill its shape"),
    "compressed": (
        lambda _, info: info.update(transform_descriptors=["zstd"]),
        "it is compressed",
    ),
}


@pytest.mark.parametrize(("edit", "message"), DAMAGE.values(), ids=DAMAGE)
def test_what_does_not_fit_is_refused(tmp_path: Path, edit: Edit, message: str) -> None:
    (tmp_path / "secret.distcp").write_bytes(b"x" * 10_000)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(by_hand(tmp_path / "dcp", edit))


def test_another_tensor_in_the_place_is_refused(tmp_path: Path) -> None:
    folder = by_hand(tmp_path / "dcp", lambda _, info: info.update(offset=0))
    with pytest.raises(CheckpointError, match=r"expected|damaged"):
        open_checkpoint(folder).tensors["weight"]


class Runs:
    """Runs a command when unpickled by pickle itself."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_the_metadata_runs(tmp_path: Path) -> None:
    folder = by_hand(tmp_path / "dcp")
    bad = {"state": Runs(tmp_path / "ran")}
    (folder / ".metadata").write_bytes(pickle.dumps(bad))
    with pytest.raises(CheckpointError, match="not the metadata"):
        open_checkpoint(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "__1_0.distcp"])
def test_cut_short_anywhere(tmp_path: Path, name: str) -> None:
    folder = by_hand(tmp_path / "dcp")
    data = (folder / name).read_bytes()
    for length in range(0, len(data), 97):
        (folder / name).write_bytes(data[:length])
        with pytest.raises(ConversionError):
            _ = open_checkpoint(folder).tensors["weight"].bits
