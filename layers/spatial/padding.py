"""Padding in all of PyTorch's modes, as a function and as layers over spatial axes, channels last.

``mx.pad`` has no circular mode and no negative widths, and accepts reflections beyond the size.
"""

from collections.abc import Sequence
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.windows.windows import slice_axis

PAD_MODES = ("constant", "reflect", "replicate", "circular")

Widths = Sequence[tuple[int, int]]


def pad(x: mx.array, pads: Widths, mode: str = "constant", value: float = 0.0) -> mx.array:
    """Pad or crop every axis at both ends; matches ``aten::pad``.

    Cropping comes before constant and circular padding and after reflecting and replicating, as in
    PyTorch.

    Args:
        x: of any shape and dtype.
        pads: ``(before, after)`` for every axis of ``x``, in the order of its axes; negative
            numbers crop.
        mode: ``"constant"``, ``"reflect"``, ``"replicate"`` or ``"circular"``.
        value: what constant padding is filled with, converted to the dtype of ``x``.

    Returns:
        An array in the dtype of ``x``, every axis longer by the sum of its pads.

    Raises:
        ValueError: ``pads`` or ``mode`` do not fit ``x``, more is cropped than there is, or more
            is reflected or wrapped than PyTorch allows; all axes are listed.
    """
    pads = [(before, after) for before, after in pads]
    _check(x, pads, mode)
    widths = [(max(before, 0), max(after, 0)) for before, after in pads]
    crops = [(min(before, 0), min(after, 0)) for before, after in pads]
    if mode == "constant":
        x = _cropped(x, crops)
        if any(map(any, widths)):
            x = mx.pad(x, widths, constant_values=mx.array(value).astype(x.dtype))
        return x
    if mode == "circular":
        x = _cropped(x, crops)
        for axis, width in enumerate(widths):
            x = _wrapped(x, axis, *width)
        return x
    if any(map(any, widths)):
        x = mx.pad(x, widths, mode="reflect" if mode == "reflect" else "edge")
    return _cropped(x, crops)


def _cropped(x: mx.array, crops: Widths) -> mx.array:
    for axis, (before, after) in enumerate(crops):
        if before or after:
            x = slice_axis(x, axis, -before, x.shape[axis] + after)
    return x


def _wrapped(x: mx.array, axis: int, before: int, after: int) -> mx.array:
    size = x.shape[axis]
    parts = [slice_axis(x, axis, size - before, size)] if before else []
    parts += [x]
    parts += [slice_axis(x, axis, 0, after)] if after else []
    return mx.concatenate(parts, axis=axis) if len(parts) > 1 else x


def _check(x: mx.array, pads: Widths, mode: str) -> None:
    if mode not in PAD_MODES:
        raise ValueError(f"[pad] 'mode' must be one of {', '.join(PAD_MODES)} but got {mode!r}.")
    if len(pads) != x.ndim:
        raise ValueError(
            f"[pad] 'pads' must have {x.ndim} pairs for an input of shape {x.shape} but got "
            f"{list(pads)}."
        )
    faults = [
        f"axis {axis} of size {size} by {pair}: {fault}"
        for axis, (size, pair) in enumerate(zip(x.shape, pads, strict=True))
        if (fault := _fault(size, pair, mode))
    ]
    if faults:
        raise ValueError(
            f"[pad] cannot pad an input of shape {x.shape} ({mode}), {'; '.join(faults)}."
        )


def _fault(size: int, pair: tuple[int, int], mode: str) -> str | None:
    """Return why an axis cannot be padded by ``pair``, or None."""
    if pair == (0, 0):
        return None
    least, most = min(pair), max(pair)
    if mode in ("reflect", "replicate"):
        if size + sum(pair) < 1:
            return "nothing would be left"
        if size < 1:
            return "there is nothing to pad with"
        return (
            "reflection needs pads below the size" if mode == "reflect" and most >= size else None
        )
    left = size + sum(min(end, 0) for end in pair)
    if left < 0:
        return "more is cropped than there is"
    # Beyond that PyTorch raises or, after a crop, returns uninitialised memory.
    if mode == "circular" and most > left:
        return (
            f"only {left} elements can be wrapped around" if least < 0 else "it wraps around twice"
        )
    return None


class _Pad(nn.Module):
    """Base of the padding layers: pads the last ``rank`` axes before the channels.

    Args:
        padding: one number, or two per spatial axis, ``(before, after)``, the last axis first, as
            in PyTorch.

    Raises:
        ValueError: another number of widths; from the call: as :func:`pad`, or ``x`` has another
            number of axes.
    """

    rank: ClassVar[int]
    mode: ClassVar[str]

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        widths = tuple(padding) if isinstance(padding, Sequence) else (padding,) * 2 * self.rank
        if len(widths) != 2 * self.rank:
            raise ValueError(
                f"[{type(self).__name__}] 'padding' must be one number or {2 * self.rank}, "
                f"(before, after) of the last spatial axis first, but got {padding}."
            )
        self.padding = widths

    def _extra_repr(self) -> str:
        return f"padding={self.padding}"

    def _pads(self, x: mx.array) -> Widths:
        pairs = list(zip(self.padding[::2], self.padding[1::2], strict=True))
        leading = x.ndim - 1 - self.rank
        if leading < 0 or (leading > 1 and self.mode != "constant"):
            allowed = f"{self.rank + 1} or {'more' if self.mode == 'constant' else self.rank + 2}"
            raise ValueError(
                f"[{type(self).__name__}] input must have {allowed} dimensions, the channels last, "
                f"but got shape {x.shape}."
            )
        return [*[(0, 0)] * leading, *reversed(pairs), (0, 0)]

    def __call__(self, x: mx.array) -> mx.array:
        return pad(x, self._pads(x), self.mode)


class _ConstantPad(_Pad):
    mode = "constant"

    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value = value

    def _extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"

    def __call__(self, x: mx.array) -> mx.array:
        return pad(x, self._pads(x), value=self.value)


class ConstantPad1d(_ConstantPad):
    """Pads ``(N, L, C)`` or ``(L, C)`` by a value, as ``torch.nn.ConstantPad1d``."""

    rank = 1


class ConstantPad2d(_ConstantPad):
    """Pads ``(N, H, W, C)`` or ``(H, W, C)`` by a value, as ``torch.nn.ConstantPad2d``."""

    rank = 2


class ConstantPad3d(_ConstantPad):
    """Pads ``(N, D, H, W, C)`` or ``(D, H, W, C)`` by a value, as ``torch.nn.ConstantPad3d``."""

    rank = 3


class ZeroPad1d(_Pad):
    """Pads ``(N, L, C)`` or ``(L, C)`` by zeros, as ``torch.nn.ZeroPad1d``."""

    rank = 1
    mode = "constant"


class ZeroPad2d(_Pad):
    """Pads ``(N, H, W, C)`` or ``(H, W, C)`` by zeros, as ``torch.nn.ZeroPad2d``."""

    rank = 2
    mode = "constant"


class ZeroPad3d(_Pad):
    """Pads ``(N, D, H, W, C)`` or ``(D, H, W, C)`` by zeros, as ``torch.nn.ZeroPad3d``."""

    rank = 3
    mode = "constant"


class ReflectionPad1d(_Pad):
    """Pads ``(N, L, C)`` or ``(L, C)`` mirrored, as ``torch.nn.ReflectionPad1d``."""

    rank = 1
    mode = "reflect"


class ReflectionPad2d(_Pad):
    """Pads ``(N, H, W, C)`` or ``(H, W, C)`` mirrored, as ``torch.nn.ReflectionPad2d``."""

    rank = 2
    mode = "reflect"


class ReflectionPad3d(_Pad):
    """Pads ``(N, D, H, W, C)`` or ``(D, H, W, C)`` mirrored, as ``torch.nn.ReflectionPad3d``."""

    rank = 3
    mode = "reflect"


class ReplicationPad1d(_Pad):
    """Pads ``(N, L, C)`` or ``(L, C)`` by edges, as ``torch.nn.ReplicationPad1d``."""

    rank = 1
    mode = "replicate"


class ReplicationPad2d(_Pad):
    """Pads ``(N, H, W, C)`` or ``(H, W, C)`` by edges, as ``torch.nn.ReplicationPad2d``."""

    rank = 2
    mode = "replicate"


class ReplicationPad3d(_Pad):
    """Pads ``(N, D, H, W, C)`` or ``(D, H, W, C)`` by edges, as ``torch.nn.ReplicationPad3d``."""

    rank = 3
    mode = "replicate"


class CircularPad1d(_Pad):
    """Pads ``(N, L, C)`` or ``(L, C)`` by wrapping, as ``torch.nn.CircularPad1d``."""

    rank = 1
    mode = "circular"


class CircularPad2d(_Pad):
    """Pads ``(N, H, W, C)`` or ``(H, W, C)`` by wrapping, as ``torch.nn.CircularPad2d``."""

    rank = 2
    mode = "circular"


class CircularPad3d(_Pad):
    """Pads ``(N, D, H, W, C)`` or ``(D, H, W, C)`` by wrapping, as ``torch.nn.CircularPad3d``."""

    rank = 3
    mode = "circular"
