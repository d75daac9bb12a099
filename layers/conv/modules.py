"""Convolution layers with the arguments of ``torch.nn.Conv{1,2,3}d``.

They call :mod:`mlxport.layers.conv.functions`, which says what ``mlx.nn``'s layers lack.
"""

from typing import Any

import mlx.core as mx
from mlx import nn

from mlxport.layers.conv.functions import convolve, padding_widths
from mlxport.layers.spatial.padding import pad
from mlxport.layers.windows.geometry import (
    IntsPerAxis,
    check_divisible,
    check_hyperparameters,
    ints_per_axis,
)

CONV_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _ConvNd(nn.Module):
    """Base of the three ranks; each subclass sets ``_rank`` and inherits MLX's layer of it."""

    _rank: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntsPerAxis,
        stride: IntsPerAxis = 1,
        padding: str | IntsPerAxis = 0,
        dilation: IntsPerAxis = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ):
        layer, rank = type(self).__name__, self._rank
        if padding_mode not in CONV_PADDING_MODES:
            raise ValueError(
                f"[{layer}] 'padding_mode' must be one of {CONV_PADDING_MODES} but got "
                f"{padding_mode!r}."
            )
        # PyTorch builds a layer that cannot run from a kernel of one size for several axes.
        kernel = ints_per_axis(kernel_size, rank, "kernel_size", layer, broadcast=False)
        sizes = {
            "stride": ints_per_axis(stride, rank, "stride", layer),
            "dilation": ints_per_axis(dilation, rank, "dilation", layer),
        }
        channels = {"in_channels": in_channels, "out_channels": out_channels}
        positive: dict[str, Any] = {"kernel_size": kernel, "groups": groups, **channels, **sizes}
        check_hyperparameters(layer, positive, non_negative={})
        check_divisible(layer, groups, channels)
        padding_widths(layer, padding, kernel, sizes["stride"], sizes["dilation"])
        sizes["kernel_size"] = kernel
        native: dict[str, Any] = {
            name: size[0] if rank == 1 else size for name, size in sizes.items()
        }
        super().__init__(  # type: ignore[call-arg]  # MLX's layer of the rank
            in_channels // groups, out_channels, bias=bias, **native
        )
        self.groups = groups
        self.padding = padding
        self.padding_mode = padding_mode

    def _extra_repr(self) -> str:
        kernel = self.weight.shape[1:-1]
        return (
            f"{self.weight.shape[-1] * self.groups}, {self.weight.shape[0]}, "
            f"kernel_size={kernel[0] if self._rank == 1 else kernel}, stride={self.stride}, "
            f"padding={self.padding!r}, dilation={self.dilation}, groups={self.groups}, "
            f"bias={'bias' in self}, padding_mode={self.padding_mode!r}"
        )

    def __call__(self, x: mx.array) -> mx.array:
        """Apply the layer to ``(N, *S, in_channels)`` or ``(*S, in_channels)``."""
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = self._extend(x), 0
        return convolve(
            type(self).__name__,
            x,
            self.weight,
            self.bias if "bias" in self else None,
            self.stride,
            padding,
            self.dilation,
            self.groups,
        )

    def _extend(self, x: mx.array) -> mx.array:
        layer, rank = type(self).__name__, self._rank
        stride = ints_per_axis(self.stride, rank, "stride", layer)
        dilation = ints_per_axis(self.dilation, rank, "dilation", layer)
        low, high = padding_widths(layer, self.padding, self.weight.shape[1:-1], stride, dilation)
        if x.ndim not in (rank + 1, rank + 2):
            return x  # the convolution raises
        batch = [(0, 0)] * (x.ndim - 1 - rank)
        return pad(x, [*batch, *zip(low, high, strict=True), (0, 0)], self.padding_mode)


class Conv1d(_ConvNd, nn.Conv1d):  # type: ignore[misc]  # padding may be a name
    """Applies a 1-dimensional convolution, as ``torch.nn.Conv1d`` does.

    Takes PyTorch's arguments in PyTorch's order, and has the parameters of ``mlx.nn.Conv1d``.
    :mod:`mlxport.layers.conv.functions` says what MLX's layer lacks.

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
        padding (int, tuple or str, optional): How many elements to add at both ends, ``"same"`` or
            ``"valid"``. Default: ``0``.
        dilation (int or tuple, optional): The dilation. Default: ``1``.
        groups (int, optional): The number of groups. Default: ``1``.
        bias (bool, optional): If ``True`` add a learnable bias. Default: ``True``.
        padding_mode (str, optional): What the added elements are: ``"zeros"``, ``"reflect"``,
            ``"replicate"`` or ``"circular"``. Default: ``"zeros"``.

    Raises:
        ValueError: If the layer could not run: channels that ``groups`` does not divide, a size
            out of range, ``"same"`` with a stride, an unknown padding. From the call: as
            :func:`mlxport.layers.conv.functions.conv`, or an input too small for this padding.
    """

    _rank = 1


class Conv2d(_ConvNd, nn.Conv2d):  # type: ignore[misc]  # padding may be a name
    """Applies a 2-dimensional convolution, as ``torch.nn.Conv2d`` does.

    Takes the arguments of :class:`Conv1d`, with one integer or two for each size, and has the
    parameters of ``mlx.nn.Conv2d``.

    Shape:
        - Input: ``(N, H, W, in_channels)`` or ``(H, W, in_channels)``
        - Output: ``(N, H_out, W_out, out_channels)`` or ``(H_out, W_out, out_channels)``
        - weight: ``(out_channels, kH, kW, in_channels / groups)``
        - bias: ``(out_channels,)``

    Raises:
        ValueError: As :class:`Conv1d`.
    """

    _rank = 2


class Conv3d(_ConvNd, nn.Conv3d):  # type: ignore[misc]  # padding may be a name
    """Applies a 3-dimensional convolution, as ``torch.nn.Conv3d`` does.

    Takes the arguments of :class:`Conv1d`, with one integer or three for each size, and has the
    parameters of ``mlx.nn.Conv3d``.

    Shape:
        - Input: ``(N, D, H, W, in_channels)`` or ``(D, H, W, in_channels)``
        - Output: ``(N, D_out, H_out, W_out, out_channels)`` or the same without ``N``
        - weight: ``(out_channels, kD, kH, kW, in_channels / groups)``
        - bias: ``(out_channels,)``

    Raises:
        ValueError: As :class:`Conv1d`.
    """

    _rank = 3
