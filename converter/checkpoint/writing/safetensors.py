"""Write safetensors files: layout from the shapes first, then one tensor at a time.

The bytes are always those of the C-contiguous array, whatever the strides of what is given:
``safetensors.numpy`` 0.8.0 writes the raw buffer of a transposed array under its logical shape.
Needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from mlxport.converter.checkpoint.checkpoint import printable
from mlxport.converter.checkpoint.formats.safetensors_header import Header, encode, lay_out
from mlxport.converter.checkpoint.writing.atomic import atomic_file
from mlxport.converter.checkpoint.writing.blocks import blocks
from mlxport.converter.errors import CheckpointError
from mlxport.converter.plan.tensor import Tensor, TensorSpec

# What mlx.core.save_safetensors and the ecosystem's loaders expect of MLX weights.
MLX_METADATA: Mapping[str, str] = {"format": "mlx"}


def write_safetensors(
    path: Path,
    tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]],
    metadata: Mapping[str, str] = MLX_METADATA,
    *,
    specs: Mapping[str, TensorSpec] | None = None,
    check: Callable[[], None] | None = None,
) -> None:
    """Write tensors to a file that appears whole or not at all.

    Args:
        path: the file; one that stands there is replaced in one step.
        tensors: the tensors, by name or as pairs. With ``specs`` they are taken one by one and
            none is kept; without, pairs are gathered first.
        metadata: the header's ``__metadata__``.
        specs: name -> dtype and shape of every tensor to come.
        check: called as by `blocks` while a tensor is read that lies in a mapped file.

    Raises:
        CheckpointError: the file cannot be written, a name stands twice, or the tensors are not
            those ``specs`` announced. What stood at ``path`` stays.
    """
    if specs is None:
        tensors = tensors if isinstance(tensors, Mapping) else _gathered(tensors)
        specs = {name: TensorSpec.of(tensor) for name, tensor in tensors.items()}
    pairs = tensors.items() if isinstance(tensors, Mapping) else tensors
    header = lay_out(specs, metadata)
    try:
        with atomic_file(Path(path)) as file:
            _write(file, header, pairs, check)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error


def _gathered(pairs: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    gathered: dict[str, Tensor] = {}
    for name, tensor in pairs:
        if name in gathered:
            raise CheckpointError(f"{printable(name)}: there are two tensors of this name")
        gathered[name] = tensor
    return gathered


def _write(
    file: BinaryIO,
    header: Header,
    pairs: Iterable[tuple[str, Tensor]],
    check: Callable[[], None] | None,
) -> None:
    start = place = file.write(encode(header))
    waiting = dict(header.specs)
    for name, tensor in pairs:
        expected, got = waiting.pop(name, None), TensorSpec.of(tensor)
        if expected != got:
            raise CheckpointError(
                f"{printable(name)}: expected {expected or 'no such tensor, or not twice'}, "
                f"got {got}; nothing was written"
            )
        if place != start + header.offsets[name]:  # to seek writes what is buffered
            place = file.seek(start + header.offsets[name])
        for block in blocks(tensor.bits, check=check):
            place += file.write(block.data)
    if waiting:
        raise CheckpointError.listing(
            "these tensors were announced and did not come; nothing was written:",
            map(printable, waiting),
        )
