"""Weights are converted as they are written: in order, one entry in memory at a time."""

import json
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file

from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.checkpoint.writing.convert_streaming import parse_size, split, stream_weights
from mlxport.converter.errors import CheckpointError, OptionsError, StateDictError
from mlxport.converter.plan.steps import conv_weight
from mlxport.converter.plan.tensor import Tensor, TensorSpec
from mlxport.converter.plan.weight_plan import Entry, WeightPlan

SHAPE = (4, 3, 2, 2)
NBYTES = 4 * 3 * 2 * 2 * 4


class Counting(Mapping[str, Tensor]):
    """Tensors made when asked for; counts how many are alive at once, outlines aside."""

    def __init__(self, count: int) -> None:
        self.names = [f"{i:02}.weight" for i in range(count)]
        self.alive: set[int] = set()
        self.made = 0
        self.most = 0

    def __getitem__(self, name: str) -> Tensor:
        bits = np.full(SHAPE, float(name[:2]), np.float32)
        self.made += 1
        self.alive.add(self.made)
        weakref.finalize(bits, self.alive.discard, self.made)
        self.most = max(self.most, len(self.alive))
        return Tensor(bits, "F32")

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def checkpoint_of(tensors: Mapping[str, Tensor]) -> Checkpoint:
    return Checkpoint(Path("x"), tensors, {name: name for name in tensors})


def plan_of(names: Mapping[str, Tensor]) -> WeightPlan:
    return WeightPlan(tuple(Entry((n,), (f"model.{n}",), conv_weight(2)) for n in names))


@pytest.mark.parametrize("size", [None, NBYTES, 3 * NBYTES, 3 * NBYTES + 1])
def test_no_more_than_an_entry_is_in_memory(tmp_path: Path, size: int | None) -> None:
    tensors = Counting(20)
    stream_weights(tmp_path, plan_of(tensors), checkpoint_of(tensors), max_shard_size=size)
    assert tensors.most <= 2  # the one being written, and the next
    found: dict[str, np.ndarray] = {}
    for file in sorted(tmp_path.glob("weights*.safetensors")):
        found |= load_file(file)
    assert {name: array.shape for name, array in found.items()} == {
        f"model.{name}": (4, 2, 2, 3) for name in tensors
    }
    assert all((array == float(name[6:8])).all() for name, array in found.items())


def test_shards_and_their_index(tmp_path: Path) -> None:
    tensors = Counting(5)
    stream_weights(tmp_path, plan_of(tensors), checkpoint_of(tensors), max_shard_size=2 * NBYTES)
    names = [f"weights-{i:05}-of-00003.safetensors" for i in (1, 2, 3)]
    index = tmp_path / "weights.safetensors.index.json"
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names, index.name]
    contents = json.loads(index.read_text())
    assert contents["metadata"] == {
        "total_size": 5 * NBYTES,
        "total_parameters": 5 * NBYTES // 4,
    }
    assert [*contents["weight_map"].values()] == [names[i // 2] for i in range(5)]
    assert set(open_checkpoint(index).tensors) == set(contents["weight_map"])
    for name in names:
        mx.load(str(tmp_path / name))


def test_a_tensor_larger_than_a_shard_has_one_of_its_own() -> None:
    specs = {name: TensorSpec("U8", (size,)) for name, size in {"a": 2, "b": 9, "c": 1}.items()}
    assert [list(shard) for shard in split(specs, 3)] == [["a"], ["b"], ["c"]]
    assert [list(shard) for shard in split(specs, 12)] == [["a", "b", "c"]]
    assert split({}, 3) == [{}]


def test_not_finite_targets_are_named(tmp_path: Path) -> None:
    tensors = {"a": Tensor(np.array([np.nan], np.float32), "F32")}
    tensors |= {"b": Tensor(np.array([1], np.float32), "F32")}
    plan = WeightPlan((Entry(("a",), ("x",)), Entry(("b",), ("y",))))
    assert stream_weights(tmp_path, plan, checkpoint_of(tensors)).not_finite == ["x"]


def test_dtypes_mlx_lacks_are_listed(tmp_path: Path) -> None:
    tensors = {name: Tensor(np.zeros(1), "F64") for name in "ab"}
    plan = WeightPlan(tuple(Entry((name,), (name,)) for name in tensors))
    with pytest.raises(StateDictError, match=r"(?s)a: F64.*b: F64.*dtype='float32'"):
        stream_weights(tmp_path, plan, checkpoint_of(tensors))
    assert [*tmp_path.iterdir()] == []


def test_a_source_that_fails_halfway_leaves_no_file_of_its_shard(tmp_path: Path) -> None:
    class Failing(Counting):
        def __getitem__(self, name: str) -> Tensor:
            if name.startswith("03") and self.most > 4:
                raise CheckpointError("cut short")
            return super().__getitem__(name)

    tensors = Failing(6)
    kept = [tensors[name] for name in tensors]  # so that the count is up
    with pytest.raises(CheckpointError, match="cut short"):
        stream_weights(tmp_path, plan_of(tensors), checkpoint_of(tensors), max_shard_size=NBYTES)
    assert kept
    assert not (tmp_path / "weights.safetensors.index.json").exists()


SIZES = {"5GB": 5 * 10**9, "512 MiB": 512 * 2**20, "1.5kb": 1500, "7": 7}


@pytest.mark.parametrize(("text", "size"), SIZES.items())
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "five", "5TB", "0.1"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(OptionsError, match="expected a size"):
        parse_size(text)
