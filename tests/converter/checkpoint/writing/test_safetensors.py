import json

import mlx.core as mx
import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlxport.converter.checkpoint.formats.safetensors import open_safetensors
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.errors import CheckpointError
from mlxport.converter.plan.tensor import MLX_DTYPE, STORAGE, Tensor, TensorSpec
from mlxport.converter.plan.torch_tensor import TORCH_DTYPE


@pytest.mark.parametrize("dtype", STORAGE)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (3, 4, 2)], ids=str)
def test_every_dtype_comes_back_by_bits(dtype, shape, random_bits, same_bits, tmp_path) -> None:
    tensors = {"x": random_bits(dtype, shape)}
    write_safetensors(tmp_path / "x.safetensors", tensors)
    assert same_bits(open_safetensors(tmp_path / "x.safetensors").tensors, tensors)


@pytest.mark.parametrize("dtype", STORAGE)
def test_the_formats_own_library_reads_it(dtype, random_bits, tmp_path) -> None:
    tensor = random_bits(dtype)
    write_safetensors(tmp_path / "x.safetensors", {"x": tensor})
    ((name, read),) = safetensors.deserialize((tmp_path / "x.safetensors").read_bytes())
    assert (name, read["dtype"], tuple(read["shape"])) == ("x", dtype, tensor.shape)
    assert bytes(read["data"]) == tensor.bits.tobytes()


NAN_PAYLOADS = {
    "F16": np.array([0x7E01, 0xFC01, 0x7C00], np.uint16).view(np.float16),
    "BF16": np.array([0x7FC1, 0xFF81, 0x7F80], np.uint16),
    "F32": np.array([0x7FC00001, 0xFF800001, 0x7F800000], np.uint32).view(np.float32),
    "F64": np.array([0x7FF8000000000001, 0xFFF0000000000001], np.uint64).view(np.float64),
}


@pytest.mark.parametrize(("dtype", "bits"), NAN_PAYLOADS.items(), ids=NAN_PAYLOADS)
def test_nan_payloads_survive(dtype, bits, tmp_path) -> None:
    write_safetensors(tmp_path / "x.safetensors", {"x": Tensor(bits[::-1], dtype)})
    read = open_safetensors(tmp_path / "x.safetensors").tensors["x"]
    assert read.bits.tobytes() == bits[::-1].tobytes()


VIEWS = {
    "permuted": lambda a: a.transpose(2, 0, 1),
    "moved axis": lambda a: np.moveaxis(a, 1, -1),
    "transposed": lambda a: a.T,
    "strided": lambda a: a[::2, :, 1::2],
    "reversed": lambda a: a[::-1, :, ::-1],
    "one row reversed": lambda a: a[:, ::-1],
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
    "broadcast scalar": lambda a: np.broadcast_to(a[0, 0, 0], (3, 2)),
    "sliced": lambda a: a[1:, 1:, 1:],
    "Fortran order": np.asfortranarray,
    "new axes": lambda a: a[:, None, :, None].swapaxes(0, 2),
    "single": lambda a: a[1:2, 2:3, 0:1],
    "empty": lambda a: a[:, 2:2].T,
    "unaligned": lambda a: (
        np.frombuffer(b"\0" + a.tobytes(), a.dtype.newbyteorder("="), offset=1)
        if a.dtype.itemsize == 1
        else np.ndarray(a.shape, a.dtype, b"\0" + a.tobytes(), 1)
    ),
}


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16", "I64", "U8", "BOOL", "C64"])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_views_are_written_as_they_look(view, dtype, random_bits, tmp_path) -> None:
    # a writer that takes the raw buffer gives the right shape with the wrong values
    bits = view(random_bits(dtype, (4, 6, 8)).bits)
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"x": Tensor(bits, dtype)})
    expected = np.ascontiguousarray(bits).tobytes()

    ((_, raw),) = safetensors.deserialize(path.read_bytes())
    assert (tuple(raw["shape"]), bytes(raw["data"])) == (bits.shape, expected)

    in_torch = safetensors.torch.load_file(path)["x"]
    assert in_torch.dtype == TORCH_DTYPE[dtype]
    assert in_torch.reshape(-1).view(torch.uint8).numpy().tobytes() == expected

    in_mlx = mx.load(str(path))["x"]
    assert in_mlx.dtype == getattr(mx, MLX_DTYPE[dtype])
    assert tuple(in_mlx.shape) == bits.shape
    if bits.size:  # mlx cannot view an empty array as another dtype
        plain = in_mlx.view(mx.uint16) if dtype == "BF16" else in_mlx
        assert np.array(plain).tobytes() == expected


@given(st.data())
def test_any_view_of_any_array_is_written_as_it_looks(tmp_path_factory, data) -> None:
    array = np.arange(360, dtype=np.float32).reshape(3, 4, 5, 6)
    bits = array[data.draw(hnp.basic_indices(array.shape, allow_newaxis=True))]
    bits = np.asarray(bits).transpose(data.draw(st.permutations(range(np.ndim(bits)))))
    path = tmp_path_factory.getbasetemp() / "view.safetensors"
    path.unlink(missing_ok=True)
    write_safetensors(path, {"x": Tensor(bits, "F32")})
    assert open_safetensors(path).tensors["x"].bits.tolist() == bits.tolist()


def number(value: float, dtype: str = "F32") -> Tensor:
    return Tensor(np.array([value]).astype(STORAGE[dtype]), dtype)


def test_the_exact_bytes(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": number(1, "U8"), "b": number(2)})
    header = (
        b'{"__metadata__":{"format":"mlx"},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        b'"a":{"dtype":"U8","shape":[1],"data_offsets":[4,5]}}'
    )
    header += b" " * (-len(header) % 8)
    assert path.read_bytes() == len(header).to_bytes(8, "little") + header + b"\0\0\0\x40\x01"


@pytest.mark.parametrize(
    "metadata", [{}, {"format": "pt", "ключ": "значение"}], ids=["none", "some"]
)
def test_metadata(metadata, tmp_path) -> None:
    write_safetensors(tmp_path / "x.safetensors", {"a": number(1)}, metadata)
    with safetensors.safe_open(tmp_path / "x.safetensors", "np") as file:
        assert (file.metadata() or {}) == metadata


def test_metadata_is_what_mlx_expects_by_default(tmp_path) -> None:
    write_safetensors(tmp_path / "x.safetensors", {"a": number(1)})
    assert mx.load(str(tmp_path / "x.safetensors"), return_metadata=True)[1] == {"format": "mlx"}


def test_tensors_of_all_dtypes_lie_aligned_side_by_side(random_bits, same_bits, tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {f"layer.{dtype}": random_bits(dtype, (3,)) for dtype in STORAGE}
    write_safetensors(path, tensors)
    read = open_safetensors(path)
    assert same_bits(read.tensors, tensors)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    assert length % 8 == 0
    for name, begin in read.tensors.header.offsets.items():
        assert begin % tensors[name].bits.dtype.itemsize == 0


def test_no_tensors(tmp_path) -> None:
    write_safetensors(tmp_path / "x.safetensors", {})
    assert dict(open_safetensors(tmp_path / "x.safetensors").tensors) == {}
    assert mx.load(str(tmp_path / "x.safetensors")) == {}


def test_unusual_names(tmp_path) -> None:
    names = ["a b", "größe", 'quote"s', "new\nline", "", "日本", "a/b\\c"]
    write_safetensors(tmp_path / "x.safetensors", {name: number(1) for name in names})
    assert sorted(open_safetensors(tmp_path / "x.safetensors").tensors) == sorted(names)
    with safetensors.safe_open(tmp_path / "x.safetensors", "np") as file:
        assert sorted(file.keys()) == sorted(names)


def test_pairs_are_taken_one_by_one(tmp_path) -> None:
    alive: list[int] = []

    class Counted(np.ndarray):
        def __del__(self) -> None:
            alive.remove(1)

    def produce():
        for i in range(5):
            assert len(alive) <= 1  # the one before, at most
            alive.append(1)
            yield f"t{i}", Tensor(np.full(3, i, np.float32).view(Counted), "F32")

    specs = {f"t{i}": TensorSpec("F32", (3,)) for i in range(5)}
    write_safetensors(tmp_path / "x.safetensors", produce(), specs=specs)
    read = open_safetensors(tmp_path / "x.safetensors").tensors
    assert {name: t.bits.tolist() for name, t in read.items()} == {
        f"t{i}": [i] * 3 for i in range(5)
    }


def test_tensors_may_come_in_any_order_of_any_width(tmp_path) -> None:
    tensors = {"a": number(1, "U8"), "b": number(2, "F64"), "c": number(3, "BF16")}
    specs = {name: TensorSpec.of(tensor) for name, tensor in tensors.items()}
    pairs = ((name, tensors[name]) for name in "cab")
    write_safetensors(tmp_path / "x.safetensors", pairs, specs=specs)
    read = open_safetensors(tmp_path / "x.safetensors").tensors
    assert {name: t.bits.tolist() for name, t in read.items()} == {"a": [1], "b": [2], "c": [3]}


SPECS = {"a": TensorSpec("F32", (1,)), "b": TensorSpec("F32", (1,))}
MISMATCHES = {
    "missing": ([("a", number(1))], "(?s)announced and did not come.*  b"),
    "unknown": ([("c", number(1))], "c: expected no such tensor"),
    "twice": ([("a", number(1)), ("a", number(1))], "a: expected no such tensor, or not twice"),
    "dtype": ([("a", number(1, "F16"))], r"a: expected F32 \(1,\), got F16 \(1,\)"),
    "shape": ([("a", Tensor(np.ones(2, np.float32), "F32"))], r"expected F32 \(1,\), got F32 \(2,"),
}


@pytest.mark.parametrize(("pairs", "message"), MISMATCHES.values(), ids=MISMATCHES)
def test_other_tensors_than_announced_are_an_error(pairs, message, tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_text("before")
    with pytest.raises(CheckpointError, match=message):
        write_safetensors(path, pairs, specs=SPECS)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {path.name: "before"}


REFUSED = {
    "reserved name": ({"__metadata__": number(1)}, {}, "reserved"),
    "surrogate": ({"\ud800": number(1)}, {}, "not valid Unicode"),
    "metadata no text": ({}, {"a": 1}, "is not text"),
}


@pytest.mark.parametrize(("tensors", "metadata", "message"), REFUSED.values(), ids=REFUSED)
def test_what_the_format_cannot_hold_is_refused(tensors, metadata, message, tmp_path) -> None:
    with pytest.raises(CheckpointError, match=message):
        write_safetensors(tmp_path / "x.safetensors", tensors, metadata)
    assert list(tmp_path.iterdir()) == []


def test_a_name_given_twice_is_refused(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="a: there are two"):
        write_safetensors(tmp_path / "x.safetensors", [("a", number(1)), ("a", number(2))])


def test_a_folder_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"gone/x\.safetensors: cannot be written: No such"):
        write_safetensors(tmp_path / "gone" / "x.safetensors", {})


def test_headers_are_json_in_the_order_of_the_data(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": number(1, "U8"), "b": number(1), "c": number(1)})
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert list(header) == ["__metadata__", "b", "c", "a"]
