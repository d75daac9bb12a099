"""Put a LoRA adapter into a torch model: layers beside those it means, tensors in place of others.

PEFT is not needed. What it would compute past the adapter, or cannot merge, is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import printable
from mlxport.converter.checkpoint.keys.adapter import ADAPTER_PREFIX, Adapter, LowRank
from mlxport.converter.errors import StateDictError
from mlxport.converter.plan.low_rank import WeightAxes, matrices_of
from mlxport.converter.plan.tensor import Tensor, holds
from mlxport.converter.plan.torch_tensor import TORCH_DTYPE, tensor_from_torch, tensor_to_torch
from mlxport.converter.torch_model import lora
from mlxport.converter.torch_model.loading_code import state_of

_TRANSPOSED = {
    torch.nn.ConvTranspose1d: lora.LoRAConvTranspose1d,
    torch.nn.ConvTranspose2d: lora.LoRAConvTranspose2d,
    torch.nn.ConvTranspose3d: lora.LoRAConvTranspose3d,
}
_CONVOLUTIONS = {
    torch.nn.Conv1d: lora.LoRAConv1d,
    torch.nn.Conv2d: lora.LoRAConv2d,
    torch.nn.Conv3d: lora.LoRAConv3d,
}
_OF_TRANSFORMERS = "transformers.pytorch_utils.Conv1D"
_ADVICE = (
    "The adapter belongs to another model, or to one whose modules have other names: give the "
    "model it was trained on."
)


@dataclass(frozen=True)
class Adapted:
    """What an adapter made of a torch model.

    Attributes:
        layers: path of each adapted layer -> how its weight lies.
        keys: key of the model's state dict -> key in the state dict of its base, or in the
            adapter's file.
    """

    layers: Mapping[str, WeightAxes]
    keys: Mapping[str, str]


def put_adapter(
    model: torch.nn.Module,
    adapter: Adapter,
    *,
    dtype: torch.dtype | None = None,
    allow_lossy_cast: bool = False,
    mergeable: bool = False,
) -> Adapted:
    """Put an adapter into a model; who needs the model as it was keeps its state.

    The matrices are held in float32 where the file has half precision, as PEFT holds them. Tensors
    that the adapter replaces (``modules_to_save``, trained biases) are in the base's dtype.

    Args:
        model: the base, changed in place: an adapted layer is `LoRALayer.base_layer` of another.
        adapter: the adapter.
        dtype: cast all floating-point tensors of the adapter to this.
        allow_lossy_cast: round where the base's dtype cannot hold what replaces its tensors.
        mergeable: refuse what cannot be added to the base's weights.

    Raises:
        StateDictError: the model has no such layers or tensors, they have other shapes, or what is
            to be adapted is of a class without counterpart here; all problems are listed.
    """
    before = state_of(model)
    problems: list[str] = []
    layers: dict[str, WeightAxes] = {}
    for name, key in adapter.replaced.items():
        try:
            _replace(model, before, name, adapter.checkpoint.tensors[key], dtype, allow_lossy_cast)
        except StateDictError as error:
            problems.append(f"{printable(name)}: {error}")
    for path, given in adapter.layers.items():
        tensors = {part: adapter.checkpoint.tensors[key] for part, key in given.keys.items()}
        try:
            layers[path] = _adapt(model, path, given, tensors, dtype, mergeable)
        except StateDictError as error:
            problems.append(f"{printable(path)}: {error}")
    if problems:
        raise StateDictError.listing(
            f"{adapter.path}: the adapter does not fit {type(model).__name__}:", problems, _ADVICE
        )
    return Adapted(layers, dict(_keys(model, layers, adapter.replaced)))


def _keys(
    model: torch.nn.Module, layers: Mapping[str, Any], replaced: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield the keys of an adapted model, with what they are in the base or in the file."""
    for key in state_of(model):
        path = next((p for p in layers if key.startswith(f"{p}.")), None)
        if path is None:
            yield key, replaced.get(key, key)
        elif key.startswith(f"{path}.base_layer."):
            name = f"{path}.{key.removeprefix(f'{path}.base_layer.')}"
            yield key, replaced.get(name, name)
        else:
            yield key, ADAPTER_PREFIX + key


def _replace(
    model: torch.nn.Module,
    state: Mapping[str, torch.Tensor],
    name: str,
    tensor: Tensor,
    dtype: torch.dtype | None,
    allow_lossy_cast: bool,
) -> None:
    """Put another tensor in the place of one; what is tied to that keeps it, as in PEFT."""
    if name not in state:
        raise StateDictError("the model has no such tensor")
    old = state[name]
    if tensor.shape != tuple(old.shape):
        raise StateDictError(f"expected {tuple(old.shape)}, got {tensor.shape}")
    wanted = tensor_from_torch(old).dtype
    if not (holds(wanted, tensor.dtype) or allow_lossy_cast or dtype is not None):
        raise StateDictError(
            f"{tensor.dtype} values would be rounded to the model's {wanted}: "
            f"{argument('allow_lossy_cast', True)} does so"
        )
    value = tensor_to_torch(tensor).to(old.dtype)
    path, _, last = name.rpartition(".")
    module = model.get_submodule(path)
    if last in module._parameters:
        module._parameters[last] = torch.nn.Parameter(value, old.requires_grad)
    else:
        module._buffers[last] = value


def _adapt(
    model: torch.nn.Module,
    path: str,
    given: LowRank,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None,
    mergeable: bool,
) -> WeightAxes:
    """Put the layer with an adapter in the place of a layer; return how its weight lies."""
    try:
        module = model.get_submodule(path)
        parent = model.get_submodule(path.rpartition(".")[0])
    except AttributeError as error:
        raise StateDictError("the model has no such module") from error
    if isinstance(parent, torch.nn.MultiheadAttention):
        raise StateDictError("torch.nn.MultiheadAttention reads its weight past any adapter")
    if getattr(module, "parametrizations", None) or module._forward_hooks:
        raise StateDictError("it is parametrised or has hooks, which PEFT's layer would go around")
    with torch.device("meta"):
        layer, axes = _layer(module, given, tensors)
    if mergeable:
        _check_mergeable(module, tensors)
    for name, tensor in tensors.items():
        part, _, last = name.rpartition(".")
        place = layer.get_submodule(part)
        expected = place._parameters[last]
        if expected is None or tensor.shape != tuple(expected.shape):
            shape = "none" if expected is None else tuple(expected.shape)
            raise StateDictError(f"{name}: expected {shape}, got {tensor.shape}")
        place._parameters[last] = torch.nn.Parameter(_in_dtype(tensor, dtype))
    (held,) = {layer.get_parameter(name).dtype for name in tensors}
    layer.dtype = None if held == module.weight.dtype else held
    layer.train(module.training)
    setattr(parent, path.rpartition(".")[2], layer)
    return axes


def _in_dtype(tensor: Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    value = tensor_to_torch(tensor)
    half = TORCH_DTYPE[tensor.dtype].itemsize < 4
    return value.to(dtype or (torch.float32 if half else value.dtype))


def _layer(
    module: Any, given: LowRank, tensors: Mapping[str, Tensor]
) -> tuple[lora.LoRALayer, WeightAxes]:
    """Return a layer with an adapter whose tensors have no values yet."""
    kind: Any = type(module)
    table = "lora_embedding_A" in tensors
    rank = tensors[matrices_of(tensors)[0]].shape[1 if kind in _TRANSPOSED else 0]
    arguments = (module, given.scale, given.dropout)
    if table != (kind is torch.nn.Embedding):
        raise StateDictError(f"a {kind.__name__} has no {'table' if table else 'lora_A.weight'}")
    if table:
        return _embedding(module, rank, arguments)
    biased = "lora_B.bias" in tensors
    if kind is torch.nn.Linear or f"{kind.__module__}.{kind.__name__}" == _OF_TRANSFORMERS:
        axes: WeightAxes = "out_in" if kind is torch.nn.Linear else "in_out"
        layer = lora.LoRALinear(*arguments)
        outputs, inputs = module.weight.shape[:: 1 if axes == "out_in" else -1]
        layer.lora_A = torch.nn.Linear(inputs, rank, bias=False)
        layer.lora_B = torch.nn.Linear(rank, outputs, bias=biased)
        return layer, axes
    if kind in _CONVOLUTIONS or kind in _TRANSPOSED:
        return _convolution(module, rank, biased, arguments)
    raise StateDictError(
        f"adapters of {kind.__module__}.{kind.__qualname__} are not served: only those of Linear, "
        "Embedding, Conv and ConvTranspose of torch.nn and of transformers' Conv1D are"
    )


def _embedding(module: Any, rank: int, arguments: Any) -> tuple[lora.LoRALayer, WeightAxes]:
    if module.max_norm is not None:
        raise StateDictError("it has max_norm, which PEFT applies to the adapter's table as well")
    layer = lora.LoRAEmbedding(*arguments)
    layer.lora_embedding_A = torch.nn.Parameter(torch.empty(rank, module.num_embeddings))
    layer.lora_embedding_B = torch.nn.Parameter(torch.empty(module.embedding_dim, rank))
    return layer, "in_out"


def _convolution(
    module: Any, rank: int, biased: bool, arguments: Any
) -> tuple[lora.LoRALayer, WeightAxes]:
    kind, groups = type(module), module.groups
    transposed = kind in _TRANSPOSED
    more: dict[str, Any] = {}
    if transposed:
        more = {"output_padding": module.output_padding, "dilation": module.dilation}
    elif module.padding_mode != "zeros" or any(one != 1 for one in module.dilation):
        raise StateDictError(
            f"padding_mode={module.padding_mode!r}, dilation={module.dilation}: PEFT's layer "
            "leaves both out, so that what it computes and what it merges are two things"
        )
    if rank % groups:
        raise StateDictError(f"its {groups} groups do not divide the rank {rank}")
    layer = (_TRANSPOSED[kind] if transposed else _CONVOLUTIONS[kind])(*arguments)
    layer.lora_A = kind(
        module.in_channels,
        rank,
        module.kernel_size,
        module.stride,
        module.padding,
        bias=False,
        **more,
    )
    layer.lora_B = kind(rank, module.out_channels, 1, groups=groups, bias=biased)
    return layer, "transposed" if transposed else "out_in"


def _check_mergeable(module: Any, tensors: Mapping[str, Tensor]) -> None:
    """Refuse what PEFT cannot merge, either."""
    if getattr(module, "groups", 1) > 1:
        raise StateDictError(
            f"it has {module.groups} groups and its adapter has none, so that no weight of it is "
            f"their sum; without {argument('merge', True)} they stay apart"
        )
    if "lora_B.bias" in tensors and module.bias is None:
        raise StateDictError(
            "the adapter has a bias and the layer has none to add it to; without "
            f"{argument('merge', True)} they stay apart"
        )
