"""The steps from PyTorch's layout to that of an MLX layer's parameters, read off the layer.

The permutations themselves stand in ``steps``. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.nn as nn
from mlx.utils import tree_flatten

from mlxport import layers
from mlxport.converter.errors import ConversionError
from mlxport.converter.plan.steps import Step, bilinear_weight, conv_transpose_weight, conv_weight
from mlxport.converter.plan.tensor import Tensor, TensorSpec

Steps = tuple[Step, ...]


@dataclass(frozen=True)
class Slot:
    """A parameter of the MLX model.

    Attributes:
        name: its path in the model.
        torch: the name PyTorch would have for it (an MLX ``Sequential`` adds ``layers``).
        group: the path of the layer it belongs to.
        shape: in MLX.
        steps: from PyTorch's tensor to it; None where the layer does not say.
        wanted: the shape PyTorch's tensor must have; None where the steps are.
        reason: why it can have no tensor; empty where it may.
    """

    name: str
    torch: str
    group: str
    shape: tuple[int, ...]
    steps: Steps | None
    wanted: tuple[int, ...] | None
    reason: str = ""


def _conv(module: Any) -> Steps:
    return conv_weight(module.weight.ndim - 2)


def _conv_transpose(module: Any) -> Steps:
    return conv_transpose_weight(getattr(module, "groups", 1))


def _bilinear(_module: Any) -> Steps:
    return bilinear_weight()


# MLX layer -> its parameters whose axes differ from PyTorch's; the others are stored alike
_WEIGHTS: Mapping[type[nn.Module], Mapping[str, Callable[[Any], Steps]]] = {
    nn.Conv1d: {"weight": _conv},
    nn.Conv2d: {"weight": _conv},
    nn.Conv3d: {"weight": _conv},
    nn.ConvTranspose1d: {"weight": _conv_transpose},
    nn.ConvTranspose2d: {"weight": _conv_transpose},
    nn.ConvTranspose3d: {"weight": _conv_transpose},
    nn.Bilinear: {"weight": _bilinear},
    nn.Linear: {},
    nn.Embedding: {},
    nn.BatchNorm: {},
    nn.InstanceNorm: {},
    nn.GroupNorm: {},
    nn.LayerNorm: {},
    nn.RMSNorm: {},
    nn.PReLU: {},
    # ours have PyTorch's parameters, but for those that are MLX's layers
    **{
        cls: {}
        for cls in (getattr(layers, name) for name in layers.__all__)
        if not issubclass(cls, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
        and not issubclass(cls, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d))
    },
}

# MLX layers that compute what PyTorch's do, from other parameters
_OTHERWISE: Mapping[type[nn.Module], str] = {
    nn.RNN: "its biases are summed: use mlxport.layers.RNN",
    nn.GRU: "its biases are summed: use mlxport.layers.GRU",
    nn.LSTM: "its biases are summed: use mlxport.layers.LSTM",
    nn.QuantizedLinear: "it is quantised: load the weights first, then quantise",
    nn.QuantizedEmbedding: "it is quantised: load the weights first, then quantise",
}


def steps_for(module: nn.Module, name: str) -> Steps | None:
    """Return the steps from PyTorch's tensor to a layer's parameter of the same role.

    Args:
        module: the layer.
        name: of the parameter in it.

    Returns:
        No steps where the layout is the same; None where the layer is none that is known.
    """
    for cls in type(module).__mro__:
        if cls in _WEIGHTS:
            weights = _WEIGHTS[cls]
            return weights[name](module) if name in weights else ()
    return None


def reason_against(module: nn.Module) -> str:
    """Return why PyTorch's tensors do not go into a layer one by one; empty where they may."""
    return next((why for cls, why in _OTHERWISE.items() if isinstance(module, cls)), "")


def slots_of(model: nn.Module) -> Iterator[Slot]:
    """Yield the parameters of a model, in order."""
    modules = dict(model.named_modules())
    sequences = [path for path, module in modules.items() if isinstance(module, nn.Sequential)]
    parameters: dict[str, Any] = dict(tree_flatten(model.parameters()))
    for name, array in parameters.items():
        group, inner = _owner(name, modules)
        module = modules[group]
        steps, wanted = steps_for(module, inner), None
        if steps is not None:
            wanted = _torch_shape(tuple(array.shape), steps)
        torch = without_sequences(name, sequences)
        reason = reason_against(module)
        yield Slot(name, torch, group, tuple(array.shape), steps, wanted, reason)


def _owner(name: str, modules: Mapping[str, nn.Module]) -> tuple[str, str]:
    """Return the path of the innermost module that holds a parameter, and its name in there."""
    parts = name.split(".")
    for length in range(len(parts) - 1, -1, -1):
        path = ".".join(parts[:length])
        if path in modules:
            return path, ".".join(parts[length:])
    raise ConversionError(f"{name}: no module of the model holds this parameter")


def without_sequences(name: str, sequences: list[str]) -> str:
    """Return a name as PyTorch has it: the layers of its Sequential have no ``layers`` above."""
    for path in sorted(sequences, key=len, reverse=True):
        start = f"{path}." if path else ""
        if name.startswith(f"{start}layers."):
            name = start + name[len(start) + len("layers.") :]
    return name


def _torch_shape(shape: tuple[int, ...], steps: Steps) -> tuple[int, ...]:
    tensors: tuple[Tensor, ...] = (TensorSpec("U8", shape).outline(),)
    for step in reversed(steps):
        tensors = step.invert(tensors)
    return tensors[0].shape
