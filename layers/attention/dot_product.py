"""Scaled dot-product attention for all masks and shapes that PyTorch accepts."""

import mlx.core as mx


def scaled_dot_product_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    mask: mx.array | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> mx.array:
    """Return the attention output; matches ``torch.nn.functional.scaled_dot_product_attention``.

    There is no dropout. ``mx.fast.scaled_dot_product_attention`` takes 4-D arrays of one batch
    size, aligns a causal mask with the last key instead of the first, and returns the mean of all
    values or NaN, instead of zeros, for a query whose keys are all masked.

    Args:
        q: ``(*B, H, L, E)``; leading axes of ``q``, ``k`` and ``v`` broadcast and may be absent.
        k: ``(*B, H, S, E)``.
        v: ``(*B, H, S, Ev)``.
        mask: broadcastable to ``(*B, H, L, S)``: bool, true where a key takes part, or floating,
            added to the scores.
        is_causal: whether query ``i`` attends to keys ``0 … i`` only.
        scale: of the scores; ``1 / sqrt(E)`` if not given.
        enable_gqa: whether ``H`` of ``k`` and ``v`` may be a divisor of that of ``q``.

    Returns:
        ``(*B, H, L, Ev)`` in the dtype of ``q``.

    Raises:
        ValueError: both a mask and ``is_causal`` are given, or leading axes do not broadcast.
    """
    if is_causal and mask is not None:
        raise ValueError("[scaled_dot_product_attention] give either a mask or is_causal.")
    if is_causal:
        mask = mx.tri(q.shape[-2], k.shape[-2], dtype=mx.bool_)
    shared = 3 if enable_gqa else 2  # the number of last axes that do not broadcast
    batch = mx.broadcast_shapes(*(x.shape[:-shared] for x in (q, k, v)))
    lead = (*batch, q.shape[-3]) if enable_gqa else batch
    if k.shape[-2] == 0:  # MLX 0.32.4 may loop forever reducing a transposed empty array
        return mx.zeros((*lead, q.shape[-2], v.shape[-1]), dtype=q.dtype)
    q, k, v = (_four_axes(mx.broadcast_to(x, (*batch, *x.shape[-shared:]))) for x in (q, k, v))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if mask is not None:
        is_bool = mask.dtype == mx.bool_
        attended = mx.any(mask if is_bool else mask != -mx.inf, axis=-1, keepdims=True)
        # A row of -inf alone would make the gradients of all keys NaN.
        mask = mask | ~attended if is_bool else mx.where(attended, mask, 0).astype(q.dtype)
        mask = _four_axes(mx.broadcast_to(mask, (*lead, q.shape[-2], k.shape[-2])))
    y = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    y = y.reshape(*lead, *y.shape[-2:])
    return y if mask is None else mx.where(attended, y, 0)


def _four_axes(x: mx.array) -> mx.array:
    """Merge or add leading axes so that there are four."""
    if x.ndim < 4:
        return x.reshape(*[1] * (4 - x.ndim), *x.shape)
    return x.reshape(-1, *x.shape[-3:]) if x.ndim > 4 else x
