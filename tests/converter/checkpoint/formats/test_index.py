import json

import numpy as np
import pytest
import torch

from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.errors import CheckpointError
from mlxport.converter.plan.tensor import Tensor

INDEX = "model.safetensors.index.json"


def number(value: float) -> Tensor:
    return Tensor(np.array([value], np.float32), "F32")


@pytest.fixture
def sharded(tmp_path):
    """Write shards and an index, and give the index."""

    def write(shards: dict[str, dict[str, float]], weight_map: dict[str, object] | None = None):
        for shard, content in shards.items():
            (tmp_path / shard).parent.mkdir(exist_ok=True)
            write_safetensors(tmp_path / shard, {k: number(v) for k, v in content.items()})
        if weight_map is None:
            weight_map = {name: shard for shard, content in shards.items() for name in content}
        text = json.dumps({"metadata": {"total_size": 8}, "weight_map": weight_map})
        (tmp_path / INDEX).write_text(text)
        return tmp_path / INDEX

    return write


def values(tensors) -> dict[str, float]:
    return {name: float(tensor.bits[0]) for name, tensor in tensors.items()}


def test_reads_across_shards(sharded) -> None:
    path = sharded({"1.safetensors": {"a": 1, "b": 2}, "2.safetensors": {"c": 3}})
    checkpoint = open_checkpoint(path)
    assert values(checkpoint.tensors) == {"a": 1, "b": 2, "c": 3}
    assert len(set(checkpoint.storage.values())) == 3
    assert [file.name for file in checkpoint.files] == [INDEX, "1.safetensors", "2.safetensors"]
    assert checkpoint.notes == ()


def test_a_folder_is_read_by_its_index(sharded) -> None:
    path = sharded({"1.safetensors": {"a": 1}, "2.safetensors": {"c": 3}})
    assert values(open_checkpoint(path.parent).tensors) == {"a": 1, "c": 3}


def test_shards_below_the_folder_are_read(sharded) -> None:
    assert values(open_checkpoint(sharded({"sub/1.safetensors": {"a": 1}})).tensors) == {"a": 1}


def test_shards_of_torch_are_read(tmp_path) -> None:
    for shard, name in (("1.bin", "a"), ("2.bin", "b")):
        torch.save({name: torch.ones(1)}, tmp_path / shard)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text('{"weight_map": {"a": "1.bin", "b": "2.bin"}}')
    assert values(open_checkpoint(index).tensors) == {"a": 1, "b": 1}


def test_symbolic_links_are_followed_as_download_caches_make_them(sharded, tmp_path) -> None:
    path = sharded({"1.safetensors": {"a": 1}})
    (tmp_path / "blobs").mkdir()
    (tmp_path / "1.safetensors").rename(tmp_path / "blobs" / "f00d")
    (tmp_path / "1.safetensors").symlink_to("blobs/f00d")
    assert values(open_checkpoint(path).tensors) == {"a": 1}


OUTSIDE = {
    "parent": "../x.safetensors",
    "parent inside": "a/../../x.safetensors",
    "absolute": "/etc/passwd",
    "drive": "C:/x.safetensors",
    "backslash": "..\\x.safetensors",
    "nothing": "",
    "null": "a\0b",
    "number": 3,
    "list": [],
}


@pytest.mark.parametrize("shard", OUTSIDE.values(), ids=OUTSIDE)
def test_shard_names_may_not_leave_the_folder(shard, sharded) -> None:
    path = sharded({"1.safetensors": {"a": 1}}, {"a": "1.safetensors", "evil": shard})
    with pytest.raises(CheckpointError, match=r"(?s)outside the folder.*evil") as error:
        open_checkpoint(path)
    assert "  a:" not in str(error.value)


def test_all_missing_shards_are_listed(sharded) -> None:
    path = sharded(
        {"1.safetensors": {"a": 1}},
        {"a": "1.safetensors", "b": "2.safetensors", "c": "3.safetensors"},
    )
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(path)
    assert "2 of 3 shards are missing" in str(error.value)
    assert "  2.safetensors\n  3.safetensors\n" in str(error.value)


def test_all_tensors_missing_from_their_shards_are_listed(sharded) -> None:
    path = sharded({"1.safetensors": {"a": 1}}, dict.fromkeys("abc", "1.safetensors"))
    with pytest.raises(CheckpointError, match=r"(?s)  b is not in 1.safetensors\n  c is not in"):
        open_checkpoint(path)


def test_a_tensor_the_index_does_not_place_is_noted(sharded) -> None:
    path = sharded({"1.safetensors": {"a": 1, "b": 2}}, {"a": "1.safetensors"})
    checkpoint = open_checkpoint(path)
    assert list(checkpoint.tensors) == ["a"]
    assert "1.safetensors: left out" in checkpoint.notes[0]
    assert checkpoint.notes[0].endswith("b")


BROKEN = {
    "not JSON": "{nonsense",
    "no map": '{"a": 1}',
    "empty map": '{"weight_map": {}}',
    "map a list": '{"weight_map": ["a"]}',
    "names twice": '{"weight_map": {"a": "1.bin", "a": "2.bin"}}',
    "deeply nested": '{"a":' + "[" * 100_000,
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_index_is_refused(text, tmp_path) -> None:
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(CheckpointError, match="index"):
        open_checkpoint(tmp_path / INDEX)


def test_an_index_is_no_shard(sharded, tmp_path) -> None:
    path = sharded({}, {"a": "other.index.json"})
    (tmp_path / "other.index.json").write_text('{"weight_map": {"a": "x"}}')
    with pytest.raises(CheckpointError, match="an index, where"):
        open_checkpoint(path)


def test_a_damaged_shard_is_named(sharded, tmp_path) -> None:
    path = sharded({"1.safetensors": {"a": 1}})
    content = (tmp_path / "1.safetensors").read_bytes()
    (tmp_path / "1.safetensors").write_bytes(content[:-2])
    with pytest.raises(CheckpointError, match=r"1\.safetensors: the safetensors header"):
        open_checkpoint(path)
