"""Transformer encoder and decoder layers, with PyTorch's parameters and masks.

Those of ``mlx.nn`` have other names and defaults, a fixed ``eps`` and no padding masks.

The layers compute what PyTorch computes in training and in graphs of ``torch.export``. Its encoder
layer may take another path in inference, where a floating mask masks wherever it is not zero, and
a query whose keys are all masked gives NaN.
"""

from collections.abc import Callable
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from mlxport.layers.activation.dropout import Dropout
from mlxport.layers.activation.functions import (
    celu,
    elu,
    hardsigmoid,
    leaky_relu,
    selu,
    softplus,
)
from mlxport.layers.attention.multihead import MultiheadAttention
from mlxport.layers.norm.modules import LayerNorm

Activation = Callable[[mx.array], mx.array]

# Activations by name; each matches PyTorch's function with default arguments.
ACTIVATIONS: dict[str, Activation] = {
    "relu": nn.relu,
    "gelu": nn.gelu,
    "gelu_tanh": nn.gelu_approx,
    "celu": celu,
    "elu": elu,
    "hardsigmoid": hardsigmoid,
    "hardswish": nn.hardswish,
    "leaky_relu": leaky_relu,
    "log_sigmoid": nn.log_sigmoid,
    "mish": nn.mish,
    "relu6": nn.relu6,
    "selu": selu,
    "sigmoid": mx.sigmoid,
    "silu": nn.silu,
    "softplus": softplus,
    "softsign": nn.softsign,
    "tanh": mx.tanh,
}


def build_layer_norm(
    dims: int, eps: float = 1e-5, affine: bool = True, bias: bool = True
) -> nn.Module:
    """Return ``mlx.nn.LayerNorm``, or ours if ``eps`` is 0, which MLX's does not support."""
    norm = nn.LayerNorm if eps > 0 else LayerNorm
    return norm(dims, eps=eps, affine=affine, bias=bias)


class TransformerLayer(nn.Module):
    """Base of encoder and decoder layer: their parameters and residual blocks.

    Args:
        d_model (int): The number of features of input and output.
        nhead (int): The number of heads.
        dim_feedforward (int, optional): The number of features between the linear layers.
            Default: ``2048``.
        dropout (float, optional): The probability to drop an element in training.
            Default: ``0.1``.
        activation (str or callable, optional): The activation between the linear layers: a
            function, or a name of ``ACTIVATIONS``. Default: ``"relu"``.
        layer_norm_eps (float, optional): Added to the variance. Default: ``1e-5``.
        batch_first (bool, optional): Whether the batch comes before the sequence.
            Default: ``False``.
        norm_first (bool, optional): Whether each block's input is normalised, instead of the sum
            of its input and its output. Default: ``False``.
        bias (bool, optional): Whether linear layers and normalisations have a bias.
            Default: ``True``.

    Raises:
        ValueError: ``activation`` is an unknown name, ``nhead`` does not divide ``d_model``, or
            ``dropout`` is not from 0 to 1.
    """

    _attentions: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
    ):
        super().__init__()
        if isinstance(activation, str) and activation not in ACTIVATIONS:
            raise ValueError(
                f"[{type(self).__name__}] activation={activation!r} is not known; give a function "
                f"or one of {', '.join(ACTIVATIONS)}."
            )
        for name in self._attentions:
            self[name] = MultiheadAttention(
                d_model, nhead, dropout, bias=bias, batch_first=batch_first
            )
        self.linear1 = nn.Linear(d_model, dim_feedforward, bias=bias)
        self.linear2 = nn.Linear(dim_feedforward, d_model, bias=bias)
        self.dropout = Dropout(dropout)
        for index in range(len(self._attentions) + 1):
            self[f"norm{index + 1}"] = build_layer_norm(d_model, layer_norm_eps, bias=bias)
        self.norm_first = norm_first
        self.activation = activation  # the name where there is one: functions cannot be copied

    def _block(self, x: mx.array, norm: str, block: Activation) -> mx.array:
        """Return ``x`` plus the output of a block, normalised before or after."""
        if self.norm_first:
            return x + self.dropout(block(self[norm](x)))
        y: mx.array = self[norm](x + self.dropout(block(x)))
        return y

    def _feed_forward(self, x: mx.array) -> mx.array:
        name = self.activation
        activation = ACTIVATIONS[name] if isinstance(name, str) else name
        y: mx.array = self.linear2(self.dropout(activation(self.linear1(x))))
        return y


class TransformerEncoderLayer(TransformerLayer):
    """Self-attention and feed-forward; matches ``torch.nn.TransformerEncoderLayer``.

    Arguments are those of :class:`TransformerLayer`.

    Shape:
        - Source and output: ``(S, N, d_model)``, ``(N, S, d_model)`` with ``batch_first``, or
          ``(S, d_model)``
    """

    _attentions = ("self_attn",)

    def __call__(
        self,
        src: mx.array,
        src_mask: mx.array | None = None,
        src_key_padding_mask: mx.array | None = None,
        is_causal: bool = False,
    ) -> mx.array:
        """Encode; masks as in :class:`mlxport.layers.attention.multihead.MultiheadAttention`.

        Args:
            src: ``(S, N, d_model)``; see the class for its other shapes.
            src_mask: ``(S, S)`` or ``(N * nhead, S, S)``.
            src_key_padding_mask: ``(N, S)``, or ``(S,)`` where there is no batch.
            is_causal: States that ``src_mask`` is the causal mask.

        Raises:
            ValueError: shapes or dtypes do not fit, or ``is_causal`` is given without a mask.
        """

        def attend(x: mx.array) -> mx.array:
            y: mx.array = self.self_attn(
                x, x, x, src_key_padding_mask, False, src_mask, is_causal=is_causal
            )[0]
            return y

        x = self._block(src, "norm1", attend)
        return self._block(x, "norm2", self._feed_forward)


class TransformerDecoderLayer(TransformerLayer):
    """Self-attention, attention to a memory, feed-forward; as ``torch.nn.TransformerDecoderLayer``.

    Arguments are those of :class:`TransformerLayer`.

    Shape:
        - Target and output: ``(T, N, d_model)``, ``(N, T, d_model)`` with ``batch_first``, or
          ``(T, d_model)``
        - Memory: ``(S, N, d_model)``, ``(N, S, d_model)`` with ``batch_first``, or ``(S, d_model)``
    """

    _attentions = ("self_attn", "multihead_attn")

    def __call__(
        self,
        tgt: mx.array,
        memory: mx.array,
        tgt_mask: mx.array | None = None,
        memory_mask: mx.array | None = None,
        tgt_key_padding_mask: mx.array | None = None,
        memory_key_padding_mask: mx.array | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> mx.array:
        """Decode; masks as in :class:`mlxport.layers.attention.multihead.MultiheadAttention`.

        Args:
            tgt: ``(T, N, d_model)``; see the class for its other shapes.
            memory: ``(S, N, d_model)``.
            tgt_mask: ``(T, T)`` or ``(N * nhead, T, T)``.
            memory_mask: ``(T, S)`` or ``(N * nhead, T, S)``.
            tgt_key_padding_mask: ``(N, T)``, or ``(T,)`` where there is no batch.
            memory_key_padding_mask: ``(N, S)``, or ``(S,)`` where there is no batch.
            tgt_is_causal: States that ``tgt_mask`` is the causal mask.
            memory_is_causal: States that ``memory_mask`` is the causal mask.

        Raises:
            ValueError: shapes or dtypes do not fit, or one of the causal flags is given
                without its mask.
        """

        def attend(x: mx.array) -> mx.array:
            y: mx.array = self.self_attn(
                x, x, x, tgt_key_padding_mask, False, tgt_mask, is_causal=tgt_is_causal
            )[0]
            return y

        def attend_to_memory(x: mx.array) -> mx.array:
            y: mx.array = self.multihead_attn(
                x,
                memory,
                memory,
                memory_key_padding_mask,
                False,
                memory_mask,
                is_causal=memory_is_causal,
            )[0]
            return y

        x = self._block(tgt, "norm1", attend)
        x = self._block(x, "norm2", attend_to_memory)
        return self._block(x, "norm3", self._feed_forward)
