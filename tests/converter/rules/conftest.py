"""The parity check every rule's tests share, judged as `mlxport verify` judges: against float64."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten
from torch.utils._pytree import tree_leaves

from mlxport.converter.plan.tensor import Tensor, to_mlx
from mlxport.converter.plan.torch_tensor import tensor_from_torch
from mlxport.converter.plan.weight_plan import WeightPlan
from mlxport.converter.rules.build import build_layer, spec_for
from mlxport.converter.rules.registry import Axes, LayerSpec

NOISE_MULTIPLE = 32


@pytest.fixture(scope="session")
def assert_layer_parity() -> Callable[..., None]:
    """`assert_layer_parity(module, *inputs, train=False, gradients=False, dtype=torch.float32)`.

    Inputs are torch tensors in PyTorch's layout. Checks shape, dtype and relative L2 error of every
    output in every axis order the rule's `axes` promises to accept; with `train`, the state after
    the forward pass too; with `gradients`, those of every floating input and parameter.
    """
    return _assert_layer_parity


def _assert_layer_parity(
    module: torch.nn.Module,
    *inputs: torch.Tensor,
    train: bool = False,
    gradients: bool = False,
    dtype: torch.dtype = torch.float32,
) -> None:
    module = copy.deepcopy(module).to(dtype).train(train)
    inputs = tuple(_cast(x, dtype) for x in inputs)
    exact = copy.deepcopy(module).double()
    exact_inputs = tuple(_cast(x, torch.float64) for x in inputs)
    spec = spec_for(module)
    layer = build_layer(module)
    assert layer.training == train

    first = True
    for forth, back in _orders(spec, inputs):
        if not first:  # another axis order starts from the same state
            layer = build_layer(module)
        got = [back(y) for y in _leaves(layer(*map(forth, inputs)))]
        if first:
            want = _leaves(exact(*exact_inputs))
            module_in_dtype = copy.deepcopy(module)
            in_dtype = _leaves(module_in_dtype(*inputs))
        assert len(got) == len(want), "number of outputs"
        for index, triple in enumerate(zip(got, in_dtype, want, strict=True)):
            _compare(f"output {index}", *triple, dtype=dtype)
        if train:
            _compare_state(spec, layer, module_in_dtype, exact, dtype)
        first = False
    if gradients:
        _compare_gradients(module, inputs, spec, dtype)


def _cast(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return x.to(dtype) if x.is_floating_point() else x


def _leaves(value: Any) -> list[Any]:
    return [leaf for leaf in tree_leaves(value) if leaf is not None]


def _orders(
    spec: LayerSpec, inputs: tuple[torch.Tensor, ...]
) -> Iterator[tuple[Callable[[torch.Tensor], mx.array], Callable[[mx.array], torch.Tensor]]]:
    """Yield how to bring inputs to MLX and outputs back, once per axis order to be tried."""
    unbatched = spec.rank is not None and inputs[0].ndim == spec.rank + 1

    def channels_last(ndim: int) -> tuple[int, ...]:
        channel = 0 if unbatched else 1
        rest = (i for i in range(ndim) if i != channel)
        return (*rest, channel) if ndim > channel else tuple(range(ndim))

    def logical(ndim: int) -> tuple[int, ...]:
        return tuple(range(ndim))

    def leading_reversed(ndim: int) -> tuple[int, ...]:
        return (*reversed(range(ndim - 1)), ndim - 1) if ndim else ()

    def all_reversed(ndim: int) -> tuple[int, ...]:
        return tuple(reversed(range(ndim)))

    tried = {
        Axes.CHANNELS_LAST: [channels_last],
        Axes.FEATURES_LAST: [logical, leading_reversed],
        Axes.ANY: [logical, all_reversed],
        Axes.LOGICAL: [logical],
    }
    for order in tried[spec.axes]:
        yield (
            lambda x, order=order: to_mlx(tensor_from_torch(x.permute(order(x.ndim)))),
            lambda y, order=order: _to_torch(y).permute(np.argsort(order(y.ndim)).tolist()),
        )


def _to_torch(y: mx.array) -> torch.Tensor:
    if y.dtype == mx.bfloat16:
        return torch.from_numpy(np.array(y.view(mx.uint16))).view(torch.bfloat16)
    return torch.from_numpy(np.array(y))


def _compare(
    name: str, got: torch.Tensor, in_dtype: torch.Tensor, want: torch.Tensor, *, dtype: torch.dtype
) -> None:
    """Compare MLX's value with torch's in float64; torch's in its own dtype sets the scale."""
    in_dtype, want = in_dtype.detach(), want.detach()
    assert got.shape == want.shape, f"{name}: shape {got.shape}, torch has {want.shape}"
    assert got.dtype == in_dtype.dtype, f"{name}: dtype {got.dtype}, torch has {in_dtype.dtype}"
    if not in_dtype.is_floating_point() and not in_dtype.is_complex():
        assert torch.equal(got, in_dtype), f"{name}: integers differ"
        return
    for kind in (torch.isnan, torch.isposinf, torch.isneginf):
        assert torch.equal(kind(got), kind(in_dtype)), f"{name}: {kind.__name__} differs"
    finite = torch.isfinite(in_dtype) & torch.isfinite(want)
    error, noise = (_error(x[finite], want[finite]) for x in (got, in_dtype))
    limit = NOISE_MULTIPLE * max(noise, torch.finfo(dtype).eps / 2)
    assert error <= limit, f"{name}: error {error:.3g}, torch's {noise:.3g}, limit {limit:.3g}"


def _error(x: torch.Tensor, reference: torch.Tensor) -> float:
    difference = torch.linalg.vector_norm(x.double() - reference)
    scale = torch.linalg.vector_norm(reference)
    return float(difference / scale) if scale > 0 else float(difference)


def _in_mlx(spec: LayerSpec, module: torch.nn.Module) -> dict[str, torch.Tensor]:
    state = {key: tensor_from_torch(t) for key, t in module.state_dict().items()}
    plan = WeightPlan(spec.entries, spec.ignored)
    return {name: _from_bits(t) for name, t in plan.apply(state)}


def _from_bits(tensor: Tensor) -> torch.Tensor:
    bits = torch.from_numpy(tensor.bits.copy())
    return bits.view(torch.bfloat16) if tensor.dtype == "BF16" else bits


def _compare_state(
    spec: LayerSpec,
    layer: Any,
    in_dtype: torch.nn.Module,
    exact: torch.nn.Module,
    dtype: torch.dtype,
) -> None:
    got = tree_flatten(layer.parameters(), destination={})
    noisy, reference = _in_mlx(spec, in_dtype), _in_mlx(spec, exact)
    assert got.keys() == reference.keys()
    for name, value in got.items():
        _compare(f"state {name}", _to_torch(value), noisy[name], reference[name], dtype=dtype)


def _compare_gradients(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    spec: LayerSpec,
    dtype: torch.dtype,
) -> None:
    with torch.no_grad():
        cotangents = [
            torch.randn(y.shape, dtype=torch.float64) if y.is_floating_point() else None
            for y in _leaves(copy.deepcopy(module)(*inputs))
        ]
    want = _torch_gradients(copy.deepcopy(module).double(), inputs, cotangents, torch.float64)
    in_dtype = _torch_gradients(copy.deepcopy(module), inputs, cotangents, dtype)
    got = _mlx_gradients(module, inputs, cotangents, spec, dtype)
    assert got.keys() == want.keys()
    for name in want:
        _compare(f"gradient of {name}", got[name], in_dtype[name], want[name], dtype=dtype)


def _torch_gradients(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    cotangents: list[torch.Tensor | None],
    dtype: torch.dtype,
) -> dict[str, torch.Tensor]:
    leaves = [_cast(x, dtype).detach().clone() for x in inputs]
    named = {f"input {i}": x for i, x in enumerate(leaves) if x.is_floating_point()}
    for x in named.values():
        x.requires_grad_()
    named.update(module.named_parameters())
    outputs = _leaves(module(*leaves))
    pairs = [(y, c.to(y.dtype)) for y, c in zip(outputs, cotangents, strict=True) if c is not None]
    loss = sum((y * c).sum() for y, c in pairs)
    grads = torch.autograd.grad(loss, list(named.values()))
    return dict(zip(named, grads, strict=True))


def _mlx_gradients(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    cotangents: list[torch.Tensor | None],
    spec: LayerSpec,
    dtype: torch.dtype,
) -> dict[str, torch.Tensor]:
    layer = build_layer(module)
    forth, back = next(_orders(spec, inputs))
    arrays = [forth(x) for x in inputs]
    floating = [i for i, x in enumerate(inputs) if x.is_floating_point()]
    weights = tree_flatten(layer.trainable_parameters())
    names = [name for name, _ in weights]

    def run(*values: mx.array) -> list[mx.array]:
        layer.load_weights(list(zip(names, values[len(floating) :], strict=True)), strict=False)
        given = dict(zip(floating, values, strict=False))
        outputs = _leaves(layer(*(given.get(i, x) for i, x in enumerate(arrays))))
        return [y for y, c in zip(outputs, cotangents, strict=True) if c is not None]

    primals = [*(arrays[i] for i in floating), *(value for _, value in weights)]
    seeds = [forth(c.to(dtype)) for c in cotangents if c is not None]
    _, grads = mx.vjp(run, primals, seeds)
    result = {f"input {i}": back(g) for i, g in zip(floating, grads[: len(floating)], strict=True)}
    in_mlx = {
        name: tensor_from_torch(_to_torch(g))
        for name, g in zip(names, grads[len(floating) :], strict=True)
    }
    entries = tuple(e for e in spec.entries if all(t in in_mlx for t in e.targets))
    restored = WeightPlan(entries).invert(in_mlx)
    result.update({key: _from_bits(t) for key, t in restored})
    return result
