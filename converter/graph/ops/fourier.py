"""Handlers of Fourier transforms, and of complex numbers as pairs of real ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from mlxport.converter.graph.ir.code import OMIT, Omit
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.dtypes import emit
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.broadcast import align
from mlxport.converter.graph.ops.registry import op

# PyTorch's number -> the name of mx.fft that scales a forward transform so; inverses swap two.
_NORMS = {0: "backward", 1: "ortho", 2: "forward"}
_INVERSE = {"backward": "forward", "forward": "backward", "ortho": "ortho"}


def _norm(normalization: int, forward: bool) -> str | Omit:
    name = _NORMS[normalization]
    name = name if forward else _INVERSE[name]
    return OMIT if name == "backward" else name


def _axes(x: Value, dim: Sequence[int]) -> list[int]:
    return [x.axis(d) for d in dim]


@op("aten._fft_c2c.default")
def complex_transform(
    cx: Context, x: Value, dim: Sequence[int], normalization: int, forward: bool
) -> Value:
    """``torch.fft.fftn`` or ``ifftn`` of complex values."""
    if not dim:
        return x
    function = "mx.fft.fftn" if forward else "mx.fft.ifftn"
    norm = _norm(normalization, forward)
    return cx.call(function, x, axes=_axes(x, dim), norm=norm, order=x.order)


@op("aten._fft_r2c.default")
def real_transform(
    cx: Context, x: Value, dim: Sequence[int], normalization: int, onesided: bool
) -> Value:
    """``torch.fft.rfftn``, or ``fftn`` of real values."""
    function = "mx.fft.rfftn" if onesided else "mx.fft.fftn"
    norm = _norm(normalization, forward=True)
    return cx.call(function, x, axes=_axes(x, dim), norm=norm, order=x.order)


@op("aten._fft_c2r.default")
def transform_to_real(
    cx: Context, x: Value, dim: Sequence[int], normalization: int, last_dim_size: int
) -> Value:
    """``torch.fft.irfftn``."""
    sizes = [*(x.shape[d] for d in dim[:-1]), last_dim_size]
    norm = _norm(normalization, forward=False)
    return cx.call("mx.fft.irfftn", x, s=sizes, axes=_axes(x, dim), norm=norm, order=x.order)


# -- complex numbers -----------------------------------------------------------------------------


@op("aten.view_as_real.default")
def view_as_real(cx: Context, x: Value) -> Value:
    """Real and imaginary parts along a new last axis."""
    order = (*x.order, x.ndim)
    return cx.emit("mx.stack([mx.real(x), mx.imag(x)], axis=-1)", x=x, order=order)


@op("aten.view_as_complex.default", restrictions="float32")
def view_as_complex(cx: Context, x: Value) -> Value:
    """Pairs along the last axis as real and imaginary parts."""
    if x.dtype != torch.float32:
        raise cx.refuse(f"complex numbers of {x.dtype} parts: MLX has complex64 only")
    x = cx.last(x)
    return cx.emit("mx.squeeze(x.view(mx.complex64), -1)", x=x, order=x.order[:-1])


@op("aten.complex.default", restrictions="float32")
def complex_(cx: Context, real: Value, imaginary: Value) -> Value:
    """Complex numbers of two parts, broadcast together."""
    return _pair(cx, "mx.stack(mx.broadcast_arrays(x, y), axis=-1)", real, imaginary)


@op("aten.polar.default", restrictions="float32")
def polar(cx: Context, size: Value, angle: Value) -> Value:
    """Complex numbers of a size and an angle."""
    return _pair(cx, "mx.stack([x * mx.cos(y), x * mx.sin(y)], axis=-1)", size, angle)


def _pair(cx: Context, stacked: str, x: Value, y: Value) -> Value:
    if x.dtype != torch.float32 or y.dtype != torch.float32:
        raise cx.refuse(f"complex numbers of {x.dtype} parts: MLX has complex64 only")
    (x, y), order = align(cx, x, y)
    template = f"mx.squeeze({stacked}.view(mx.complex64), -1)"
    return cx.emit(template, x=x, y=y, order=order)


@op("aten._conj.default", "aten.conj_physical.default", "aten._conj_physical.default")
def conj(cx: Context, x: Value) -> Value:
    """The complex conjugate; what is real stays."""
    return cx.call("mx.conj", x, order=x.order) if x.dtype.is_complex else x


@op("aten.resolve_conj.default", "aten.resolve_neg.default")
def resolve(cx: Context, x: Value) -> Value:
    """The same values: MLX has no lazy conjugation or negation."""
    return x


@op("aten.angle.default")
def angle(cx: Context, x: Value) -> Value:
    """The angle of complex numbers; of real ones 0, or π where negative."""
    if x.dtype.is_complex:
        return cx.emit("mx.arctan2(mx.imag(x), mx.real(x))", x=x, order=x.order)
    if not x.dtype.is_floating_point:
        template, gives = "mx.where(x < 0, pi, 0.0)", torch.float32
    else:
        template, gives = "mx.where(mx.isnan(x), x, mx.where(x < 0, pi, 0.0))", x.dtype
        gives = torch.float32 if x.dtype != torch.float32 else gives
    return emit(cx, template, gives, x.order, x=x, pi=math.pi)
