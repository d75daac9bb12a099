"""Multi-head attention with PyTorch's parameters, masks and outputs.

``mlx.nn.MultiHeadAttention`` takes one additive mask and batch-first input, and knows neither
attention dropout, ``bias_k`` and ``bias_v``, ``add_zero_attn``, nor the attention weights.
"""

import math
from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.attention.dot_product import scaled_dot_product_attention
from mlxport.layers.attention.masks import mask_problems, merged_mask


class MultiheadAttention(nn.Module):
    """Multi-head attention; matches ``torch.nn.MultiheadAttention``.

    It computes what PyTorch does in training and in graphs of ``torch.export``. PyTorch's inference
    fast path differs where every key is masked (NaN without weights too) and ignores ``is_causal``.

    Shape:
        - Query: ``(L, N, embed_dim)``, ``(N, L, embed_dim)`` with ``batch_first``, or
          ``(L, embed_dim)``
        - Key: ``(S, N, kdim)``, ``(N, S, kdim)`` with ``batch_first``, or ``(S, kdim)``
        - Value: as the key, of ``vdim`` features
        - Output: as the query; weights of shape ``(N, L, S')``, or ``(N, num_heads, L, S')`` if not
          averaged, both without ``N`` if there is no batch; ``S'`` includes the appended keys

    Args:
        embed_dim (int): The number of features of the query and the output.
        num_heads (int): The number of heads, each of ``embed_dim / num_heads`` features.
        dropout (float, optional): The probability to drop an attention weight in training.
            Default: ``0.0``.
        bias (bool, optional): Whether the projections have a bias. Default: ``True``.
        add_bias_kv (bool, optional): Whether to append a learned key and value.
            Default: ``False``.
        add_zero_attn (bool, optional): Whether to append a key and a value of zeros.
            Default: ``False``.
        kdim (int, optional): The number of features of the key. Default: ``embed_dim``.
        vdim (int, optional): The number of features of the value. Default: ``embed_dim``.
        batch_first (bool, optional): Whether the batch comes before the sequence.
            Default: ``False``.

    Raises:
        ValueError: The sizes are not positive, ``embed_dim`` is no multiple of ``num_heads``, or
            ``dropout`` is not from 0 to 1.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
    ):
        super().__init__()
        _check_arguments(embed_dim, num_heads, dropout)
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.add_zero_attn = add_zero_attn
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.batch_first = batch_first

        glorot = nn.init.glorot_uniform()
        if self.kdim == self.vdim == embed_dim:
            self.in_proj_weight = glorot(mx.zeros((3 * embed_dim, embed_dim)), 1.0)
        else:
            self.q_proj_weight = glorot(mx.zeros((embed_dim, embed_dim)), 1.0)
            self.k_proj_weight = glorot(mx.zeros((embed_dim, self.kdim)), 1.0)
            self.v_proj_weight = glorot(mx.zeros((embed_dim, self.vdim)), 1.0)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=bias)
        if bias:
            self.in_proj_bias = mx.zeros((3 * embed_dim,))
            self.out_proj.bias = mx.zeros((embed_dim,))
        if add_bias_kv:
            self.bias_k = mx.random.normal((1, 1, embed_dim), scale=embed_dim**-0.5)
            self.bias_v = mx.random.normal((1, 1, embed_dim), scale=embed_dim**-0.5)

    def _extra_repr(self) -> str:
        return (
            f"{self.embed_dim}, {self.num_heads}, dropout={self.dropout}, "
            f"bias={'in_proj_bias' in self}, add_bias_kv={'bias_k' in self}, "
            f"add_zero_attn={self.add_zero_attn}, kdim={self.kdim}, vdim={self.vdim}, "
            f"batch_first={self.batch_first}"
        )

    def __call__(
        self,
        query: mx.array,
        key: mx.array,
        value: mx.array,
        key_padding_mask: mx.array | None = None,
        need_weights: bool = True,
        attn_mask: mx.array | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[mx.array, mx.array | None]:
        """Return the attention output, and the attention weights if they are needed.

        A bool mask is true where a key is masked; a floating one, of the query's dtype, is added to
        the scores. Where every key is masked, output and weights are NaN; without ``need_weights``
        the output is the projection of zeros.

        Args:
            query: ``(L, N, embed_dim)``; see the class for its other shapes.
            key: ``(S, N, kdim)``.
            value: ``(S, N, vdim)``.
            key_padding_mask: ``(N, S)``, or ``(S,)`` where there is no batch.
            need_weights: Whether to return the attention weights too.
            attn_mask: ``(L, S)`` or ``(N * num_heads, L, S)``.
            average_attn_weights: Whether the weights are averaged over the heads.
            is_causal: States that ``attn_mask`` is the causal mask. With neither ``need_weights``
                nor ``key_padding_mask`` the mask is then not read, and query ``i`` attends to keys
                ``0 … i`` only, so it may miss the appended ones.

        Returns:
            The output, and the weights or None.

        Raises:
            ValueError: shapes or dtypes do not fit, or ``is_causal`` is given without a mask; all
                faults are listed.
        """
        if is_causal and attn_mask is None:
            raise ValueError("[MultiheadAttention] is_causal needs the causal attn_mask too.")
        causal = is_causal and key_padding_mask is None and not need_weights
        if causal:
            attn_mask = None
        self._check(query, key, value, attn_mask, key_padding_mask)
        q, k, v = (self._heads(x) for x in self._project(query, key, value))
        k, v = self._append(k, "bias_k"), self._append(v, "bias_v")
        appended = ("bias_k" in self) + self.add_zero_attn
        mask = merged_mask(attn_mask, key_padding_mask, self.num_heads, appended, query.dtype)
        if causal:
            mask = mx.tri(q.shape[-2], k.shape[-2], dtype=mx.bool_)
        dropout = self.dropout if self.training else 0.0
        if dropout == 0 and not need_weights:
            return self._output(scaled_dot_product_attention(q, k, v, mask), query), None
        weights = _dropped(_attention_weights(q, k, mask, zero_if_masked=not need_weights), dropout)
        output = self._output(weights @ v, query)
        if not need_weights:
            return output, None
        weights = weights.mean(axis=1) if average_attn_weights else weights
        return output, weights if query.ndim == 3 else weights.squeeze(0)

    def _check(
        self,
        query: mx.array,
        key: mx.array,
        value: mx.array,
        attn_mask: mx.array | None,
        key_padding_mask: mx.array | None,
    ) -> None:
        problems = list(self._shape_problems(query, key, value))
        if not problems:
            sizes = self._batch_and_length(query) + self._batch_and_length(key)[-1:]
            problems += mask_problems(
                attn_mask, key_padding_mask, self.num_heads, sizes, query.dtype
            )
        if problems:
            raise ValueError(f"[MultiheadAttention] {'; '.join(problems)}.")

    def _shape_problems(self, query: mx.array, key: mx.array, value: mx.array) -> Iterator[str]:
        if query.ndim not in (2, 3) or not query.ndim == key.ndim == value.ndim:
            found = f"{query.ndim}, {key.ndim} and {value.ndim}"
            yield f"query, key and value have {found} dimensions, expected 2 each or 3 each"
            return
        expected = {"query": self.embed_dim, "key": self.kdim, "value": self.vdim}
        for (name, features), x in zip(expected.items(), (query, key, value), strict=True):
            if x.shape[-1] != features:
                yield f"{name} of shape {x.shape} has {x.shape[-1]} features, expected {features}"
        if key.shape[:-1] != value.shape[:-1]:
            yield f"key of shape {key.shape} and value of shape {value.shape} differ in length"
        batches = [self._batch_and_length(x)[:-1] for x in (query, key)]
        if batches[0] != batches[1]:
            yield f"query of shape {query.shape} and key of shape {key.shape} differ in batch"

    def _batch_and_length(self, x: mx.array) -> tuple[int, ...]:
        lead: tuple[int, ...] = x.shape[:-1]
        return lead if self.batch_first else lead[::-1]

    def _project(
        self, query: mx.array, key: mx.array, value: mx.array
    ) -> tuple[mx.array, mx.array, mx.array]:
        bias = self.get("in_proj_bias")
        if query is key and key is value and "in_proj_weight" in self:
            q, k, v = mx.split(_linear(query, self.in_proj_weight, bias), 3, axis=-1)
            return q, k, v
        if "in_proj_weight" in self:
            w_q, w_k, w_v = mx.split(self.in_proj_weight, 3)
        else:
            w_q, w_k, w_v = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        b_q, b_k, b_v = [None] * 3 if bias is None else mx.split(bias, 3)
        return _linear(query, w_q, b_q), _linear(key, w_k, b_k), _linear(value, w_v, b_v)

    def _heads(self, x: mx.array) -> mx.array:
        """Reshape ``(L, N, E)``, ``(N, L, E)`` or ``(L, E)`` to ``(N, heads, L, E/heads)``."""
        if x.ndim == 2:
            x = x[None]
        elif not self.batch_first:
            x = x.swapaxes(0, 1)
        return mx.unflatten(x, -1, (self.num_heads, -1)).swapaxes(1, 2)

    def _append(self, x: mx.array, bias: str) -> mx.array:
        batch, heads, _, features = x.shape
        parts = [x]
        if bias in self:
            learned = self[bias].reshape(1, heads, 1, features)
            parts.append(mx.broadcast_to(learned, (batch, heads, 1, features)))
        if self.add_zero_attn:
            parts.append(mx.zeros((batch, heads, 1, features), x.dtype))
        return mx.concatenate(parts, axis=2) if len(parts) > 1 else x

    def _output(self, y: mx.array, query: mx.array) -> mx.array:
        """Reshape ``(N, heads, L, E/heads)`` to the shape of the query, and project it."""
        y = y.swapaxes(1, 2) if self.batch_first else y.transpose(2, 0, 1, 3)
        projected: mx.array = self.out_proj(y.reshape(query.shape))
        return projected


def _check_arguments(embed_dim: int, num_heads: int, dropout: float) -> None:
    problems = []
    if embed_dim <= 0 or num_heads <= 0:
        problems.append(f"embed_dim={embed_dim} and num_heads={num_heads} must be positive")
    elif embed_dim % num_heads:
        problems.append(f"embed_dim={embed_dim} must be a multiple of num_heads={num_heads}")
    if not 0 <= dropout <= 1:
        problems.append(f"dropout={dropout} must be from 0 to 1")
    if problems:
        raise ValueError(f"[MultiheadAttention] {'; '.join(problems)}.")


def _linear(x: mx.array, weight: mx.array, bias: mx.array | None) -> mx.array:
    return x @ weight.T if bias is None else mx.addmm(bias, x, weight.T)


def _attention_weights(
    q: mx.array, k: mx.array, mask: mx.array | None, zero_if_masked: bool
) -> mx.array:
    """Return the weights ``(N, H, L, S)`` of queries ``(N, H, L, E)`` and keys ``(N, H, S, E)``.

    Where every key is masked they are zero, or NaN with NaN gradients.
    """
    scores = (q * math.sqrt(1 / q.shape[-1])) @ k.swapaxes(-1, -2)
    if mask is None:
        return mx.softmax(scores, axis=-1, precise=True)
    if mask.dtype == mx.bool_:
        mask = mx.where(mask, 0, -mx.inf).astype(scores.dtype)
    scores = scores + mask
    if not zero_if_masked:
        return mx.softmax(scores, axis=-1, precise=True)
    attended = mx.any(mask != -mx.inf, axis=-1, keepdims=True)
    weights = mx.softmax(mx.where(attended, scores, 0), axis=-1, precise=True)
    return mx.where(attended, weights, 0)


def _dropped(weights: mx.array, p: float) -> mx.array:
    if p in (0, 1):
        return weights * (1 - p)
    return mx.where(mx.random.bernoulli(1 - p, weights.shape), weights / (1 - p), 0)
