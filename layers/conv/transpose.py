"""Transposed convolutions in 1, 2 and 3 dimensions that match ``torch.nn.ConvTranspose{1,2,3}d``.

``mlx.nn.ConvTranspose{1,2,3}d`` (MLX 0.32.4) are not enough:

* where ``stride > 1`` and ``padding > dilation * (kernel_size - 1)`` the output has the wrong
  shape, without an error;
* where ``stride > 1`` and ``output_padding > padding`` the gradient of the input is too short: it
  raises further up, or broadcasts into a wrong gradient without an error;
* the layers take no groups, and in 3-D the operation has none;
* zeros are inserted between the inputs, so at stride 2 in 3-D seven eighths of what is moved
  and multiplied is zero.
"""

import math
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx import nn

from mlxport.layers.conv.transpose_phases import compute_transposed
from mlxport.layers.windows.geometry import (
    IntsPerAxis,
    check_divisible,
    check_hyperparameters,
    check_operands,
    ints_per_axis,
    minimal_transposed_sizes,
    transposed_axes,
)


def conv_transpose(
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None = None,
    stride: IntsPerAxis = 1,
    padding: IntsPerAxis = 0,
    output_padding: IntsPerAxis = 0,
    groups: int = 1,
    dilation: IntsPerAxis = 1,
) -> mx.array:
    """Compute a transposed convolution over 1 to 3 spatial axes, channels last.

    Matches ``torch.nn.functional.conv_transpose{1,2,3}d``, in its order of arguments; the rank is
    that of the weight.

    Args:
        x: ``(N, *S, in)`` or, unbatched, ``(*S, in)``. ``N`` may be 0.
        weight: ``(out, *k, in/groups)``, of the input's dtype.
        bias: ``(out,)``, of the input's dtype.
        stride: One integer, or one per axis.
        padding: How much is cropped from both ends; it may exceed the extent of the kernel.
        output_padding: Added to the end of the output; less than ``max(stride, dilation)``.
        groups: The number of groups of channels: outputs depend on the inputs of their group.
        dilation: Spacing of the kernel's taps.

    Returns:
        ``(N, *O, out)`` of the input's dtype, without ``N`` where the input has none, where
        ``O = (S - 1) * stride - 2 * padding + dilation * (k - 1) + output_padding + 1``.

    Raises:
        ValueError: Where PyTorch refuses: dtypes that differ or are not floating, dimensions or
            channels that do not go together, arguments out of range, an empty axis, an output
            size below 1. Also where only some of PyTorch's kernels accept the arguments (int64
            and complex inputs, a bias of another dtype, an output size of 0, a dilation of 0), or
            all do but for an empty batch alone (an output size of 0, a too large
            ``output_padding``).
    """
    sizes = (stride, padding, output_padding)
    return _conv_transpose("conv_transpose", x, weight, bias, *sizes, groups, dilation)


def _conv_transpose(
    layer: str,
    x: mx.array,
    weight: mx.array,
    bias: mx.array | None,
    stride: IntsPerAxis,
    padding: IntsPerAxis,
    output_padding: IntsPerAxis,
    groups: int,
    dilation: IntsPerAxis,
) -> mx.array:
    rank = weight.ndim - 2
    if rank not in (1, 2, 3):
        raise ValueError(
            f"[{layer}] weight must have 3, 4 or 5 dimensions (out, *k, in/groups) "
            f"but got shape {weight.shape}."
        )
    strides = ints_per_axis(stride, rank, "stride", layer)
    paddings = ints_per_axis(padding, rank, "padding", layer)
    output_paddings = ints_per_axis(output_padding, rank, "output_padding", layer)
    dilations = ints_per_axis(dilation, rank, "dilation", layer)
    check_hyperparameters(
        layer,
        positive={"stride": strides, "dilation": dilations, "groups": groups},
        non_negative={"padding": paddings, "output_padding": output_paddings},
    )
    check_divisible(layer, groups, {"out_channels": weight.shape[0]})
    check_operands(layer, x, weight, bias, groups)
    sizes, kernels = x.shape[-1 - rank : -1], weight.shape[1:-1]
    axes = transposed_axes(layer, sizes, kernels, strides, paddings, output_paddings, dilations)
    if x.ndim == rank + 1:
        return compute_transposed(x[None], weight, bias, axes, groups).squeeze(0)
    return compute_transposed(x, weight, bias, axes, groups)


class _ConvTransposeNd(nn.Module):
    """Base of the three ranks; each subclass sets ``_rank`` and inherits MLX's layer of it."""

    _rank: int
    weight: mx.array
    bias: mx.array

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntsPerAxis,
        stride: IntsPerAxis = 1,
        padding: IntsPerAxis = 0,
        output_padding: IntsPerAxis = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: IntsPerAxis = 1,
        padding_mode: str = "zeros",
    ):
        layer, rank = type(self).__name__, self._rank
        if padding_mode != "zeros":
            raise ValueError(f"[{layer}] 'padding_mode' must be 'zeros' but got {padding_mode!r}.")
        # PyTorch builds a layer that cannot run from a kernel of one size for several axes.
        kernel = ints_per_axis(kernel_size, rank, "kernel_size", layer, broadcast=False)
        sizes = {
            "stride": ints_per_axis(stride, rank, "stride", layer),
            "padding": ints_per_axis(padding, rank, "padding", layer),
            "dilation": ints_per_axis(dilation, rank, "dilation", layer),
        }
        channels = {"in_channels": in_channels, "out_channels": out_channels}
        counts = {"groups": groups, **channels}
        taps = {"kernel_size": kernel, "stride": sizes["stride"], "dilation": sizes["dilation"]}
        check_hyperparameters(
            layer, positive={**counts, **taps}, non_negative={"padding": sizes["padding"]}
        )
        check_divisible(layer, groups, channels)
        # The call checks its upper limit: an `output_size` given there overrides it.
        sizes["output_padding"] = ints_per_axis(output_padding, rank, "output_padding", layer)
        sizes["kernel_size"] = kernel
        native: dict[str, Any] = {
            name: size[0] if rank == 1 else size for name, size in sizes.items()
        }
        super().__init__(  # type: ignore[call-arg]  # MLX's layer of the rank
            in_channels // groups, out_channels, bias=bias, **native
        )
        self.groups = groups
        self._reset_parameters(math.prod(kernel))

    def _reset_parameters(self, taps: int) -> None:
        # The bound of kaiming_uniform_(a=sqrt(5)); torch takes out/groups for the fan-in here.
        bound = 1 / math.sqrt(self.weight.shape[0] // self.groups * taps)
        self.weight = mx.random.uniform(-bound, bound, self.weight.shape)
        if "bias" in self:
            self.bias = mx.random.uniform(-bound, bound, self.bias.shape)

    def _extra_repr(self) -> str:
        kernel = self.weight.shape[1:-1]
        return (
            f"{self.weight.shape[-1] * self.groups}, {self.weight.shape[0]}, "
            f"kernel_size={kernel[0] if self._rank == 1 else kernel}, stride={self.stride}, "
            f"padding={self.padding}, output_padding={self.output_padding}, "
            f"groups={self.groups}, dilation={self.dilation}, bias={'bias' in self}"
        )

    def __call__(self, x: mx.array, output_size: Sequence[int] | None = None) -> mx.array:
        """Apply the layer to ``(N, *S, in)`` or ``(*S, in)``.

        Args:
            x: The input, of the weight's dtype.
            output_size: The spatial size of the output, or its whole shape, channels last. It
                replaces ``output_padding``.

        Raises:
            ValueError: If no output padding below the stride gives ``output_size``, or as
                :func:`conv_transpose` raises.
        """
        layer = type(self).__name__
        output_padding = self.output_padding
        if output_size is not None:
            output_padding = self._padding_for(x, tuple(output_size))
        return _conv_transpose(
            layer,
            x,
            self.weight,
            self.bias if "bias" in self else None,
            self.stride,
            self.padding,
            output_padding,
            self.groups,
            self.dilation,
        )

    def _padding_for(self, x: mx.array, output_size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the output padding that gives ``output_size``, as torch's ``_output_padding``."""
        layer, rank = type(self).__name__, self._rank
        if x.ndim not in (rank + 1, rank + 2) or len(output_size) not in (rank, x.ndim):
            raise ValueError(
                f"[{layer}] 'output_size' must have {rank} or {x.ndim} elements "
                f"for an input of shape {x.shape} but got {output_size}."
            )
        if len(output_size) == x.ndim:
            output_size = output_size[-1 - rank : -1]
        sizes, kernel = x.shape[-1 - rank : -1], self.weight.shape[1:-1]
        stride = ints_per_axis(self.stride, rank, "stride", layer)
        padding = ints_per_axis(self.padding, rank, "padding", layer)
        dilation = ints_per_axis(self.dilation, rank, "dilation", layer)
        low = minimal_transposed_sizes(sizes, kernel, stride, padding, dilation)
        high = tuple(size + step - 1 for size, step in zip(low, stride, strict=True))
        extra = tuple(size - least for size, least in zip(output_size, low, strict=True))
        if any(not 0 <= more < step for more, step in zip(extra, stride, strict=True)):
            raise ValueError(
                f"[{layer}] 'output_size' must be from {low} to {high} "
                f"for an input of shape {x.shape} but got {output_size}."
            )
        return extra


class ConvTranspose1d(_ConvTransposeNd, nn.ConvTranspose1d):
    """Applies a 1-dimensional transposed convolution, as ``torch.nn.ConvTranspose1d`` does.

    Takes PyTorch's arguments in PyTorch's order, and has the parameters of
    ``mlx.nn.ConvTranspose1d``. The module's docstring says what MLX's layer lacks.

    Shape:
        - Input: ``(N, L, in_channels)`` or ``(L, in_channels)``
        - Output: ``(N, L_out, out_channels)`` or ``(L_out, out_channels)``
        - weight: ``(out_channels, kernel_size, in_channels / groups)``
        - bias: ``(out_channels,)``

    Args:
        in_channels (int): The number of input channels.
        out_channels (int): The number of output channels.
        kernel_size (int or tuple): The size of the convolution filters.
        stride (int or tuple, optional): The stride. Default: ``1``.
        padding (int or tuple, optional): How much to crop from both ends. Default: ``0``.
        output_padding (int or tuple, optional): Size added to the end. Default: ``0``.
        groups (int, optional): The number of groups. Default: ``1``.
        bias (bool, optional): If ``True`` add a learnable bias. Default: ``True``.
        dilation (int or tuple, optional): The dilation. Default: ``1``.
        padding_mode (str, optional): Only ``"zeros"``, as in PyTorch.

    Raises:
        ValueError: If the layer could not run: channels that ``groups`` does not divide, a size
            out of range, another ``padding_mode``.
    """

    _rank = 1


class ConvTranspose2d(_ConvTransposeNd, nn.ConvTranspose2d):
    """Applies a 2-dimensional transposed convolution, as ``torch.nn.ConvTranspose2d`` does.

    Takes the arguments of :class:`ConvTranspose1d`, with one integer or two for each size, and
    has the parameters of ``mlx.nn.ConvTranspose2d``.

    Shape:
        - Input: ``(N, H, W, in_channels)`` or ``(H, W, in_channels)``
        - Output: ``(N, H_out, W_out, out_channels)`` or ``(H_out, W_out, out_channels)``
        - weight: ``(out_channels, kH, kW, in_channels / groups)``
        - bias: ``(out_channels,)``

    Raises:
        ValueError: As :class:`ConvTranspose1d`.
    """

    _rank = 2


class ConvTranspose3d(_ConvTransposeNd, nn.ConvTranspose3d):
    """Applies a 3-dimensional transposed convolution, as ``torch.nn.ConvTranspose3d`` does.

    Takes the arguments of :class:`ConvTranspose1d`, with one integer or three for each size, and
    has the parameters of ``mlx.nn.ConvTranspose3d``.

    Shape:
        - Input: ``(N, D, H, W, in_channels)`` or ``(D, H, W, in_channels)``
        - Output: ``(N, D_out, H_out, W_out, out_channels)`` or the same without ``N``
        - weight: ``(out_channels, kD, kH, kW, in_channels / groups)``
        - bias: ``(out_channels,)``

    Raises:
        ValueError: As :class:`ConvTranspose1d`.
    """

    _rank = 3
