"""RMS normalisation whose scale is one more than its weight."""

import mlx.core as mx
from mlx import nn


class UnitOffsetRMSNorm(nn.Module):
    """Applies RMS normalisation over the last axis with the scale ``1 + weight``, as Gemma does.

    The weight starts as zeros, where that of ``mlx.nn.RMSNorm`` starts as ones. In half precision
    everything is computed in float32. Matches ``GemmaRMSNorm`` of transformers.

    Shape:
        - Input: ``(*, dims)``
        - Output: as the input, of its dtype

    Args:
        dims (int): The size of the axis normalised over.
        eps (float, optional): Added to the mean square. Default: ``1e-6``.
    """

    def __init__(self, dims: int, eps: float = 1e-6):
        super().__init__()
        self.weight = mx.zeros((dims,))
        self.eps = eps

    def _extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"

    def __call__(self, x: mx.array) -> mx.array:
        """Normalise ``(*, dims)``."""
        scale = 1.0 + self.weight.astype(mx.float32)
        return mx.fast.rms_norm(x.astype(mx.float32), scale, self.eps).astype(x.dtype)
