"""Handlers of padding and cropping."""

from __future__ import annotations

from collections.abc import Sequence

from mlxport.converter.graph.ir.code import OMIT
from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.sizes import Size, is_never_negative
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.ops.registry import op
from mlxport.layers.spatial import padding

# Mode of torch.nn.functional.pad -> that of mx.pad, which has no circular one.
MLX_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


@op("aten.pad.default")
def pad(
    cx: Context,
    x: Value,
    widths: Sequence[int | Size],
    mode: str = "constant",
    value: float | None = None,
) -> Value:
    """``torch.nn.functional.pad``: widths in pairs, the last axis first; negative ones crop."""
    if all(width == 0 for width in widths):
        return x
    pads: list[tuple[int | Size, int | Size]] = [(0, 0)] * x.ndim
    for i, pair in enumerate(zip(widths[::2], widths[1::2], strict=True)):
        pads[x.axis(-1 - i)] = pair
    fill = value if value else OMIT
    if mode in MLX_MODES and all(map(is_never_negative, widths)):
        return cx.emit(
            "mx.pad(x, pads, mode=mode, constant_values=fill)",
            order=x.order,
            x=x,
            pads=pads,
            mode=OMIT if mode == "constant" else MLX_MODES[mode],
            fill=fill,
        )
    named = OMIT if mode == "constant" else mode
    return cx.function(padding.pad, x, pads, order=x.order, mode=named, value=fill)


@op("aten.constant_pad_nd.default")
def constant_pad(cx: Context, x: Value, widths: Sequence[int], value: float = 0) -> Value:
    """``torch.nn.functional.pad`` with a constant."""
    return pad(cx, x, widths, "constant", value)


@op("aten.reflection_pad1d.default", "aten.reflection_pad2d.default")
@op("aten.reflection_pad3d.default")
def reflection_pad(cx: Context, x: Value, widths: Sequence[int]) -> Value:
    """Pad by mirroring, without the outermost element."""
    return pad(cx, x, widths, "reflect")


@op("aten.replication_pad1d.default", "aten.replication_pad2d.default")
@op("aten.replication_pad3d.default")
def replication_pad(cx: Context, x: Value, widths: Sequence[int]) -> Value:
    """Pad by repeating the outermost element."""
    return pad(cx, x, widths, "replicate")
