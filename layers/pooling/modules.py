"""Max, average and power-average pooling layers, channels last.

They take PyTorch's arguments in PyTorch's order. The layers of ``mlx.nn`` lack ``dilation``,
``ceil_mode``, ``count_include_pad``, ``divisor_override`` and ``return_indices``, and input without
a batch axis. Constructor and call raise ``ValueError`` where
:mod:`mlxport.layers.pooling.functions` does.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.pooling.functions import avg_pool, lp_pool, max_pool
from mlxport.layers.pooling.indexed import max_pool_with_indices
from mlxport.layers.windows.geometry import ints_per_axis


class _Pool(nn.Module):
    """Base of the pooling layers: arguments as one number per spatial axis."""

    rank: ClassVar[int]

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None,
        padding: int | Sequence[int],
        ceil_mode: bool,
    ) -> None:
        super().__init__()
        layer = type(self).__name__
        self.kernel_size = ints_per_axis(kernel_size, self.rank, "kernel_size", layer)
        self.stride = (
            self.kernel_size
            if stride is None
            else ints_per_axis(stride, self.rank, "stride", layer)
        )
        self.padding = ints_per_axis(padding, self.rank, "padding", layer)
        self.ceil_mode = ceil_mode

    def _extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _MaxPool(_Pool):
    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.dilation = ints_per_axis(dilation, self.rank, "dilation", type(self).__name__)
        self.return_indices = return_indices

    def __call__(self, x: mx.array) -> Any:
        pool = max_pool_with_indices if self.return_indices else max_pool
        return pool(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


class MaxPool1d(_MaxPool):
    """:func:`max_pool` of ``(N, L, C)`` or ``(L, C)``; matches ``torch.nn.MaxPool1d``.

    With ``return_indices`` the result is a pair: the maxima and their indices, int64, in the order
    of the elements of one channel.
    """

    rank = 1


class MaxPool2d(_MaxPool):
    """:func:`max_pool` of ``(N, H, W, C)`` or ``(H, W, C)``; matches ``torch.nn.MaxPool2d``.

    With ``return_indices`` the result is a pair: the maxima and their indices, int64, in the order
    of the elements of one channel.
    """

    rank = 2


class MaxPool3d(_MaxPool):
    """:func:`max_pool` of ``(N, D, H, W, C)`` or ``(D, H, W, C)``; as ``torch.nn.MaxPool3d``.

    With ``return_indices`` the result is a pair: the maxima and their indices, int64, in the order
    of the elements of one channel.
    """

    rank = 3


class _AvgPool(_Pool):
    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def __call__(self, x: mx.array) -> mx.array:
        return avg_pool(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


class AvgPool1d(_AvgPool):
    """:func:`avg_pool` of ``(N, L, C)`` or ``(L, C)``; matches ``torch.nn.AvgPool1d``."""

    rank = 1


class AvgPool2d(_AvgPool):
    """:func:`avg_pool` of ``(N, H, W, C)`` or ``(H, W, C)``; matches ``torch.nn.AvgPool2d``."""

    rank = 2


class AvgPool3d(_AvgPool):
    """:func:`avg_pool` of ``(N, D, H, W, C)`` or ``(D, H, W, C)``; as ``torch.nn.AvgPool3d``."""

    rank = 3


class _LPPool(_Pool):
    def __init__(
        self,
        norm_type: float,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, 0, ceil_mode)
        self.norm_type = norm_type

    def __call__(self, x: mx.array) -> mx.array:
        return lp_pool(x, self.norm_type, self.kernel_size, self.stride, self.ceil_mode)


class LPPool1d(_LPPool):
    """:func:`lp_pool` of ``(N, L, C)`` or ``(L, C)``; matches ``torch.nn.LPPool1d``."""

    rank = 1


class LPPool2d(_LPPool):
    """:func:`lp_pool` of ``(N, H, W, C)`` or ``(H, W, C)``; matches ``torch.nn.LPPool2d``."""

    rank = 2


class LPPool3d(_LPPool):
    """:func:`lp_pool` of ``(N, D, H, W, C)`` or ``(D, H, W, C)``; as ``torch.nn.LPPool3d``."""

    rank = 3
