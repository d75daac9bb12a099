"""Convolutions in 1, 2 and 3 dimensions that match ``torch.nn.Conv{1,2,3}d`` in every setting.

``mlx.nn.Conv{1,2,3}d`` take a batch, pad with the same number of zeros at both ends, and have
groups in 1-D and 2-D. Here is what they lack (MLX 0.32.4): groups in 3-D, padding ``"same"`` and
``"valid"``, the other padding modes, input without a batch, and errors where MLX divides by zero
channels. On the CPU they unfold a whole volume in memory, every tap of every position; where that
is large, volumes are convolved by matrix products of slabs here.
"""

import mlx.core as mx

from mlxport.layers.conv.products import convolve_by_products, products_serve
from mlxport.layers.windows.geometry import (
    IntsPerAxis,
    check_divisible,
    check_hyperparameters,
    check_operands,
    ints_per_axis,
)


def conv(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None = None,
    stride: IntsPerAxis = 1,
    padding: str | IntsPerAxis = 0,
    dilation: IntsPerAxis = 1,
    groups: int = 1,
) -> mx.array:
    """Convolve over 1 to 3 spatial axes, channels last.

    Matches ``torch.nn.functional.conv{1,2,3}d``, in its order of arguments; the rank is that of
    the weight.

    Args:
        x: ``(N, *S, in)`` or, unbatched, ``(*S, in)``. ``N`` may be 0.
        weight: ``(out, *k, in/groups)``, of the input's dtype.
        bias: ``(out,)``, of the input's dtype.
        stride: One integer, or one per axis.
        padding: Zeros at both ends, one integer or one per axis; ``"valid"`` for none, ``"same"``
            for an output of the input's size.
        dilation: Spacing of the kernel's taps.
        groups: The number of groups of channels: outputs depend on the inputs of their group.

    Returns:
        ``(N, *O, out)`` of the input's dtype, without ``N`` where the input has none.

    Raises:
        ValueError: Where PyTorch refuses: dtypes that differ or are not floating, dimensions or
            channels that do not go together, arguments out of range, ``"same"`` with a stride,
            a kernel that extends beyond the padded input.
    """
    return convolve("conv", x, weight, bias, stride, padding, dilation, groups)


def convolve(
    layer: str,
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None,
    stride: IntsPerAxis,
    padding: str | IntsPerAxis,
    dilation: IntsPerAxis,
    groups: int,
) -> mx.array:
    """Compute :func:`conv`, with ``layer`` as the name in errors."""
    rank = weight.ndim - 2
    if rank not in (1, 2, 3):
        raise ValueError(
            f"[{layer}] weight must have 3, 4 or 5 dimensions (out, *k, in/groups) "
            f"but got shape {weight.shape}."
        )
    strides = ints_per_axis(stride, rank, "stride", layer)
    dilations = ints_per_axis(dilation, rank, "dilation", layer)
    check_hyperparameters(
        layer, {"stride": strides, "dilation": dilations, "groups": groups}, non_negative={}
    )
    kernel = weight.shape[1:-1]
    low, high = padding_widths(layer, padding, kernel, strides, dilations)
    check_divisible(layer, groups, {"out_channels": weight.shape[0]})
    check_operands(layer, x, weight, bias, groups)
    _check_reach(layer, x.shape[-1 - rank : -1], kernel, low, high, dilations)
    batch = x if x.ndim == rank + 2 else x[None]
    if products_serve(batch, weight, strides, low, high, dilations, groups):
        y = convolve_by_products(batch, weight, bias, low, high, dilations)
    else:
        y = _grouped(batch, weight, strides, low, high, dilations, groups)
        y = y if bias is None else y + bias
    return y if x.ndim == rank + 2 else y.squeeze(0)


def padding_widths(
    layer: str,
    padding: str | IntsPerAxis,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return how many zeros go before and after every spatial axis.

    Raises:
        ValueError: ``padding`` is negative, an unknown name, or ``"same"`` with a stride.
    """
    if not isinstance(padding, str):
        sizes = ints_per_axis(padding, len(kernel), "padding", layer)
        check_hyperparameters(layer, positive={}, non_negative={"padding": sizes})
        return sizes, sizes
    if padding not in ("same", "valid"):
        raise ValueError(f"[{layer}] 'padding' must be 'same' or 'valid' but got {padding!r}.")
    if padding == "same" and max(strides) > 1:
        raise ValueError(f"[{layer}] padding 'same' needs stride 1 but got {strides}.")
    if padding == "valid":
        return (0,) * len(kernel), (0,) * len(kernel)
    total = [step * (size - 1) for step, size in zip(dilations, kernel, strict=True)]
    return tuple(n // 2 for n in total), tuple(n - n // 2 for n in total)


def _check_reach(
    layer: str,
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    low: tuple[int, ...],
    high: tuple[int, ...],
    dilations: tuple[int, ...],
) -> None:
    padded = tuple(sum(axis) for axis in zip(low, sizes, high, strict=True))
    reach = tuple(step * (size - 1) + 1 for step, size in zip(dilations, kernel, strict=True))
    if any(n < need for n, need in zip(padded, reach, strict=True)):
        raise ValueError(
            f"[{layer}] the kernel reaches over {reach} but the padded input has only {padded}."
        )


def _grouped(
    x: mx.array,
    weight: mx.array,
    strides: tuple[int, ...],
    low: tuple[int, ...],
    high: tuple[int, ...],
    dilations: tuple[int, ...],
    groups: int,
) -> mx.array:
    if groups == 1 or x.ndim < 5:
        return mx.conv_general(x, weight, strides, (low, high), dilations, groups=groups)
    # MLX has no groups in 3-D: one convolution per group or per depth of the kernel, if fewer.
    if groups <= weight.shape[1]:
        parts = zip(mx.split(x, groups, axis=-1), mx.split(weight, groups), strict=True)
        results = [mx.conv_general(*part, strides, (low, high), dilations) for part in parts]
        return mx.concatenate(results, axis=-1)
    return _by_slices(x, weight, strides, low, high, dilations, groups)


def _by_slices(
    x: mx.array,
    weight: mx.array,
    strides: tuple[int, ...],
    low: tuple[int, ...],
    high: tuple[int, ...],
    dilations: tuple[int, ...],
    groups: int,
) -> mx.array:
    """Compute a grouped 3-D convolution as a sum of 2-D ones, one per depth of the kernel."""
    x = mx.pad(x, [(0, 0), (low[0], high[0]), (0, 0), (0, 0), (0, 0)])
    batch, size, *plane = x.shape
    reach = dilations[0] * (weight.shape[1] - 1)
    depth = (size - reach - 1) // strides[0] + 1
    y = mx.array(0, x.dtype)
    for tap in range(weight.shape[1]):
        start = tap * dilations[0]
        frames = x[:, start : size - reach + start : strides[0]].reshape(batch * depth, *plane)
        padding = (low[1:], high[1:])
        y = y + mx.conv_general(
            frames, weight[:, tap], strides[1:], padding, dilations[1:], groups=groups
        )
    return y.reshape(batch, depth, *y.shape[1:])
