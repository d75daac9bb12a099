"""Call one MLX module again, on what PyTorch fed its counterpart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxport.converter.parity.run.axis_orders import to_mlx_order
from mlxport.converter.parity.run.trace import TracedCall, arrays, leaves, mapped
from mlxport.converter.plan.record import ModuleRecord
from mlxport.converter.plan.tensor import Tensor


@dataclass(frozen=True)
class _Hole:
    """Where an array stood among a call's arguments."""

    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Recall:
    """How a module was called, without the arrays, so that they need not stay in memory.

    Attributes:
        module: the MLX module.
        arguments: ``(args, kwargs)`` with a hole for every array.
        record: the axis orders and dtypes of its inputs.
    """

    module: nn.Module
    arguments: Any
    record: ModuleRecord

    @classmethod
    def of(cls, traced: TracedCall, record: ModuleRecord) -> Recall:
        """Note how a traced call was made."""
        return cls(traced.module, mapped(_hollowed, (traced.args, traced.kwargs)), record)

    def outputs(self, given: Sequence[Tensor]) -> tuple[mx.array, ...]:
        """Call the module on PyTorch's tensors and return the arrays of its result, evaluated."""
        pairs = zip(given, self.record.inputs, strict=True)
        feed = iter([to_mlx_order(tensor, layout) for tensor, layout in pairs])
        args, kwargs = mapped(
            lambda leaf: next(feed) if isinstance(leaf, _Hole) else leaf, self.arguments
        )
        outputs = tuple(arrays(self.module(*args, **kwargs)))
        mx.eval(outputs)
        return outputs

    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the arrays it was called with."""
        return [hole.shape for hole in leaves(self.arguments) if isinstance(hole, _Hole)]

    def obstacle(self, given: Sequence[Tensor] | None) -> str:
        """Say why the module cannot be called on these tensors; empty where it can."""
        if given is None:
            return "the reference holds no layer inputs"
        layouts, holes = self.record.inputs, list(leaves(self.arguments))
        # what is the same in every call; a number may be a size, or computed from a value
        holes = [hole for hole in holes if not isinstance(hole, (bool, str, type(None)))]
        others = sorted({type(hole).__name__ for hole in holes if not isinstance(hole, _Hole)})
        if others:
            return f"takes arguments that are no tensors ({', '.join(others)})"
        if not len(given) == len(layouts) == len(holes):
            return f"takes {len(given)} tensors in PyTorch, {len(holes)} in MLX"
        for tensor, layout, hole in zip(given, layouts, holes, strict=True):
            if len(tensor.shape) != len(layout.shape):
                return f"fed {len(tensor.shape)} axes, converted for {len(layout.shape)}"
            shape = tuple(1 if axis < 0 else tensor.shape[axis] for axis in layout.order)
            if shape != hole.shape:
                return f"fed {shape} in PyTorch, {hole.shape} in MLX"
        return ""


def _hollowed(leaf: Any) -> Any:
    return _Hole(tuple(leaf.shape)) if isinstance(leaf, mx.array) else leaf
