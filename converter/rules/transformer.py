"""Rules for transformer encoder and decoder layers, for their stacks and for Transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from mlxport import layers
from mlxport.converter.rules.composite import (
    ADVICE,
    every_tensor,
    expecting_usual_parts,
    settings,
)
from mlxport.converter.rules.registry import Axes, LayerSpec, Refusal, changed, rule

_LAYER = "activation a function of PyTorch's or its module, with defaults"
_STACK = f"layers of equal arguments, then LayerNorm or nothing; {_LAYER}"
_PADDING = "with mask_check, if padding is zeroed in inference"

_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "relu": (F.relu, F.relu_, torch.relu, torch.relu_),
    "gelu": (F.gelu,),
    "celu": (F.celu, F.celu_, torch.celu, torch.celu_),
    "elu": (F.elu, F.elu_),
    "hardsigmoid": (F.hardsigmoid,),
    "hardswish": (F.hardswish,),
    "leaky_relu": (F.leaky_relu, F.leaky_relu_),
    "log_sigmoid": (F.logsigmoid,),
    "mish": (F.mish,),
    "relu6": (F.relu6,),
    "selu": (F.selu, F.selu_, torch.selu, torch.selu_),
    "sigmoid": (F.sigmoid, torch.sigmoid, torch.sigmoid_),
    "silu": (F.silu,),
    "softplus": (F.softplus,),
    "softsign": (F.softsign,),
    "tanh": (F.tanh, torch.tanh, torch.tanh_),
}
_MODULES: dict[type[torch.nn.Module], str] = {
    torch.nn.ReLU: "relu",
    torch.nn.GELU: "gelu",
    torch.nn.CELU: "celu",
    torch.nn.ELU: "elu",
    torch.nn.Hardsigmoid: "hardsigmoid",
    torch.nn.Hardswish: "hardswish",
    torch.nn.LeakyReLU: "leaky_relu",
    torch.nn.LogSigmoid: "log_sigmoid",
    torch.nn.Mish: "mish",
    torch.nn.ReLU6: "relu6",
    torch.nn.SELU: "selu",
    torch.nn.Sigmoid: "sigmoid",
    torch.nn.SiLU: "silu",
    torch.nn.Softplus: "softplus",
    torch.nn.Softsign: "softsign",
    torch.nn.Tanh: "tanh",
}
_DEFAULTS = {
    "dim_feedforward": 2048,
    "dropout": 0.1,
    "activation": "relu",
    "layer_norm_eps": 1e-5,
    "batch_first": False,
    "norm_first": False,
    "bias": True,
}


@rule(
    torch.nn.TransformerEncoderLayer,
    target="layers.TransformerEncoderLayer",
    restrictions=_LAYER,
    leaf=False,
)
@rule(
    torch.nn.TransformerDecoderLayer,
    target="layers.TransformerDecoderLayer",
    restrictions=_LAYER,
    leaf=False,
)
def transformer_layer(module: Any) -> LayerSpec:
    """Our layer of the same name: MLX's lacks padding masks and an eps."""
    encodes = isinstance(module, torch.nn.TransformerEncoderLayer)
    source = torch.nn.TransformerEncoderLayer if encodes else torch.nn.TransformerDecoderLayer
    args, arguments = _sizes(module), _layer_arguments(module)
    return LayerSpec(
        layers.TransformerEncoderLayer if encodes else layers.TransformerDecoderLayer,
        args,
        changed(_DEFAULTS, **arguments),
        every_tensor(module, lambda: source(*args, **_for_torch(module, arguments))),
        axes=Axes.LOGICAL,
    )


@rule(
    torch.nn.TransformerEncoder,
    target="layers.TransformerEncoder",
    restrictions=f"{_STACK}; {_PADDING}",
    leaf=False,
)
@rule(
    torch.nn.TransformerDecoder,
    target="layers.TransformerDecoder",
    restrictions=_STACK,
    leaf=False,
)
def transformer_stack(module: Any) -> LayerSpec:
    """Our layer of the same name, for the same reasons as its layers."""
    encodes = isinstance(module, torch.nn.TransformerEncoder)
    first = _first_layer(module)
    args, arguments, norm = _sizes(first), _layer_arguments(first), _final_norm(module)

    def rebuild() -> Any:
        final = None if norm is None else _layer_norm(args[0], norm)
        keywords = _for_torch(first, arguments)
        layer: Any
        if encodes:
            layer = torch.nn.TransformerEncoderLayer(*args, **keywords)
            return torch.nn.TransformerEncoder(layer, len(module.layers), final)
        layer = torch.nn.TransformerDecoderLayer(*args, **keywords)
        return torch.nn.TransformerDecoder(layer, len(module.layers), final)

    nested = {"enable_nested_tensor": False} if encodes and not _nests(module) else {}
    return LayerSpec(
        layers.TransformerEncoder if encodes else layers.TransformerDecoder,
        (len(module.layers), *args),
        changed(_DEFAULTS, **arguments) | ({} if norm is None else {"norm": norm}) | nested,
        every_tensor(module, rebuild),
        axes=Axes.LOGICAL,
    )


@rule(
    torch.nn.Transformer,
    target="layers.Transformer",
    restrictions=f"PyTorch's own encoder and decoder; {_LAYER}; {_PADDING}",
    leaf=False,
)
def transformer(module: torch.nn.Transformer) -> LayerSpec:
    """Our layer of the same name, for the same reasons as its layers."""
    stacks = {"encoder": torch.nn.TransformerEncoder, "decoder": torch.nn.TransformerDecoder}
    for name, cls in stacks.items():
        if type(found := getattr(module, name)) is not cls:
            raise Refusal(f"its {name} is a {type(found).__name__}, not a {cls.__name__}; {ADVICE}")
    first = _first_layer(module.encoder)
    if not _nests(module.encoder):
        raise Refusal(f"its encoder was built with enable_nested_tensor=False; {ADVICE}")
    arguments = _layer_arguments(first) | {
        f"num_{name}_layers": len(getattr(module, name).layers) for name in stacks
    }
    if arguments["num_decoder_layers"] == 0:
        raise Refusal("its decoder has no layers, so PyTorch cannot run it")
    args = _sizes(first)
    counts = {"num_encoder_layers": 6, "num_decoder_layers": 6}
    return LayerSpec(
        layers.Transformer,
        args,
        changed(_DEFAULTS | counts, **arguments),
        every_tensor(module, lambda: torch.nn.Transformer(*args, **_for_torch(first, arguments))),
        axes=Axes.LOGICAL,
    )


def _nests(encoder: Any) -> bool:
    """Tell whether an encoder may zero padding in inference, its layers and its input permitting.

    Raises:
        Refusal: it zeroes whatever lies beyond the number of positions that are none.
    """
    if not getattr(encoder, "enable_nested_tensor", False):
        return False
    if encoder.use_nested_tensor and not getattr(encoder, "mask_check", True):
        raise Refusal(f"it was built with mask_check=False; {ADVICE}")
    return True


def _first_layer(stack: Any) -> Any:
    if len(stack.layers) == 0:
        raise Refusal("it has no layers, so PyTorch cannot run it")
    return stack.layers[0]


def _sizes(layer: Any) -> tuple[int, int]:
    with expecting_usual_parts():
        return layer.self_attn.embed_dim, layer.self_attn.num_heads


def _layer_arguments(layer: Any) -> dict[str, Any]:
    """Return the constructor arguments of a layer, its activation by name."""
    with expecting_usual_parts():
        arguments = {
            "dim_feedforward": layer.linear1.out_features,
            "dropout": layer.dropout.p,
            "activation": _activation(layer.activation),
            "layer_norm_eps": layer.norm1.eps,
            "batch_first": layer.self_attn.batch_first,
            "norm_first": layer.norm_first,
            "bias": layer.linear1.bias is not None,
        }
    if arguments["dim_feedforward"] == 0:
        raise Refusal("dim_feedforward is 0, and mlx.nn.Linear divides by it")
    return arguments


def _activation(activation: Any) -> str:
    """Return the name of an activation in ``ACTIVATIONS`` of ``layers``."""
    cls = type(activation)
    if cls in _MODULES:
        if settings(activation) == settings(cls()):
            return _MODULES[cls]
        if settings(activation) == {"approximate": "tanh"}:
            return "gelu_tanh"
    for name, functions in _FUNCTIONS.items():
        if any(activation is function for function in functions):
            return name
    raise Refusal(
        f"its activation, {activation}, is no function of PyTorch's (or its module) with defaults; "
        f"{ADVICE}"
    )


def _for_torch(layer: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {**arguments, "activation": layer.activation}


def _final_norm(stack: Any) -> dict[str, Any] | None:
    norm = stack.norm
    if norm is None:
        return None
    if type(norm) is not torch.nn.LayerNorm:
        raise Refusal(f"its norm is a {type(norm).__name__}, not a LayerNorm; {ADVICE}")
    affine = norm.weight is not None
    return changed(
        {"eps": 1e-5, "affine": True, "bias": True},
        eps=norm.eps,
        affine=affine,
        bias=norm.bias is not None or not affine,
    )


def _layer_norm(dims: int, arguments: Mapping[str, Any]) -> torch.nn.LayerNorm:
    return torch.nn.LayerNorm(
        dims,
        eps=arguments.get("eps", 1e-5),
        elementwise_affine=arguments.get("affine", True),
        bias=arguments.get("bias", True),
    )
