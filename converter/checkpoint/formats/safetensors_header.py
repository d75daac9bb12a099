"""The safetensors header, both ways: checked when read, laid out before anything is written.

The format: 8 bytes header length (little-endian), the header as JSON, the data. The header maps
each name to its dtype, its shape and its ``[begin, end)`` in the data.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from mlxport.converter.checkpoint.checkpoint import printable
from mlxport.converter.errors import CheckpointError
from mlxport.converter.plan.json_data import collection_paused
from mlxport.converter.plan.tensor import STORAGE, TensorSpec

# The limit the format's own library sets.
MAX_HEADER = 100_000_000
LENGTH_BYTES = 8

_METADATA = "__metadata__"
_ALIGNMENT = 8
_MAX_DIMS = 64
_MAX_SIZE = 2**62
# numpy indexes no more, even where another size is 0.
_MAX_ITEMS = _MAX_SIZE // 8


@dataclass(frozen=True)
class Header:
    """A header that has been checked, or one about to be written.

    Attributes:
        specs: name -> spec, in the order of the data.
        offsets: name -> where the tensor begins in the data, in bytes.
        metadata: the ``__metadata__`` entry.
    """

    specs: Mapping[str, TensorSpec]
    offsets: Mapping[str, int]
    metadata: Mapping[str, str]


def lay_out(specs: Mapping[str, TensorSpec], metadata: Mapping[Any, Any]) -> Header:
    """Give every tensor its place, without gaps.

    Wide dtypes come first, so that every tensor begins at a multiple of its item size.

    Raises:
        CheckpointError: a name or a metadata entry cannot stand in a safetensors header.
    """
    problems = [f"{printable(name)}: {why}" for name in specs if (why := _bad_name(name))]
    problems += [
        f"metadata {key!r}: {value!r} is not text"
        for key, value in metadata.items()
        if not (isinstance(key, str) and isinstance(value, str))
    ]
    if problems:
        raise CheckpointError.listing("these cannot be written to safetensors:", problems)
    placed = dict(sorted(specs.items(), key=lambda item: -STORAGE[item[1].dtype].itemsize))
    offsets, end = {}, 0
    for name, spec in placed.items():
        offsets[name] = end
        end += spec.nbytes
    return Header(placed, offsets, dict(metadata))


@collection_paused()
def encode(header: Header) -> bytes:
    """Return the file's beginning: length and JSON, padded so that the data lies aligned."""
    entries: dict[str, Any] = {_METADATA: dict(header.metadata)} if header.metadata else {}
    for name, spec in header.specs.items():
        begin = header.offsets[name]
        entries[name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [begin, begin + spec.nbytes],
        }
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


@collection_paused()
def parse(raw: bytes, data_size: int, where: str) -> Header:
    """Check a header's JSON against the format and the size of the data behind it.

    Args:
        raw: the header without its length.
        data_size: how many bytes the file holds after the header.
        where: the file's name, for messages.

    Raises:
        CheckpointError: the header breaks the format; every violation is listed.
    """
    entries = _decode(raw, where)
    metadata = entries.pop(_METADATA, None)
    problems = [] if _is_metadata(metadata) else [f"{_METADATA}: not a mapping of text to text"]
    specs: dict[str, TensorSpec] = {}
    offsets: dict[str, int] = {}
    for name, entry in entries.items():
        found = _bad_name(name) or _entry(entry, data_size)
        if isinstance(found, str):
            problems.append(f"{printable(name)}: {found}")
        else:
            specs[name], offsets[name] = found
    if problems := problems or _overlaps(specs, offsets):
        raise CheckpointError.listing(
            f"{where}: the safetensors header breaks the format:",
            problems,
            "The file is damaged or was written by a faulty program: fetch or write it again.",
        )
    order = sorted(specs, key=lambda name: offsets[name])
    return Header({name: specs[name] for name in order}, offsets, metadata or {})


def _decode(raw: bytes, where: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            twice = [printable(name) for name, count in counts.items() if count > 1]
            raise ValueError(f"these names stand in it more than once: {', '.join(twice)}")
        return result

    try:
        entries = json.loads(raw.decode(), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: the safetensors header is not valid: {error}") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{where}: the safetensors header is not a JSON object")
    return entries


def _entry(entry: Any, data_size: int) -> tuple[TensorSpec, int] | str:
    """Return one tensor's spec and beginning, or what is wrong with its entry."""
    if not isinstance(entry, dict):
        return "its entry is not an object"
    dtype, shape, offsets = (entry.get(field) for field in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in STORAGE:
        return f"dtype {dtype!r} is not one mlxport knows ({', '.join(STORAGE)})"
    if not _are_sizes(shape) or math.prod(size for size in shape if size) > _MAX_ITEMS:
        return f"shape {_short(shape)} is not a list of at most {_MAX_DIMS} sizes"
    if not _are_sizes(offsets) or len(offsets) != 2:
        return f"data_offsets {_short(offsets)} is not a pair of positions"
    begin, end = offsets
    if not begin <= end <= data_size:
        return f"data_offsets {[begin, end]} lie outside the {data_size} bytes of data in the file"
    spec = TensorSpec(dtype, tuple(shape))
    if end - begin != spec.nbytes:
        return f"{spec} takes {spec.nbytes} bytes, data_offsets {[begin, end]} give {end - begin}"
    return spec, begin


def _overlaps(specs: Mapping[str, TensorSpec], offsets: Mapping[str, int]) -> list[str]:
    problems = []
    filled = sorted((name for name in specs if specs[name].nbytes), key=lambda name: offsets[name])
    for before, after in itertools.pairwise(filled):
        if offsets[after] < offsets[before] + specs[before].nbytes:
            problems.append(f"{printable(before)} and {printable(after)} overlap")
    return problems


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return (
        isinstance(value, list)
        and len(value) <= _MAX_DIMS
        and all(type(size) is int and 0 <= size < _MAX_SIZE for size in value)
    )


def _is_metadata(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    )


def _bad_name(name: Any) -> str:
    if not isinstance(name, str):
        return "the name is not text"
    if name == _METADATA:
        return "the name is reserved"
    return "" if name.isascii() or _is_unicode(name) else "the name is not valid Unicode"


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
