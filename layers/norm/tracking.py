"""Batch and instance normalisation as layers, with optional running statistics.

Parameters and statistics have PyTorch's names; statistics are frozen, as in ``mlx.nn.BatchNorm``.
The layers call :mod:`mlxport.layers.norm.functions`, which says what those of ``mlx.nn`` lack.
"""

from typing import Any

import mlx.core as mx
from mlx import nn

from mlxport.layers.norm.functions import (
    batch_norm,
    instance_norm,
    updated_batch_statistics,
    updated_instance_statistics,
)
from mlxport.layers.norm.modules import AffineNorm

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class _Tracking(AffineNorm):
    """Base with running statistics; ``momentum=None`` weighs all batches equally."""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        bias: bool = True,
    ):
        super().__init__((num_features,), affine, bias)
        self.eps = eps
        self.num_features = num_features
        self.momentum = momentum
        self.track_running_stats = track_running_stats
        if track_running_stats:
            self.running_mean = mx.zeros((num_features,))
            self.running_var = mx.ones((num_features,))
            if momentum is None:
                self.num_batches_tracked = mx.array(0, mx.int64)
        self._freeze_statistics()

    def unfreeze(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Unfreeze the parameters; statistics stay frozen."""
        super().unfreeze(*args, **kwargs)
        self._freeze_statistics()
        return self

    def _freeze_statistics(self) -> None:
        self.freeze(keys=[name for name in _STATISTICS if name in self], recurse=False)

    def _statistics(self) -> dict[str, mx.array | None]:
        return {name: self.get(name) for name in ("running_mean", "running_var")}

    def _extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"track_running_stats={self.track_running_stats}, {super()._extra_repr()}"
        )


class BatchNorm(_Tracking):
    """Applies batch normalisation to input of any rank, as ``torch.nn.BatchNorm{1,2,3}d`` do.

    Takes the arguments of ``mlx.nn.BatchNorm`` and has its parameters; ``momentum=None`` keeps
    ``num_batches_tracked`` beside them.

    Shape:
        - Input: ``(N, *S, num_features)`` or ``(N, num_features)``
        - Output: as the input, of its dtype

    Args:
        num_features (int): The number of channels.
        eps (float, optional): Added to the variance. Default: ``1e-5``.
        momentum (float, optional): The weight of a new batch in the running statistics; None
            weighs all batches equally. Default: ``0.1``.
        affine (bool, optional): Whether to scale and shift. Default: ``True``.
        track_running_stats (bool, optional): Whether to keep statistics, and use them in
            evaluation. Default: ``True``.
        bias (bool, optional): Whether to shift, where affine. Default: ``True``.

    Raises:
        ValueError: From the call, as :func:`mlxport.layers.norm.functions.batch_norm`.
    """

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise ``(N, *S, num_features)`` and, in training, update the statistics."""
        statistics = self._statistics()
        if self.training and self.track_running_stats:
            self.running_mean, self.running_var = updated_batch_statistics(
                x, self.running_mean, self.running_var, self._step()
            )
        training = self.training or not self.track_running_stats
        return batch_norm(x, **statistics, **self._affine(), training=training, eps=self.eps)

    def _step(self) -> float | mx.array:
        if self.momentum is not None:
            return self.momentum
        self.num_batches_tracked = self.num_batches_tracked + 1
        return 1 / self.num_batches_tracked.astype(mx.float32)


class _InstanceNorm(_Tracking):
    """Base of the three ranks, which differ in the number of axes of input without a batch."""

    _rank: int

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        bias: bool = True,
    ):
        # torch takes None for no update, not for an average
        momentum = 0.0 if momentum is None else momentum
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias)

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise a batch or a sample and, in training, update the statistics."""
        if x.ndim not in (self._rank + 1, self._rank + 2):
            raise ValueError(
                f"[{type(self).__name__}] input must have {self._rank + 2} dimensions "
                f"(N, *spatial, channels), or {self._rank + 1} without the batch, "
                f"but got shape {x.shape}."
            )
        if x.ndim == self._rank + 1:
            return self._normalise(x[None]).squeeze(0)
        return self._normalise(x)

    def _normalise(self, x: mx.array) -> mx.array:
        statistics = self._statistics()
        if self.training and self.track_running_stats:
            self.running_mean, self.running_var = updated_instance_statistics(
                x, self.running_mean, self.running_var, self.momentum or 0.0
            )
        of_input = self.training or not self.track_running_stats
        return instance_norm(
            x, **statistics, **self._affine(), use_input_stats=of_input, eps=self.eps
        )


class InstanceNorm1d(_InstanceNorm):
    """Applies instance normalisation to sequences, as ``torch.nn.InstanceNorm1d`` does.

    Shape:
        - Input: ``(N, L, num_features)`` or ``(L, num_features)``
        - Output: as the input, of its dtype

    Args:
        num_features (int): The number of channels.
        eps (float, optional): Added to the variance. Default: ``1e-5``.
        momentum (float, optional): The weight of a new batch in the running statistics; None
            leaves them unchanged. Default: ``0.1``.
        affine (bool, optional): Whether to scale and shift. Default: ``False``.
        track_running_stats (bool, optional): Whether to keep statistics, and use them in
            evaluation. Default: ``False``.
        bias (bool, optional): Whether to shift, where affine. Default: ``True``.

    Raises:
        ValueError: From the call: other dimensions, or as
            :func:`mlxport.layers.norm.functions.instance_norm`.
    """

    _rank = 1


class InstanceNorm2d(_InstanceNorm):
    """Applies instance normalisation to images, as ``torch.nn.InstanceNorm2d`` does.

    Takes the arguments of :class:`InstanceNorm1d`.

    Shape:
        - Input: ``(N, H, W, num_features)`` or ``(H, W, num_features)``
        - Output: as the input, of its dtype
    """

    _rank = 2


class InstanceNorm3d(_InstanceNorm):
    """Applies instance normalisation to volumes, as ``torch.nn.InstanceNorm3d`` does.

    Takes the arguments of :class:`InstanceNorm1d`.

    Shape:
        - Input: ``(N, D, H, W, num_features)`` or ``(D, H, W, num_features)``
        - Output: as the input, of its dtype
    """

    _rank = 3
