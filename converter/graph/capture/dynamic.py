"""Which sizes of a model's inputs are dynamic: what is asked of torch.export, what it found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import sympy
import torch
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_leaves

from mlxport.converter.errors import CaptureError, OptionsError
from mlxport.converter.graph.capture.guard_lines import GuardLines
from mlxport.converter.graph.ir.sizes import Size, shape_of, symbolic
from mlxport.converter.ranges import is_whole
from mlxport.converter.torch_model.caches import caches_in
from mlxport.converter.torch_model.calls import spread_arguments

Sizes = Mapping[str, int]  # torch's symbol -> a size
# Axes in every input, or per argument of ``forward``.
DynamicAxes: TypeAlias = Sequence[int] | int | Mapping[str, Sequence[int] | int]

STATIC = "Convert without dynamic sizes, or name fewer axes."


@dataclass(frozen=True)
class DynamicSizes:
    """The wish for dynamic sizes.

    Attributes:
        axes: axes that are dynamic in every input that has them and more than one element there.
            Sizes that are equal in the example along one of them are one size.
        shapes: torch.export's own ``dynamic_shapes``, in place of ``axes``.
        inputs: argument of ``forward`` -> its dynamic axes, in place of ``axes``; the sizes of
            several arguments are each their own.
    """

    axes: tuple[int, ...] = ()
    shapes: Any = None
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, axes: DynamicAxes | None, shapes: Any) -> DynamicSizes | None:
        """Return the wish that two options speak of; None where neither does.

        Raises:
            OptionsError: both do, or an axis is negative.
        """
        if axes is not None and shapes is not None:
            raise OptionsError("give either dynamic (axes) or dynamic_shapes, not both")
        if axes is None:
            return None if shapes is None else cls(shapes=shapes)
        if isinstance(axes, Mapping):
            inputs = {name: _listed(given) for name, given in axes.items()}
            if not inputs:
                raise OptionsError("dynamic={}: expected an argument of forward() and its axes")
            return cls(inputs=inputs)
        return cls(_listed(axes))

    def for_export(
        self, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Return the ``dynamic_shapes`` of torch.export for a call.

        Raises:
            OptionsError: no input has more than one element along an axis asked for.
        """
        if self.shapes is not None:
            return self.shapes
        asked = list(self.asked(model, args, kwargs))
        self._refuse_ones(asked)
        collection = ShapesCollection()
        for tensor, axes in asked:
            marked = {axis: Dim.AUTO for axis in axes if _has(tensor, axis)}
            if marked:
                collection[tensor] = marked
        return collection.dynamic_shapes(model, args, kwargs)

    def asked(
        self, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[tuple[torch.Tensor, tuple[int, ...]]]:
        """Yield the tensors of a call, in order, each with the axes that are to be dynamic.

        Raises:
            OptionsError: ``inputs`` names an argument that the call has not.
        """
        given = spread_arguments(model, args, kwargs)
        if unknown := self.inputs.keys() - given.keys():
            raise OptionsError(
                f"dynamic: no argument {', '.join(sorted(unknown))} is given; there are "
                f"{', '.join(given)}"
            )
        for name, value in given.items():
            for tensor in tree_leaves(value):
                if isinstance(tensor, torch.Tensor):
                    yield tensor, self.inputs.get(name, self.axes)

    def wanted(
        self, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[frozenset[int]]:
        """Return of each tensor of a call the axes that are to be dynamic and can be."""
        asked = self.asked(model, args, kwargs)
        return [frozenset(axis for axis in axes if _has(tensor, axis)) for tensor, axes in asked]

    def _refuse_ones(self, asked: Sequence[tuple[torch.Tensor, tuple[int, ...]]]) -> None:
        lacking = [
            axis
            for axis in dict.fromkeys(axis for _, axes in asked for axis in axes)
            if not any(_has(tensor, axis) for tensor, axes in asked if axis in axes)
        ]
        if lacking:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor, _ in asked)
            raise OptionsError(
                f"dynamic={dict(self.inputs) or self.axes}: no example input has more than one "
                f"element along axis {', '.join(map(str, lacking))} ({shapes}). torch.export "
                "takes a size of one for one that is always one: give an example with two or more "
                "there."
            )

    def _untied(self) -> str:
        """Say how sizes are kept apart that need not be one."""
        if not self.axes:
            return ""
        return (
            "Sizes equal in the example are one size along an axis; axes per input, "
            "dynamic={'x': (0, 1), 'mask': 0}, keep them apart. "
        )

    def unite(
        self,
        program: ExportedProgram,
        model: torch.nn.Module,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> None:
        """Make one size of those that are equal in the example along an axis asked for.

        torch.export gives each axis a size of its own where it sees no need for them to be equal.
        Of axes asked for by argument, those of the layers of one cache are one size.

        Args:
            program: what torch.export captured.
            model: the torch module.
            args: positional inputs.
            kwargs: keyword inputs.
        """
        values = [value for value in map(_val, user_inputs(program)) if _is_tensor(value)]
        for axis, places in self._united(spread_arguments(model, args, kwargs), len(values)):
            first: dict[int, Any] = {}
            for value in (values[place] for place in places):
                if axis < value.ndim and (size := _hint(value.shape[axis])) > 1:
                    # the comparison itself tells torch: what is equal once is so from then on
                    bool(first.setdefault(size, value.shape[axis]) == value.shape[axis])

    def _united(
        self, arguments: Mapping[str, Any], count: int
    ) -> Iterator[tuple[int, Sequence[int]]]:
        """Yield each axis with the places of the tensors whose sizes there go together."""
        for axis in self.axes:
            yield axis, range(count)
        start = 0
        for name, value in arguments.items():
            stop = start + sum(map(_is_tensor, tree_leaves(value)))
            if any(caches_in(value)):
                yield from ((axis, range(start, stop)) for axis in self.inputs.get(name, ()))
            start = stop

    def check(self, program: ExportedProgram, lines: GuardLines | None = None) -> None:
        """Hold what torch.export found dynamic to the wish.

        Args:
            program: what torch.export captured.
            lines: where in the model it decided by sizes.

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
                sizes = " and ".join(sorted(set(map(str, found))))
                at = lines.of_axis(axis)[:1] if lines else []
                fixed.append(f"axis {axis} is {sizes}" + "".join(f", by {place}" for place in at))
        if fixed or not any(isinstance(size, Size) for shape in shapes for size in shape):
            raise CaptureError.listing(
                "torch.export finds that the model works at one size only:",
                fixed or ["every size of every input"],
                "Something in it computes with the number itself (a fixed table of positions, a "
                f"window count, a loop over a size). {self._untied()}{STATIC}",
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
    """Yield torch's symbols with the least and the largest size each may have.

    Numbers that the model reads of values are no sizes: they have no least.
    """
    for symbol, allowed in program.range_constraints.items():
        if not allowed.lower.is_Integer:
            continue
        upper = int(allowed.upper) if allowed.upper.is_Integer else None
        yield str(symbol), int(allowed.lower), upper


def named_ranges(
    program: ExportedProgram, names: Mapping[str, str]
) -> dict[str, tuple[int, int | None]]:
    """Return the least and largest size that each dynamic size may have, by its name."""
    return {names[s]: (low, high) for s, low, high in symbol_ranges(program) if s in names}


def _listed(axes: Any) -> tuple[int, ...]:
    listed = tuple(axes) if isinstance(axes, Iterable) else (axes,)
    if not listed or not all(is_whole(axis) and axis >= 0 for axis in listed):
        raise OptionsError(
            f"dynamic={listed}: expected axes counted from 0, e.g. (0,) for the batch or "
            "(0, 2, 3) for the batch and both sides of an image"
        )
    return tuple(dict.fromkeys(map(int, listed)))


def _hint(size: Any) -> int:
    """Return what a size is in the example, without fixing it to that."""
    return int(size.node.hint) if isinstance(size, torch.SymInt) else int(size)


def _val(node: torch.fx.Node) -> Any:
    return node.meta.get("val")


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _has(tensor: torch.Tensor, axis: int) -> bool:
    return axis < tensor.ndim and tensor.shape[axis] > 1
