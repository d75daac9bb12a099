"""Rules for Conv1d to Conv3d and ConvTranspose1d to ConvTranspose3d."""

from __future__ import annotations

from typing import Any

import mlx.nn as nn
import torch

from mlxport import layers
from mlxport.converter.plan.steps import conv_transpose_weight, conv_weight
from mlxport.converter.rules.entries import entry_of, unchanged_entries
from mlxport.converter.rules.registry import LayerSpec, Refusal, changed, compacted, rule
from mlxport.layers.conv.products import products_may_serve

_DEFAULTS = {
    "stride": 1,
    "padding": 0,
    "output_padding": 0,
    "dilation": 1,
    "groups": 1,
    "bias": True,
    "padding_mode": "zeros",
}
_NATIVE = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_OURS = (layers.Conv1d, layers.Conv2d, layers.Conv3d)
_TRANSPOSED = (layers.ConvTranspose1d, layers.ConvTranspose2d, layers.ConvTranspose3d)


@rule(
    torch.nn.Conv1d,
    ops=["aten.conv1d.default", "aten.conv1d.padding", "aten.pad.default"],
    target="mlx.nn.Conv1d, layers.Conv1d",
)
@rule(
    torch.nn.Conv2d,
    ops=["aten.conv2d.default", "aten.conv2d.padding", "aten.pad.default"],
    target="mlx.nn.Conv2d, layers.Conv2d",
)
@rule(
    torch.nn.Conv3d,
    ops=["aten.conv3d.default", "aten.conv3d.padding", "aten.pad.default"],
    target="mlx.nn.Conv3d, layers.Conv3d",
)
def convolution(module: Any) -> LayerSpec:
    """MLX's layer where it has the configuration and is fast, otherwise ours of the same name."""
    _check_channels(module)
    rank = len(module.kernel_size)
    padding = _plain_padding(module)
    mode = module.padding_mode if padding != 0 else "zeros"
    native = mode == "zeros" and not isinstance(padding, str) and (rank < 3 or module.groups == 1)
    native = native and not products_may_serve(module.kernel_size, module.stride, module.groups)
    return LayerSpec(
        (_NATIVE if native else _OURS)[rank - 1],
        (module.in_channels, module.out_channels, compacted(module.kernel_size)),
        _arguments(module, padding=padding, padding_mode=mode),
        (entry_of("weight", *conv_weight(rank)), *unchanged_entries(module, "bias")),
        rank=rank,
        standalone=_OURS[rank - 1],
    )


@rule(
    torch.nn.ConvTranspose1d, ops=["aten.conv_transpose1d.default"], target="layers.ConvTranspose1d"
)
@rule(
    torch.nn.ConvTranspose2d, ops=["aten.conv_transpose2d.input"], target="layers.ConvTranspose2d"
)
@rule(
    torch.nn.ConvTranspose3d, ops=["aten.conv_transpose3d.input"], target="layers.ConvTranspose3d"
)
def transposed_convolution(module: Any) -> LayerSpec:
    """Our layer of the same name: MLX's is wrong in some configurations and slow in most."""
    _check_channels(module)
    rank = len(module.kernel_size)
    if not all(isinstance(size, int) for size in module.padding):
        raise Refusal(f"padding={module.padding!r}, which PyTorch constructs but cannot run")
    return LayerSpec(
        _TRANSPOSED[rank - 1],
        (module.in_channels, module.out_channels, compacted(module.kernel_size)),
        _arguments(module, padding=module.padding, output_padding=module.output_padding),
        (
            entry_of("weight", *conv_transpose_weight(module.groups)),
            *unchanged_entries(module, "bias"),
        ),
        rank=rank,
    )


def _check_channels(module: Any) -> None:
    sizes = {name: getattr(module, name) for name in ("in_channels", "out_channels")}
    empty = [f"{name}={size}" for name, size in sizes.items() if size == 0]
    if 0 in module.kernel_size:
        empty.append(f"kernel_size={module.kernel_size}")
    if empty:
        raise Refusal(f"{', '.join(empty)}: MLX cannot convolve nothing")


def _plain_padding(module: Any) -> Any:
    """Return the padding as numbers if possible: ``"same"`` is half of an even number of zeros."""
    if module.padding == "valid":
        return 0
    if module.padding != "same":
        return compacted(module.padding)
    total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    return "same" if any(n % 2 for n in total) else compacted([n // 2 for n in total])


def _arguments(module: Any, **given: Any) -> dict[str, Any]:
    given |= {name: getattr(module, name) for name in ("stride", "dilation", "groups")}
    given["bias"] = module.bias is not None
    # in the order PyTorch documents them
    return changed(_DEFAULTS, **{name: given[name] for name in _DEFAULTS if name in given})
