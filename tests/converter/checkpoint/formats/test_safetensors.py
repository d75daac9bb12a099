import json
import mmap
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import safetensors
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from mlxport.converter.checkpoint.formats.safetensors import open_safetensors
from mlxport.converter.checkpoint.formats.safetensors_header import MAX_HEADER, parse
from mlxport.converter.errors import CheckpointError, ConversionError
from mlxport.converter.plan.tensor import STORAGE


def header(**entries: object) -> bytes:
    return json.dumps(entries).encode()


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize("dtype", STORAGE)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (3, 4, 2)], ids=str)
def test_reads_every_dtype_by_bits(dtype, shape, random_bits, write_raw) -> None:
    tensor = random_bits(dtype, shape)
    raw = tensor.bits.tobytes()
    path = write_raw(header(x=entry(dtype, shape, (0, len(raw)))), raw)
    read = open_safetensors(path).tensors["x"]
    assert (read.dtype, read.shape, read.bits.tobytes()) == (dtype, shape, raw)


TORCH_DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32,
    torch.uint64, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu,
]  # fmt: skip


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
def test_reads_what_the_formats_own_library_writes(dtype, tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    tensor = torch.randint(0, 2, (2, 3)).to(dtype)
    path.write_bytes(save({"a": tensor, "b": tensor[:1].clone()}, metadata={"format": "pt"}))
    checkpoint = open_safetensors(path)
    assert sorted(checkpoint.tensors) == ["a", "b"]
    expected = tensor.view(torch.uint8).numpy() if dtype != torch.bool else tensor.numpy()
    assert checkpoint.tensors["a"].bits.tobytes() == expected.tobytes()
    assert checkpoint.tensors["b"].shape == (1, 3)


def test_reads_what_mlx_writes(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    mx.save_safetensors(str(path), {"a": mx.arange(6).reshape(2, 3).T.astype(mx.bfloat16)})
    tensor = open_safetensors(path).tensors["a"]
    assert (tensor.dtype, tensor.shape) == ("BF16", (3, 2))
    assert (
        (tensor.bits.astype(np.uint32) << 16).view(np.float32) == [[0, 3], [1, 4], [2, 5]]
    ).all()


def test_data_at_odd_offsets_is_read_aligned(write_raw) -> None:
    data = b"\1" + np.array([1, 2], "<f4").tobytes()
    path = write_raw(header(a=entry("U8", [1], [0, 1]), b=entry(offsets=[1, 9])), data)
    tensor = open_safetensors(path).tensors["b"]
    assert tensor.bits.tolist() == [1, 2]
    assert tensor.bits.flags.aligned


def test_gaps_and_any_order_are_allowed(write_raw) -> None:
    data = np.array([1, 2, 0, 3], "<f4").tobytes()
    path = write_raw(header(b=entry(shape=[1], offsets=[12, 16]), a=entry()), data)
    tensors = open_safetensors(path).tensors
    assert {name: tensor.bits.tolist() for name, tensor in tensors.items()} == {
        "a": [1, 2],
        "b": [3],
    }


def test_metadata_and_no_tensors(write_raw) -> None:
    path = write_raw(header(__metadata__={"format": "pt"}))
    assert dict(open_safetensors(path).tensors) == {}


def test_every_name_is_memory_of_its_own(write_raw) -> None:
    empty = entry(shape=[0], offsets=[0, 0])
    storage = open_safetensors(write_raw(header(a=empty, b=empty, c=entry()), bytes(8))).storage
    assert len(set(storage.values())) == 3


def test_the_checkpoint_says_where_the_file_is_mapped(write_raw) -> None:
    raw = header(a=entry())
    path = write_raw(raw + b" " * (-len(raw) % 8), bytes(8))
    checkpoint = open_safetensors(path)
    (mapped,) = checkpoint.mapped
    address = checkpoint.tensors["a"].bits.__array_interface__["data"][0]
    assert (mapped.path, len(mapped.addresses)) == (path, path.stat().st_size)
    assert address in mapped.addresses
    assert mapped.offset + mapped.addresses.index(address) == path.stat().st_size - 8


def test_is_lazy_and_read_only(write_raw) -> None:
    raw = header(a=entry())
    path = write_raw(raw + b" " * (-len(raw) % 8), bytes(8))
    bits = open_safetensors(path).tensors["a"].bits
    assert not bits.flags.writeable
    base: object = bits
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, mmap.mmap)


VIOLATIONS = {
    "unknown dtype": (entry("F4"), "dtype 'F4' is not one mlxport knows"),
    "dtype no text": (entry(dtype=3), "dtype 3 is not one"),  # type: ignore[arg-type]
    "shape no list": (entry(shape=2), "shape 2 is not a list"),
    "negative size": (entry(shape=[-2]), "shape [-2] is not a list"),
    "boolean size": (entry(shape=[True, 2]), "shape [True, 2] is not a list"),
    "fractional size": (entry(shape=[2.0]), "shape [2.0] is not a list"),
    "too many axes": (entry(shape=[1] * 65), "is not a list of at most 64 sizes"),
    "absurd size": (entry(shape=[0, 2**70]), "is not a list"),
    "absurd product": (entry(shape=[0, 2**40, 2**40]), "is not a list"),
    "one offset": (entry(offsets=[0]), "data_offsets [0] is not a pair"),
    "negative offset": (entry(offsets=[-8, 0]), "data_offsets [-8, 0] is not a pair"),
    "backwards": (entry(offsets=[8, 0]), "data_offsets [8, 0] lie outside"),
    "past the end": (entry(offsets=[8, 16]), "data_offsets [8, 16] lie outside the 8 bytes"),
    "too few bytes": (entry(offsets=[0, 4]), "F32 (2,) takes 8 bytes, data_offsets [0, 4] give 4"),
    "too many bytes": (entry(shape=[1]), "F32 (1,) takes 4 bytes, data_offsets [0, 8] give 8"),
    "no dtype": ({"shape": [2], "data_offsets": [0, 8]}, "dtype None is not one"),
    "no object": ([1], "its entry is not an object"),
}


@pytest.mark.parametrize(("broken", "message"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_broken_entry_is_named(broken, message, write_raw) -> None:
    path = write_raw(header(good=entry(shape=[0], offsets=[0, 0]), bad=broken), bytes(8))
    with pytest.raises(CheckpointError) as error:
        open_safetensors(path)
    assert str(path) in str(error.value)
    (line,) = [line for line in str(error.value).splitlines() if line.startswith("  bad: ")]
    assert message in line
    assert "good" not in str(error.value)


def test_all_broken_entries_are_listed(write_raw) -> None:
    path = write_raw(header(a=entry("F4"), b=entry(offsets=[0, 4])), bytes(8))
    with pytest.raises(CheckpointError, match=r"(?s)  a: dtype.*  b: F32"):
        open_safetensors(path)


HEADERS = {
    "not JSON": (b"{nonsense", "is not valid"),
    "not UTF-8": (b'{"\xff":1}', "is not valid"),
    "no object": (b"[]", "is not a JSON object"),
    "names twice": (b'{"a":1,"b":2,"a":3}', "more than once: a"),
    "fields twice": (b'{"a":{"dtype":"F32","dtype":"F16"}}', "more than once: dtype"),
    "deeply nested": (b'{"a":' + b"[" * 100_000, "is not valid"),
    "endless number": (b'{"a":' + b"1" * 5000 + b"}", "is not valid"),
    "metadata no text": (b'{"__metadata__":{"a":1}}', "__metadata__: not a mapping"),
    "metadata a list": (b'{"__metadata__":[]}', "__metadata__: not a mapping"),
    "lone surrogate": (b'{"\\ud800":{}}', r"'\\ud800': the name is not valid Unicode"),
    "empty": (b"", "is not valid"),
}


@pytest.mark.parametrize(("raw", "message"), HEADERS.values(), ids=HEADERS)
def test_a_broken_header_is_refused(raw, message, write_raw) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_safetensors(write_raw(raw))


def test_positions_far_into_a_large_file() -> None:
    size = 3 * 2**40
    entries = {"a": entry("U8", [size // 3], [0, size // 3]), "b": entry(offsets=[size - 8, size])}
    assert parse(header(**entries), size, "x").offsets == {"a": 0, "b": size - 8}


def test_overlapping_tensors_are_refused(write_raw) -> None:
    path = write_raw(header(a=entry(), b=entry(offsets=[4, 12])), bytes(12))
    with pytest.raises(CheckpointError, match="a and b overlap"):
        open_safetensors(path)


LENGTHS = {"past the end": 1000, "past the limit": MAX_HEADER + 1, "past memory": 2**63}


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
def test_a_header_longer_than_the_file_is_refused_unread(length, write_raw, monkeypatch) -> None:
    monkeypatch.setattr("mlxport.converter.checkpoint.formats.safetensors.parse", pytest.fail)
    with pytest.raises(CheckpointError, match=f"claims a header of {length} bytes"):
        open_safetensors(write_raw(b"{}", length=length))


@pytest.mark.parametrize("content", [b"", b"\2\0\0", b"\2\0\0\0\0\0\0\0{"], ids=len)
def test_a_file_cut_short_is_refused(content, tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        open_safetensors(path)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.safetensors: cannot be read: No such file"):
        open_safetensors(tmp_path / "gone.safetensors")


def test_control_characters_in_names_do_not_reach_the_terminal(write_raw) -> None:
    with pytest.raises(CheckpointError) as error:
        open_safetensors(write_raw(header(**{"a\x1b[2J": 1})))
    assert "\x1b" not in str(error.value)


REAL = save(
    {
        "conv.weight": torch.randn(2, 3, 3, 3),
        "conv.bias": torch.randn(2).bfloat16(),
        "bn.num_batches_tracked": torch.tensor(7),
    },
    metadata={"format": "pt"},
)
HEADER_END = 8 + int.from_bytes(REAL[:8], "little")

mutations = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, HEADER_END - 1), st.integers(0, 255)),
        st.tuples(st.just("cut"), st.integers(0, len(REAL)), st.just(0)),
        st.tuples(st.just("drop"), st.integers(0, HEADER_END - 1), st.integers(1, 9)),
        st.tuples(st.just("double"), st.integers(0, HEADER_END - 1), st.integers(1, 40)),
    ),
    min_size=1,
    max_size=4,
)


def mutated(content: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    for kind, at, value in changes:
        if kind == "set":
            content = content[:at] + bytes([value]) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at]
        elif kind == "drop":
            content = content[:at] + content[at + value :]
        else:
            content = content[: at + value] + content[at:]
    return content


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "x.safetensors"


@given(changes=mutations)
def test_mutated_files_raise_nothing_but_conversion_errors(changes, scratch) -> None:
    scratch.unlink(missing_ok=True)  # a mapping of the last example may still be open
    scratch.write_bytes(content := mutated(REAL, changes))
    try:
        tensors = dict(open_safetensors(scratch).tensors)
    except ConversionError:
        return
    assert sum(t.bits.nbytes for t in tensors.values()) <= len(content)
    for tensor in tensors.values():
        tensor.bits.tobytes()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*STORAGE, "F4"]),
        "shape": st.lists(st.integers(-1, 5), max_size=4) | json_values,
        "data_offsets": st.lists(st.integers(-1, 100), max_size=3) | json_values,
    }
)


@given(st.dictionaries(st.text(max_size=5), entries | json_values, max_size=4), st.integers(0, 99))
def test_any_json_header_is_read_or_refused(content, size) -> None:
    raw = json.dumps(content).encode()
    try:
        found = parse(raw, size, "x")
    except ConversionError:
        return
    ends = {name: found.offsets[name] + spec.nbytes for name, spec in found.specs.items()}
    assert all(0 <= found.offsets[name] <= end <= size for name, end in ends.items())


def test_agrees_with_the_formats_own_library_on_what_is_right(scratch) -> None:
    scratch.unlink(missing_ok=True)
    scratch.write_bytes(REAL)
    ours = open_safetensors(scratch).tensors
    theirs = dict(safetensors.deserialize(REAL))
    assert {k: (t.dtype, list(t.shape), t.bits.tobytes()) for k, t in ours.items()} == {
        k: (t["dtype"], t["shape"], bytes(t["data"])) for k, t in theirs.items()
    }


@pytest.mark.parametrize(("begin", "overlap"), [(3, True), (4, False), (0, True), (1, True)])
def test_one_byte_is_an_overlap(begin, overlap) -> None:
    entries = {"a": entry("U8", [4], [0, 4]), "b": entry("U8", [4], [begin, begin + 4])}
    if overlap:
        with pytest.raises(CheckpointError, match="overlap"):
            parse(header(**entries), 8, "x")
    else:
        assert parse(header(**entries), 8, "x").offsets == {"a": 0, "b": 4}


@pytest.mark.parametrize("size", [7, 8])
def test_data_ends_where_the_file_does(size) -> None:
    entries = {"a": entry("U8", [8], [0, 8])}
    if size < 8:
        with pytest.raises(CheckpointError, match="outside the 7 bytes"):
            parse(header(**entries), size, "x")
    else:
        assert parse(header(**entries), size, "x").offsets == {"a": 0}
