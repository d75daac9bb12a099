"""The gradients of a sample's inputs and parameters, by ``mx.vjp`` and by torch's autograd."""

from __future__ import annotations

import copy
from typing import Any

import mlx.core as mx
import torch
from mlx.utils import tree_flatten
from sample_database import Call
from sample_parity import Converted, differences, from_mlx, named
from torch.utils._pytree import tree_leaves

from mlxport.converter.torch_model.encoder_padding import padding_zeroed

# Gradients of a few values, of which one run of PyTorch's may be nearly exact by luck. In a
# conversion what fails is judged again by how far they move; here it is judged once.
_NOISE_MULTIPLE = 32

# torch's class -> the place of a floating-point input that torch gives no gradient for
_WITHOUT_GRADIENT = {torch.nn.SoftMarginLoss: 1}


def gradient_problems(module: torch.nn.Module, call: Call) -> list[str]:
    """Return which gradients, of floating-point inputs and of parameters, are wrong."""
    converted = Converted(module, call)
    with torch.no_grad():
        outputs = tree_leaves(call.run(copy.deepcopy(module)))
    seeds = [torch.randn(y.shape) for y in outputs if _floats(y)]
    double = copy.deepcopy(module).double()
    with padding_zeroed():
        own = _torch_gradients(module, call, seeds, converted)
        exact = _torch_gradients(double, call.to(torch.float64), seeds, converted)
    got = _mlx_gradients(converted, call, seeds)
    got.pop(f"gradient of input {_WITHOUT_GRADIENT.get(type(module))}", None)
    return [*differences(got, own, exact, _NOISE_MULTIPLE)]


def _floats(x: Any) -> bool:
    return torch.is_tensor(x) and x.is_floating_point()


def _torch_gradients(
    module: torch.nn.Module, call: Call, seeds: list[torch.Tensor], converted: Converted
) -> dict[str, torch.Tensor]:
    call = call.map(torch.Tensor, torch.clone)
    floating = [x for x in tree_leaves((call.args, call.kwargs)) if _floats(x)]
    without = _WITHOUT_GRADIENT.get(type(module))
    inputs = {
        f"gradient of input {i}": x.requires_grad_() for i, x in enumerate(floating) if i != without
    }
    parameters = dict(module.named_parameters())
    outputs = [y for y in tree_leaves(module(*call.args, **call.kwargs)) if _floats(y)]
    loss = sum((y * seed.to(y.dtype)).sum() for y, seed in zip(outputs, seeds, strict=True))
    grads = torch.autograd.grad(
        loss, [*inputs.values(), *parameters.values()], allow_unused=True, materialize_grads=True
    )
    result = dict(zip(inputs, grads, strict=False))
    of_parameters = dict(zip(parameters, grads[len(inputs) :], strict=True))
    in_mlx = converted.parameters_of(of_parameters)
    return result | {f"gradient of {name}": g for name, g in in_mlx.items()}


def _mlx_gradients(
    converted: Converted, call: Call, seeds: list[torch.Tensor]
) -> dict[str, torch.Tensor]:
    layer = converted.layer
    inputs = [converted.to_mlx(x) for x in tree_leaves((call.args, call.kwargs)) if _floats(x)]
    weights = dict(tree_flatten(layer.trainable_parameters()))

    def outputs(*values: mx.array) -> list[mx.array]:
        layer.load_weights(list(zip(weights, values[len(inputs) :], strict=True)), strict=False)
        given = iter(values)
        arrays = call.map(
            torch.Tensor, lambda x: next(given) if _floats(x) else converted.to_mlx(x)
        )
        results = named("output", layer(*arrays.args, **arrays.kwargs)).values()
        return [y for y in results if isinstance(y, mx.array) and _is_floating(y)]

    cotangents = [converted.to_mlx(seed) for seed in seeds]
    _, grads = mx.vjp(outputs, [*inputs, *weights.values()], cotangents)
    result = {
        f"gradient of input {i}": converted.to_torch(g) for i, g in enumerate(grads[: len(inputs)])
    }
    of_weights = zip(weights, grads[len(inputs) :], strict=True)
    return result | {f"gradient of {name}": from_mlx(g) for name, g in of_weights}


def _is_floating(y: mx.array) -> bool:
    return bool(mx.issubdtype(y.dtype, mx.floating))
