"""Build the arguments a hand-written MLX model may expect: PyTorch's inputs in several orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

import mlx.core as mx
import torch
from torch.utils._pytree import tree_map

from mlxport.converter.errors import OptionsError
from mlxport.converter.parity.hand_port.infer_order import (
    AxisOrder,
    channels_last_order,
    torch_order,
)
from mlxport.converter.parity.reference.recorded_values import raw_copy, tensors
from mlxport.converter.parity.run.layouts import to_mlx_order
from mlxport.converter.plan.record import Layout
from mlxport.converter.plan.tensor import MLX_DTYPE
from mlxport.converter.torch_model.calls import CallArguments

OrderSpec: TypeAlias = "str | Sequence[int]"  # "logical", "channels_last", or the axes one by one

# What the MLX model is called with, or a function of PyTorch's inputs as mx.arrays that gives it.
MlxInputs: TypeAlias = "mx.array | Sequence[Any] | Mapping[str, Any] | Callable[..., Any]"

_MOST_TRIED = 16


@dataclass(frozen=True, eq=False)
class MlxArguments:
    """Arguments of the MLX model.

    Attributes:
        args: positional.
        kwargs: by name.
        orders: of PyTorch's input tensors; empty where the user gave the arrays.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    orders: tuple[AxisOrder, ...] = ()


def candidate_arguments(
    given: CallArguments, orders: OrderSpec | Sequence[OrderSpec] | None
) -> Iterator[MlxArguments]:
    """Yield PyTorch's inputs as the MLX model may take them, the likeliest first.

    All in PyTorch's order, all channels-last, mixed; then the same without a batch axis of size 1.

    Args:
        given: PyTorch's positional and keyword arguments.
        orders: the order of all inputs, or of each, where the user says it.

    Raises:
        OptionsError: the orders do not fit the inputs.
    """
    inputs = tensors(given)
    if orders is not None:
        yield ordered_arguments(
            given, parse_orders(orders, [x.ndim for x in inputs], "inputs_order")
        )
        return
    ways = [list(dict.fromkeys([torch_order(x.ndim), channels_last_order(x.ndim)])) for x in inputs]
    last = tuple(way[-1] for way in ways)
    mixed = [o for _, o in zip(range(_MOST_TRIED), product(*ways), strict=False)]
    whole = list(dict.fromkeys([tuple(way[0] for way in ways), last, *mixed]))
    for one in whole:
        yield ordered_arguments(given, one)
    batched = [x.ndim > 1 and x.shape[0] == 1 for x in inputs]
    for one in whole if any(batched) else []:
        pairs = zip(one, batched, strict=True)
        yield ordered_arguments(
            given, tuple(order[1:] if batch else order for order, batch in pairs)
        )


def explicit_arguments(inputs: MlxInputs, given: CallArguments) -> MlxArguments:
    """Return the arguments the user gave, or those that a function makes of PyTorch's inputs."""
    if callable(inputs) and not isinstance(inputs, mx.array):
        plain = ordered_arguments(given, tuple(torch_order(x.ndim) for x in tensors(given)))
        inputs = inputs(*plain.args, **plain.kwargs)
    if isinstance(inputs, Mapping):
        return MlxArguments((), dict(inputs))
    return MlxArguments(tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,), {})


def ordered_arguments(given: CallArguments, orders: Sequence[AxisOrder]) -> MlxArguments:
    """Return PyTorch's arguments with every tensor as an array in the order given."""
    left = iter(orders)

    def array(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        tensor = raw_copy(leaf)
        dtype = MLX_DTYPE.get(tensor.dtype, "float32")
        return to_mlx_order(tensor, Layout(tuple(leaf.shape), dtype, next(left)))

    args, kwargs = tree_map(array, given)
    return MlxArguments(args, kwargs, tuple(orders))


def parse_orders(
    axes: OrderSpec | Sequence[OrderSpec], ranks: Sequence[int], option: str
) -> tuple[AxisOrder, ...]:
    """Return what the user says of the order of some tensors, each as axes.

    Raises:
        OptionsError: an unknown word, no permutation of the axes, or another number of tensors.
    """
    alone = isinstance(axes, str) or all(isinstance(axis, int) for axis in axes)
    each: Sequence[Any] = [axes] * len(ranks) if alone else axes
    if len(each) != len(ranks):
        raise OptionsError(f"{option} speaks of {len(each)} tensors, there are {len(ranks)}")
    found, problems = [], []
    for number, (one, rank) in enumerate(zip(each, ranks, strict=True)):
        words = {"logical": torch_order(rank), "channels_last": channels_last_order(rank)}
        order = words.get(one, ()) if isinstance(one, str) else tuple(one)
        if sorted(order) != list(range(rank)):
            problems.append(f"tensor {number} of {rank} axes: {one!r}")
        found.append(order)
    if problems:
        advice = '"logical", "channels_last", or every axis of PyTorch once, as MLX stores them.'
        raise OptionsError.listing(f"{option} does not fit:", problems, advice)
    return tuple(found)
