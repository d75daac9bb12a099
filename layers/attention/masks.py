"""Check the two masks of multi-head attention and merge them into one."""

import math
from collections.abc import Iterator
from functools import reduce
from operator import or_

import mlx.core as mx


def merged_mask(
    attn_mask: mx.array | None,
    key_padding_mask: mx.array | None,
    num_heads: int,
    appended: int,
    dtype: mx.Dtype,
) -> mx.array | None:
    """Merge the masks of ``torch.nn.MultiheadAttention`` into one for dot-product attention.

    Args:
        attn_mask: ``(L, S)`` or ``(N * num_heads, L, S)``, bool, true where a key is masked, or
            floating, added to the scores.
        key_padding_mask: ``(N, S)`` or ``(S,)``, likewise.
        num_heads: the number of heads.
        appended: the number of keys appended to the ``S`` given, which are not masked.
        dtype: of the query; a bool mask beside a floating one takes it.

    Returns:
        An array broadcastable to ``(N, num_heads, L, S + appended)``: bool, true where a key takes
        part, or floating, added to the scores; None if there is no mask.
    """
    masks = []
    if attn_mask is not None:
        batch = attn_mask.shape[0] // num_heads if attn_mask.ndim == 3 else 1
        heads = num_heads if attn_mask.ndim == 3 else 1
        masks.append(attn_mask.reshape(batch, heads, *attn_mask.shape[-2:]))
    if key_padding_mask is not None:
        padding = key_padding_mask if key_padding_mask.ndim == 2 else key_padding_mask[None]
        masks.append(padding[:, None, None, :])
    if appended:
        masks = [mx.pad(mask, [*[(0, 0)] * 3, (0, appended)]) for mask in masks]
    if not masks:
        return None
    if all(mask.dtype == mx.bool_ for mask in masks):
        return ~reduce(or_, masks)
    return sum((_additive(mask, dtype) for mask in masks[1:]), _additive(masks[0], dtype))


def trailing_padding(padding: mx.array) -> mx.array:
    """Return where a padding mask masks, if it does so at the ends of sequences only, else nowhere.

    Args:
        padding: ``(N, S)``, bool, true where a key is masked, or floating, masking where not zero.

    Returns:
        A bool array of that shape.
    """
    masked = padding if padding.dtype == mx.bool_ else padding != 0
    return masked & (masked | (mx.cumsum(masked, axis=1) == 0)).all()


def _additive(mask: mx.array, dtype: mx.Dtype) -> mx.array:
    return mx.where(mask, -mx.inf, 0).astype(dtype) if mask.dtype == mx.bool_ else mask


def mask_problems(
    attn_mask: mx.array | None,
    key_padding_mask: mx.array | None,
    num_heads: int,
    sizes: tuple[int, ...],
    dtype: mx.Dtype,
) -> Iterator[str]:
    """Yield what is wrong with masks: what ``F.multi_head_attention_forward`` of PyTorch refuses.

    Args:
        attn_mask: as :func:`merged_mask` takes it.
        key_padding_mask: as :func:`merged_mask` takes it.
        num_heads: the number of heads.
        sizes: ``(N, L, S)``, or ``(L, S)`` where there is no batch.
        dtype: of the query.
    """
    *batch, length, keys = sizes
    per_head = (math.prod(batch) * num_heads, length, keys)
    dtypes = []
    for name, mask, shapes in (
        ("attn_mask", attn_mask, [(length, keys), per_head]),
        ("key_padding_mask", key_padding_mask, [(*batch, keys)]),
    ):
        if mask is None:
            continue
        if mask.shape not in shapes:
            yield f"{name} has shape {mask.shape}, expected {' or '.join(map(str, shapes))}"
        if mask.dtype == mx.bool_:
            dtypes.append(dtype)
        elif mx.issubdtype(mask.dtype, mx.floating):
            dtypes.append(mask.dtype)
        else:
            yield f"{name} has dtype {mask.dtype}, expected bool or floating"
    if dtypes and mx.result_type(*dtypes) != dtype:
        yield f"masks have dtype {mx.result_type(*dtypes)}, expected the query's, {dtype}"
