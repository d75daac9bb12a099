"""What softmax divides attention scores by."""

import mlx.core as mx

from mlxport.layers.norm.statistics import upcast


def scores_logsumexp(
    q: mx.array,
    k: mx.array,
    mask: mx.array | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> mx.array:
    """Return the log of each query's sum of exponentials of its scores, by which softmax divides.

    Matches the second result of ``aten::_scaled_dot_product_flash_attention_for_cpu``, which is 0
    for a query whose keys are all masked.

    Args:
        q: ``(N, H, L, E)``.
        k: ``(N, H, S, E)``; its ``H`` may be a divisor of that of ``q``.
        mask: broadcastable to ``(N, H, L, S)``, floating, added to the scores.
        is_causal: whether query ``i`` attends to keys ``0 … i`` only.
        scale: of the scores; ``1 / sqrt(E)`` if not given.

    Returns:
        ``(N, H, L)``, float32 for half precision, else in the dtype of ``q``.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    k = mx.repeat(k, q.shape[1] // k.shape[1], axis=1)
    scores = upcast(q) @ upcast(k).swapaxes(-1, -2) * scale
    if is_causal:
        scores = mx.where(mx.tri(q.shape[-2], k.shape[-2], dtype=mx.bool_), scores, -mx.inf)
    if mask is not None:
        scores = scores + mask
    total = mx.logsumexp(scores, axis=-1)
    return mx.where(total == -mx.inf, 0, total)
