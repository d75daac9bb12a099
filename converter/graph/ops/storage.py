"""Handlers of ops that depend on how PyTorch stores an array: strides, bits, copies of views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import mlx_dtype
from mlxport.converter.graph.ir.value import Scalar, Value
from mlxport.converter.graph.ops.arguments import node_of
from mlxport.converter.graph.ops.creation import filled
from mlxport.converter.graph.ops.registry import OPS, op
from mlxport.converter.graph.ops.slicing import slice_

CONTIGUOUS = "of contiguous arrays that are no views of others, with static sizes"


@op("aten.as_strided.default", "aten.as_strided_copy.default", restrictions=CONTIGUOUS)
def as_strided(
    cx: Context, x: Value, size: Sequence[Any], stride: Sequence[Any], storage_offset: Any = None
) -> Value:
    """The elements of an array's memory, read by given strides."""
    offset = storage_offset or 0
    if any(isinstance(n, Scalar) for n in (*size, *stride, offset)):
        raise cx.refuse("as_strided by sizes that are not known at capture")
    source: Any = node_of(cx).args[0]
    stored = source.meta["val"]
    if not stored.is_contiguous() or stored.storage_offset() or _is_part(stored):
        raise cx.refuse(
            "as_strided of an array that is a view of another or not contiguous: what it reads "
            "depends on PyTorch's memory. Call contiguous() first, or slice"
        )
    if 0 in size:
        return filled(cx, 0, size)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if last >= stored.numel():
        raise cx.refuse(f"as_strided reads element {last} of an array of {stored.numel()}")
    return cx.emit(
        "mx.as_strided(x, shape, strides, offset)",
        x=cx.logical(x),
        shape=tuple(size),
        strides=tuple(stride),
        offset=offset,
    )


def _is_part(stored: torch.Tensor) -> bool:
    """Whether an array is only a part of its storage."""
    return bool(stored.untyped_storage().nbytes() != stored.numel() * stored.element_size())


@op("aten.view.dtype", restrictions="of contiguous arrays; dtypes MLX has")
def view_dtype(cx: Context, x: Value, dtype: torch.dtype) -> Value:
    """The bits read as another dtype; the last axis grows or shrinks with its size."""
    mlx_dtype(x.dtype)
    if torch.bool in (dtype, x.dtype) or x.dtype.is_complex or dtype.is_complex:
        raise cx.refuse(f"the bits of {x.dtype} as {dtype}")
    if x.ndim == 0:
        return cx.emit("x.view(dtype)", x=x, dtype=mlx_dtype(dtype)) if dtype != x.dtype else x
    x = cx.last(x)
    return cx.emit("x.view(dtype)", order=x.order, x=x, dtype=mlx_dtype(dtype))


@op("aten.empty_strided.default", "aten.new_empty_strided.default")
def empty_strided(cx: Context, *_: Any, **__: Any) -> Value:
    """Zeros: what PyTorch leaves undefined has to be defined to be the same every time."""
    return filled(cx, 0, cx.shape)


@op("aten.narrow_copy.default")
def narrow_copy(cx: Context, x: Value, dim: int, start: Any, length: Any) -> Value:
    """``x[start:start + length]`` along an axis."""
    if isinstance(start, Scalar) or isinstance(length, Scalar):
        raise cx.refuse("narrow by sizes that are not known at capture")
    start = start % x.shape[dim] if start < 0 else start
    return slice_(cx, x, dim, start, start + length)


# A copy of a view is the view: MLX arrays are immutable.
for _name, _copy in {
    "aten.view.default": "aten.view_copy.default",
    "aten.permute.default": "aten.permute_copy.default",
    "aten.expand.default": "aten.expand_copy.default",
    "aten.squeeze.default": "aten.squeeze_copy.default",
    "aten.squeeze.dim": "aten.squeeze_copy.dim",
    "aten.squeeze.dims": "aten.squeeze_copy.dims",
    "aten.unsqueeze.default": "aten.unsqueeze_copy.default",
    "aten.transpose.int": "aten.transpose_copy.int",
    "aten.t.default": "aten.t_copy.default",
    "aten.alias.default": "aten.alias_copy.default",
    "aten.detach.default": "aten.detach_copy.default",
    "aten.view_as_real.default": "aten.view_as_real_copy.default",
    "aten.view_as_complex.default": "aten.view_as_complex_copy.default",
}.items():
    op(_copy, restrictions=OPS[_name].restrictions)(OPS[_name].handler)
