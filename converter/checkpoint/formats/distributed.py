"""Read the folders that ``torch.distributed.checkpoint`` writes; code from them never runs.

A pickled ``.metadata`` says of every tensor its shape, its chunks and where in which ``.distcp``
file each chunk is; a chunk is what ``torch.save`` writes of one tensor.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlxport.converter.checkpoint.checkpoint import Checkpoint, printable
from mlxport.converter.checkpoint.formats.index import stays_inside
from mlxport.converter.checkpoint.formats.inert_pickle import InertPickle, Placeholder, load_inert
from mlxport.converter.checkpoint.formats.recognise import DISTRIBUTED, check_unpacked, stored_sizes
from mlxport.converter.checkpoint.formats.state_dict import find_state_dict
from mlxport.converter.errors import CheckpointError
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.plan.torch_tensor import tensor_from_torch
from mlxport.converter.terminal import cleaned

_DAMAGED = "Write the checkpoint again, or fetch all its files again."


@dataclass(frozen=True)
class _Chunk:
    """The position of a part of a tensor: in the tensor, and in which file."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: Path
    start: int
    length: int


@dataclass(frozen=True)
class _Whole:
    """A tensor, and the chunks that make it up."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    chunks: tuple[_Chunk, ...]


class _Distributed(Mapping[str, Tensor]):
    """Name -> tensor, put together from its chunks when asked for."""

    def __init__(self, tensors: Mapping[str, _Whole]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> Tensor:
        whole = self._tensors[name]
        parts = [_load(chunk, whole.dtype) for chunk in whole.chunks]
        if len(parts) == 1:
            return parts[0]
        whole_tensor = parts[0].with_bits(np.empty(whole.shape, parts[0].bits.dtype))
        for chunk, part in zip(whole.chunks, parts, strict=True):
            place = tuple(slice(o, o + n) for o, n in zip(chunk.offsets, chunk.sizes, strict=True))
            whole_tensor.bits[place] = part.bits
        return whole_tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def open_distributed(folder: Path, key: str | None = None) -> Checkpoint:
    """Open a distributed checkpoint.

    Args:
        folder: holds ``.metadata`` and the ``.distcp`` files.
        key: where in what was saved the state dict stands, where there are several.

    Raises:
        CheckpointError: the folder is damaged or incomplete.
        StateDictError: it holds no state dict, several, or none under ``key``.
    """
    path = folder / DISTRIBUTED
    module = InertPickle()
    try:
        with path.open("rb") as file:
            metadata = module.load(file).state
        wholes = dict(_wholes(folder, metadata))
        nested = _nested(metadata.get("planner_data") or {}, wholes)
    except CheckpointError:
        raise
    except Exception as error:  # of a damaged pickle anything may come
        raise CheckpointError(
            f"{path}: not the metadata of a distributed checkpoint, or damaged "
            f"({type(error).__name__}: {cleaned(str(error))}). {_DAMAGED}"
        ) from error
    tree, names = nested
    found = find_state_dict(tree, folder, key)
    tensors = {name: wholes[names[id(value)]] for name, value in found.entries.items()}
    files = {chunk.file for whole in tensors.values() for chunk in whole.chunks}
    return Checkpoint(
        path,
        _Distributed(tensors),
        {name: names[id(value)] for name, value in found.entries.items()},
        found.notes,
        found.key,
        (path, *sorted(files)),
        others=found.others,
    )


def _wholes(folder: Path, metadata: Mapping[str, Any]) -> Iterator[tuple[str, _Whole]]:
    places: dict[tuple[str, tuple[int, ...]], Any] = {}
    for index, info in metadata["storage_data"].items():
        offset = index.state.get("offset")
        places[index.state["fqn"], tuple(offset or ())] = info.state
    problems: list[str] = []
    for name, entry in metadata["state_dict_metadata"].items():
        if not (isinstance(entry, Placeholder) and isinstance(entry.state, dict)):
            continue
        if "chunks" not in entry.state:
            continue  # an object that is no tensor
        whole = _whole(folder, name, entry.state, places)
        if isinstance(whole, str):
            problems.append(f"{printable(name)}: {whole}")
        else:
            yield name, whole
    if problems:
        raise CheckpointError.listing(
            f"{folder}: these tensors cannot be read:", problems, _DAMAGED
        )


def _whole(
    folder: Path, name: str, state: Mapping[str, Any], places: Mapping[Any, Any]
) -> _Whole | str:
    """Return a tensor as the metadata describes it, or what is wrong with that."""
    shape, dtype = tuple(state["size"]), state["properties"].state[0]
    if not isinstance(dtype, torch.dtype):
        return "its dtype is not known"
    chunks = []
    for piece in state["chunks"]:
        offsets, sizes = tuple(piece.state["offsets"]), tuple(piece.state["sizes"])
        info = places.get((name, offsets), places.get((name, ())))
        if info is None:
            return "a chunk of it lies in no file"
        if info.get("transform_descriptors"):
            return "it is compressed: save it again without"
        relative = info["relative_path"]
        if not stays_inside(relative) or not (folder / relative).is_file():
            return f"there is no file {relative!r} in the folder"
        file, start, length = folder / relative, info["offset"], info["length"]
        if not 0 <= start <= start + length <= file.stat().st_size:
            return f"{relative} is cut short"
        if not _inside(offsets, sizes, shape):
            return f"a chunk of {sizes} at {offsets} lies outside its shape {shape}"
        chunks.append(_Chunk(offsets, sizes, file, start, length))
    if sum(math.prod(chunk.sizes) for chunk in chunks) != math.prod(shape):
        return f"its chunks do not fill its shape {shape}"
    if math.prod(shape) * dtype.itemsize > sum(chunk.length for chunk in chunks):
        return f"its chunks are too short for its shape {shape}"
    return _Whole(shape, dtype, tuple(chunks))


def _inside(offsets: tuple[int, ...], sizes: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    if not len(offsets) == len(sizes) == len(shape):
        return False
    spans = zip(offsets, sizes, shape, strict=True)
    return all(start >= 0 and size >= 0 and start + size <= n for start, size, n in spans)


def _nested(
    paths: Mapping[str, Any], wholes: Mapping[str, _Whole]
) -> tuple[dict[str, Any], dict[int, str]]:
    """Return what was saved, with tensors on the meta device, and whose name each of these has."""
    tree: dict[str, Any] = {}
    names: dict[int, str] = {}
    for name, whole in wholes.items():
        path = [str(part) for part in paths.get(name, (name,))]
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = torch.empty(whole.shape, dtype=whole.dtype, device="meta")
        names[id(node[path[-1]])] = name
    return tree, names


def _load(chunk: _Chunk, dtype: torch.dtype) -> Tensor:
    try:
        with chunk.file.open("rb") as file:
            file.seek(chunk.start)
            data = file.read(chunk.length)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            check_unpacked(archive, len(data), f"{chunk.file} at {chunk.start}")
        module = InertPickle(stored_sizes(io.BytesIO(data)))
        loaded = load_inert(io.BytesIO(data), module, mmap=False)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises nearly anything on damaged bytes
        raise CheckpointError(
            f"{chunk.file}: damaged at {chunk.start} ({type(error).__name__}). {_DAMAGED}"
        ) from error
    if not isinstance(loaded, torch.Tensor):
        raise CheckpointError(f"{chunk.file}: no tensor at {chunk.start}. {_DAMAGED}")
    if (tuple(loaded.shape), loaded.dtype) != (chunk.sizes, dtype):
        raise CheckpointError(
            f"{chunk.file}: expected {dtype} {chunk.sizes} at {chunk.start}, got {loaded.dtype} "
            f"{tuple(loaded.shape)}. {_DAMAGED}"
        )
    return tensor_from_torch(loaded)
