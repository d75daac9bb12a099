"""Which sizes of a model's inputs are dynamic: what is asked of torch.export, what it found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_leaves

from mlxport.converter.errors import CaptureError, OptionsError
from mlxport.converter.graph.ir.sizes import Size, shape_of, symbolic
from mlxport.converter.ranges import is_whole

Sizes = Mapping[str, int]  # torch's symbol -> a size

STATIC = "Convert without dynamic sizes, or name fewer axes."


@dataclass(frozen=True)
class DynamicSizes:
    """The wish for dynamic sizes.

    Attributes:
        axes: axes that are dynamic in every input that has them and more than one element there.
        shapes: torch.export's own ``dynamic_shapes``, in place of ``axes``.
    """

    axes: tuple[int, ...] = ()
    shapes: Any = None

    @classmethod
    def of(cls, axes: Sequence[int] | int | None, shapes: Any) -> DynamicSizes | None:
        """Return the wish that two options speak of; None where neither does.

        Raises:
            OptionsError: both do, or an axis is negative.
        """
        if axes is not None and shapes is not None:
            raise OptionsError("give either dynamic (axes) or dynamic_shapes, not both")
        if axes is None:
            return None if shapes is None else cls(shapes=shapes)
        listed = tuple(axes) if isinstance(axes, Iterable) else (axes,)
        if not listed or not all(is_whole(axis) and axis >= 0 for axis in listed):
            raise OptionsError(
                f"dynamic={listed}: expected axes counted from 0, e.g. (0,) for the batch or "
                "(0, 2, 3) for the batch and both sides of an image"
            )
        return cls(tuple(dict.fromkeys(map(int, listed))))

    def for_export(
        self, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Return the ``dynamic_shapes`` of torch.export for a call.

        Raises:
            OptionsError: no input has more than one element along an axis asked for.
        """
        if self.shapes is not None:
            return self.shapes
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        lacking = [axis for axis in self.axes if not any(_has(t, axis) for t in tensors)]
        if lacking:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
            raise OptionsError(
                f"dynamic={self.axes}: no example input has more than one element along axis "
                f"{', '.join(map(str, lacking))} ({shapes}). torch.export takes a size of one for "
                "one that is always one: give an example with two or more there."
            )
        collection = ShapesCollection()
        for tensor in tensors:
            marked = {axis: Dim.AUTO for axis in self.axes if _has(tensor, axis)}
            if marked:
                collection[tensor] = marked
        return collection.dynamic_shapes(model, args, kwargs)

    def check(self, program: ExportedProgram) -> None:
        """Hold what torch.export found dynamic to the wish.

        Raises:
            CaptureError: an axis asked for is static in every input, or no size is dynamic at all.
        """
        numbers = [n.name for n in user_inputs(program) if isinstance(symbolic(_val(n)), Size)]
        if numbers:
            raise CaptureError(
                f"numbers as inputs stay what they are at capture: {', '.join(numbers)}. Give only "
                "sizes of tensors as dynamic."
            )
        shapes = [shape_of(val) for val in map(_val, user_inputs(program)) if _is_tensor(val)]
        fixed = []
        for axis in self.axes:
            found = [shape[axis] for shape in shapes if axis < len(shape)]
            if not any(isinstance(size, Size) for size in found):
                fixed.append(f"axis {axis} is {' and '.join(sorted(set(map(str, found))))}")
        if fixed or not any(isinstance(size, Size) for shape in shapes for size in shape):
            raise CaptureError.listing(
                "torch.export finds that the model works at one size only:",
                fixed or ["every size of every input"],
                "Something in it computes with the number itself (a fixed table of positions, a "
                "window count, a loop over a size); TORCH_LOGS=+dynamic says where. " + STATIC,
            )


def input_shapes(program: ExportedProgram) -> list[tuple[Any, ...]]:
    """Return the shapes of the inputs, a `Size` where dynamic; empty for what is no tensor."""
    values = map(_val, user_inputs(program))
    return [shape_of(value) if _is_tensor(value) else () for value in values]


def numbers_at(shape: Sequence[Any], sizes: Sizes) -> tuple[int, ...]:
    """Return a shape in numbers."""

    def number(size: Any) -> int:
        if not isinstance(size, Size):
            return int(size)
        numbers = {s: sympy.Integer(sizes[str(s)]) for s in size.expr.free_symbols}
        return int(size.expr.xreplace(numbers))

    return tuple(map(number, shape))


def user_inputs(program: ExportedProgram) -> list[torch.fx.Node]:
    """Return the placeholders of what the model's caller gives, in order."""
    specs = program.graph_signature.input_specs
    names = {spec.arg.name for spec in specs if spec.kind is InputKind.USER_INPUT}
    nodes = (node for node in program.graph.nodes if node.op == "placeholder")
    return [node for node in nodes if node.name in names]


def symbol_ranges(program: ExportedProgram) -> Iterator[tuple[str, int, int | None]]:
    """Yield torch's symbols with the least and the largest size each may have."""
    for symbol, allowed in program.range_constraints.items():
        upper = int(allowed.upper) if allowed.upper.is_Integer else None
        yield str(symbol), int(allowed.lower), upper


def named_ranges(
    program: ExportedProgram, names: Mapping[str, str]
) -> dict[str, tuple[int, int | None]]:
    """Return the least and largest size that each dynamic size may have, by its name."""
    return {names[s]: (low, high) for s, low, high in symbol_ranges(program) if s in names}


def _val(node: torch.fx.Node) -> Any:
    return node.meta.get("val")


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _has(tensor: torch.Tensor, axis: int) -> bool:
    return axis < tensor.ndim and tensor.shape[axis] > 1
