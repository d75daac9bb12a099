"""Transformer encoder, decoder and both together, with PyTorch's parameters and masks."""

from collections.abc import Mapping
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlxport.layers.attention.masks import trailing_padding
from mlxport.layers.attention.transformer_layers import (
    Activation,
    TransformerDecoderLayer,
    TransformerEncoderLayer,
    TransformerLayer,
    build_layer_norm,
)

# those whose layers PyTorch fuses in inference
_FUSED_ACTIVATIONS = (nn.relu, nn.gelu, "relu", "gelu", "gelu_tanh")


class TransformerStack(nn.Module):
    """Base of encoder and decoder: layers of equal arguments, then an optional normalisation.

    Args:
        num_layers (int): The number of layers.
        d_model (int): The number of features.
        nhead (int): The number of heads.
        norm (mapping, optional): The arguments of the final ``LayerNorm`` except its size: an empty
            mapping for the defaults, None for no normalisation. Default: ``None``.
        **layer: The other arguments of the layers, as
            :class:`mlxport.layers.attention.transformer_layers.TransformerLayer` takes them.

    Raises:
        ValueError: ``num_layers`` is not positive, or an argument of the layers is out of range.
    """

    _layer: ClassVar[type[TransformerLayer]]

    def __init__(
        self,
        num_layers: int,
        d_model: int,
        nhead: int,
        *,
        norm: Mapping[str, Any] | None = None,
        **layer: Any,
    ):
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"[{type(self).__name__}] num_layers={num_layers} must be positive.")
        self.layers = [self._layer(d_model, nhead, **layer) for _ in range(num_layers)]
        if norm is not None:
            self.norm = build_layer_norm(d_model, **norm)

    def _normalised(self, x: mx.array) -> mx.array:
        y: mx.array = self.norm(x) if "norm" in self else x
        return y


class TransformerEncoder(TransformerStack):
    """A stack of encoder layers; matches ``torch.nn.TransformerEncoder``.

    As PyTorch does in inference, a layer in eval mode gives zeros at the masked positions of
    ``src_key_padding_mask`` (behind the layers, before the normalisation): given a batch, with
    ``batch_first``, without ``mask``, where padding is at the end of every sequence, and where
    ``norm_first`` is False, ``bias`` True, ``nhead`` even and the activation ReLU or GELU.

    Shape:
        - Source and output: ``(S, N, d_model)``, ``(N, S, d_model)`` with ``batch_first``, or
          ``(S, d_model)``

    Args:
        num_layers (int): The number of layers.
        d_model (int): The number of features.
        nhead (int): The number of heads.
        enable_nested_tensor (bool, optional): Whether padding is zeroed at all.
            Default: ``True``.
        **arguments: As of :class:`TransformerStack`.
    """

    _layer = TransformerEncoderLayer

    def __init__(
        self,
        num_layers: int,
        d_model: int,
        nhead: int,
        *,
        enable_nested_tensor: bool = True,
        **arguments: Any,
    ):
        super().__init__(num_layers, d_model, nhead, **arguments)
        self.zeroes_padding = (
            enable_nested_tensor
            and arguments.get("batch_first", False)
            and not arguments.get("norm_first", False)
            and arguments.get("bias", True)
            and nhead % 2 == 0
            and arguments.get("activation", "relu") in _FUSED_ACTIVATIONS
        )

    def __call__(
        self,
        src: mx.array,
        mask: mx.array | None = None,
        src_key_padding_mask: mx.array | None = None,
        is_causal: bool | None = None,
    ) -> mx.array:
        """Encode; arguments as of :class:`TransformerEncoderLayer`.

        Args:
            src: ``(S, N, d_model)``; see the class for its other shapes.
            mask: ``(S, S)`` or ``(N * nhead, S, S)``.
            src_key_padding_mask: ``(N, S)``, or ``(S,)`` where there is no batch.
            is_causal: States that ``mask`` is the causal mask. None is as False.

        Raises:
            ValueError: shapes or dtypes do not fit, or ``is_causal`` is given without a mask.
        """
        fused = self.zeroes_padding and not self.training and src.ndim == 3 and mask is None
        if not fused or src_key_padding_mask is None:
            for layer in self.layers:
                src = layer(src, mask, src_key_padding_mask, bool(is_causal))
            return self._normalised(src)
        for layer in self.layers:
            src = layer(src, None, src_key_padding_mask)
        return self._normalised(mx.where(trailing_padding(src_key_padding_mask)[..., None], 0, src))


class TransformerDecoder(TransformerStack):
    """A stack of decoder layers; matches ``torch.nn.TransformerDecoder``.

    Arguments are those of :class:`TransformerStack`.

    Shape:
        - Target and output: ``(T, N, d_model)``, ``(N, T, d_model)`` with ``batch_first``, or
          ``(T, d_model)``
        - Memory: ``(S, N, d_model)``, ``(N, S, d_model)`` with ``batch_first``, or ``(S, d_model)``
    """

    _layer = TransformerDecoderLayer

    def __call__(
        self,
        tgt: mx.array,
        memory: mx.array,
        tgt_mask: mx.array | None = None,
        memory_mask: mx.array | None = None,
        tgt_key_padding_mask: mx.array | None = None,
        memory_key_padding_mask: mx.array | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> mx.array:
        """Decode; arguments as of :class:`TransformerDecoderLayer`.

        Args:
            tgt: ``(T, N, d_model)``; see the class for its other shapes.
            memory: ``(S, N, d_model)``.
            tgt_mask: ``(T, T)`` or ``(N * nhead, T, T)``.
            memory_mask: ``(T, S)`` or ``(N * nhead, T, S)``.
            tgt_key_padding_mask: ``(N, T)``, or ``(T,)`` where there is no batch.
            memory_key_padding_mask: ``(N, S)``, or ``(S,)`` where there is no batch.
            tgt_is_causal: States that ``tgt_mask`` is the causal mask. None is as False.
            memory_is_causal: States that ``memory_mask`` is the causal mask.

        Raises:
            ValueError: shapes or dtypes do not fit, or one of the causal flags is given
                without its mask.
        """
        for layer in self.layers:
            tgt = layer(
                tgt,
                memory,
                tgt_mask,
                memory_mask,
                tgt_key_padding_mask,
                memory_key_padding_mask,
                bool(tgt_is_causal),
                memory_is_causal,
            )
        return self._normalised(tgt)


class Transformer(nn.Module):
    """An encoder and a decoder that attends to its output; matches ``torch.nn.Transformer``.

    Shape:
        - Source: ``(S, N, d_model)``, ``(N, S, d_model)`` with ``batch_first``, or ``(S, d_model)``
        - Target and output: ``(T, N, d_model)``, ``(N, T, d_model)`` with ``batch_first``, or
          ``(T, d_model)``

    Args:
        d_model (int, optional): The number of features. Default: ``512``.
        nhead (int, optional): The number of heads. Default: ``8``.
        num_encoder_layers (int, optional): The number of encoder layers. Default: ``6``.
        num_decoder_layers (int, optional): The number of decoder layers. Default: ``6``.
        dim_feedforward (int, optional): The number of features between the linear layers.
            Default: ``2048``.
        dropout (float, optional): The probability to drop an element in training.
            Default: ``0.1``.
        activation (str or callable, optional): As
            :class:`mlxport.layers.attention.transformer_layers.TransformerLayer` takes it.
            Default: ``"relu"``.
        custom_encoder (nn.Module, optional): Used as the encoder. Default: ``None``.
        custom_decoder (nn.Module, optional): Used as the decoder. Default: ``None``.
        layer_norm_eps (float, optional): Added to the variance. Default: ``1e-5``.
        batch_first (bool, optional): Whether the batch comes before the sequence.
            Default: ``False``.
        norm_first (bool, optional): Whether each block's input is normalised, instead of the sum
            of its input and its output. Default: ``False``.
        bias (bool, optional): Whether linear layers and normalisations have a bias.
            Default: ``True``.

    Raises:
        ValueError: ``num_layers`` is not positive, or an argument of the layers is out of range.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = "relu",
        custom_encoder: nn.Module | None = None,
        custom_decoder: nn.Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
    ):
        super().__init__()
        layer: dict[str, Any] = {
            "norm": {"eps": layer_norm_eps, "bias": bias},
            "dim_feedforward": dim_feedforward,
            "dropout": dropout,
            "activation": activation,
            "layer_norm_eps": layer_norm_eps,
            "batch_first": batch_first,
            "norm_first": norm_first,
            "bias": bias,
        }
        if custom_encoder is None:
            custom_encoder = TransformerEncoder(num_encoder_layers, d_model, nhead, **layer)
        if custom_decoder is None:
            custom_decoder = TransformerDecoder(num_decoder_layers, d_model, nhead, **layer)
        self.encoder = custom_encoder
        self.decoder = custom_decoder
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first
        glorot = nn.init.glorot_uniform()
        self.update(tree_map(lambda p: glorot(p, 1.0) if p.ndim > 1 else p, self.parameters()))

    def __call__(
        self,
        src: mx.array,
        tgt: mx.array,
        src_mask: mx.array | None = None,
        tgt_mask: mx.array | None = None,
        memory_mask: mx.array | None = None,
        src_key_padding_mask: mx.array | None = None,
        tgt_key_padding_mask: mx.array | None = None,
        memory_key_padding_mask: mx.array | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> mx.array:
        """Encode the source and decode the target with it.

        Arguments are those of :class:`TransformerEncoder` and :class:`TransformerDecoder`.

        Raises:
            ValueError: shapes or dtypes do not fit, or one of the causal flags is given
                without its mask.
        """
        self._check(src, tgt)
        memory = self.encoder(
            src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal
        )
        y: mx.array = self.decoder(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )
        return y

    def _check(self, src: mx.array, tgt: mx.array) -> None:
        problems = [
            f"{name} of shape {x.shape} has {x.shape[-1]} features, expected {self.d_model}"
            for name, x in {"src": src, "tgt": tgt}.items()
            if x.shape[-1] != self.d_model
        ]
        batch_axis = 0 if self.batch_first else 1
        if src.ndim == tgt.ndim == 3 and src.shape[batch_axis] != tgt.shape[batch_axis]:
            problems.append(f"src and tgt, of shapes {src.shape} and {tgt.shape}, differ in batch")
        if problems:
            raise ValueError(f"[Transformer] {'; '.join(problems)}.")

    @staticmethod
    def generate_square_subsequent_mask(sz: int, dtype: mx.Dtype = mx.float32) -> mx.array:
        """Return the causal mask ``(sz, sz)``: -inf above the diagonal, zero elsewhere."""
        return mx.triu(mx.full((sz, sz), -mx.inf, dtype), k=1)
