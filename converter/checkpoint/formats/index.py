"""Read sharded checkpoints: an index that says which file of the folder holds which tensor."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from mlxport.converter.checkpoint.checkpoint import Checkpoint, printable
from mlxport.converter.checkpoint.formats.safetensors_header import MAX_HEADER
from mlxport.converter.errors import CheckpointError
from mlxport.converter.plan.tensor import Tensor


class _Joined(Mapping[str, Tensor]):
    """Name -> tensor across shards, in the order of the index."""

    def __init__(self, weight_map: Mapping[str, str], shards: Mapping[str, Checkpoint]) -> None:
        self._weight_map = weight_map
        self._shards = shards

    def __getitem__(self, name: str) -> Tensor:
        return self._shards[self._weight_map[name]].tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weight_map)

    def __len__(self) -> int:
        return len(self._weight_map)


def open_index(path: Path, open_shard: Callable[[Path], Checkpoint]) -> Checkpoint:
    """Open the checkpoint that a ``*.index.json`` describes.

    Args:
        path: the index, ``{"weight_map": {name: file}}``.
        open_shard: opens one file of it.

    Raises:
        CheckpointError: the index is not one, a shard's name leaves the folder, shards are missing
            or do not hold what the index says; all problems of a kind are listed.
    """
    weight_map = _weight_map(path)
    names = sorted(set(weight_map.values()))
    shards = {name: open_shard(path.parent / name) for name in _present(path, names)}
    _check_contents(path, weight_map, shards)
    storage: dict[str, Hashable] = {
        name: (shard, shards[shard].storage[name]) for name, shard in weight_map.items()
    }
    return Checkpoint(
        path,
        _Joined(weight_map, shards),
        storage,
        notes=(*_surplus(weight_map, shards), *(note for s in shards.values() for note in s.notes)),
        files=(path, *(path.parent / name for name in names)),
        mapped=tuple(addresses for shard in shards.values() for addresses in shard.mapped),
    )


def _weight_map(path: Path) -> dict[str, str]:
    try:
        if path.stat().st_size > MAX_HEADER:
            raise CheckpointError(f"{path}: larger than any index: {path.stat().st_size} bytes")
        index = json.loads(path.read_bytes().decode(), object_pairs_hook=_unique)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a valid index: {error}") from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{path}: not the index of a sharded checkpoint: it has no 'weight_map'. "
            "Name the checkpoint itself."
        )
    if problems := [
        f"{printable(name)}: {shard!r}"
        for name, shard in weight_map.items()
        if not stays_inside(shard)
    ]:
        raise CheckpointError.listing(
            f"{path}: these tensors are said to lie outside the folder:",
            problems,
            "Nothing outside the folder is read. Put the shards beside the index.",
        )
    return weight_map


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a name stands in it twice")
    return result


def stays_inside(shard: Any) -> bool:
    """Tell whether a file's name, as a checkpoint gives it, cannot leave the folder."""
    if not isinstance(shard, str) or not shard.isprintable() or "\\" in shard:
        return False
    posix, windows = PurePosixPath(shard), PureWindowsPath(shard)
    return bool(posix.name) and ".." not in posix.parts and not (windows.anchor or posix.anchor)


def _present(path: Path, names: list[str]) -> list[str]:
    if missing := [name for name in names if not (path.parent / name).is_file()]:
        raise CheckpointError.listing(
            f"{path}: {len(missing)} of {len(names)} shards are missing from {path.parent}:",
            missing,
            "Fetch them again; nothing was written.",
        )
    return names


def _check_contents(
    path: Path, weight_map: Mapping[str, str], shards: Mapping[str, Checkpoint]
) -> None:
    if problems := [
        f"{printable(name)} is not in {shard}"
        for name, shard in weight_map.items()
        if name not in shards[shard].tensors
    ]:
        raise CheckpointError.listing(
            f"{path}: the shards do not hold what the index says:",
            problems,
            "Index and shards belong to different checkpoints: fetch all of them again.",
        )


def _surplus(weight_map: Mapping[str, str], shards: Mapping[str, Checkpoint]) -> Iterator[str]:
    for shard, checkpoint in shards.items():
        surplus = [name for name in checkpoint.tensors if weight_map.get(name) != shard]
        if surplus:
            names = ", ".join(map(printable, surplus))
            yield f"{shard}: left out, since the index does not place them there: {names}"
