"""Call one MLX module alone, with the inputs its counterpart had in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxport.converter.parity.run.layouts import to_mlx_order
from mlxport.converter.parity.run.trace import TracedCall, arrays, leaves, mapped
from mlxport.converter.plan.record import ModuleRecord
from mlxport.converter.plan.tensor import Tensor


@dataclass(frozen=True)
class _Placeholder:
    """The place of an array among a call's arguments."""

    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class CallTemplate:
    """How a module was called, without the arrays, so that they need not stay in memory.

    Attributes:
        module: the MLX module.
        arguments: ``(args, kwargs)`` with a placeholder for every array.
        record: the axis orders and dtypes of its inputs.
    """

    module: nn.Module
    arguments: Any
    record: ModuleRecord

    @classmethod
    def of(cls, traced: TracedCall, record: ModuleRecord) -> CallTemplate:
        """Note how a traced call was made."""
        return cls(traced.module, mapped(_without_array, (traced.args, traced.kwargs)), record)

    def outputs(self, given: Sequence[Tensor]) -> tuple[mx.array, ...]:
        """Call the module on PyTorch's tensors and return the arrays of its result, evaluated."""
        pairs = zip(given, self.record.inputs, strict=True)
        inputs = iter([to_mlx_order(tensor, layout) for tensor, layout in pairs])
        args, kwargs = mapped(
            lambda leaf: next(inputs) if isinstance(leaf, _Placeholder) else leaf, self.arguments
        )
        outputs = tuple(arrays(self.module(*args, **kwargs)))
        mx.eval(outputs)
        return outputs

    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the arrays it was called with."""
        return [leaf.shape for leaf in leaves(self.arguments) if isinstance(leaf, _Placeholder)]

    def obstacle(self, given: Sequence[Tensor] | None) -> str:
        """Say why the module cannot be called on these tensors; empty where it can."""
        if given is None:
            return "the reference holds no layer inputs"
        layouts, places = self.record.inputs, list(leaves(self.arguments))
        # flags and texts are the same in every call; a number may be computed from a value
        places = [place for place in places if not isinstance(place, (bool, str, type(None)))]
        others = sorted(
            {type(place).__name__ for place in places if not isinstance(place, _Placeholder)}
        )
        if others:
            return f"takes arguments that are no tensors ({', '.join(others)})"
        if not len(given) == len(layouts) == len(places):
            return f"takes {len(given)} tensors in PyTorch, {len(places)} in MLX"
        for tensor, layout, place in zip(given, layouts, places, strict=True):
            if len(tensor.shape) != len(layout.shape):
                return f"fed {len(tensor.shape)} axes, converted for {len(layout.shape)}"
            shape = tuple(1 if axis < 0 else tensor.shape[axis] for axis in layout.order)
            if shape != place.shape:
                return f"fed {shape} in PyTorch, {place.shape} in MLX"
        return ""


def _without_array(leaf: Any) -> Any:
    return _Placeholder(tuple(leaf.shape)) if isinstance(leaf, mx.array) else leaf
