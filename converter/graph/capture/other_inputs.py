"""Example inputs at other sizes, to test that a model with dynamic sizes serves them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils._pytree import tree_flatten, tree_unflatten

from mlxport.converter.errors import CaptureError, ConversionError
from mlxport.converter.graph.capture.dynamic import STATIC, input_shapes, numbers_at, symbol_ranges
from mlxport.converter.graph.capture.guard_lines import GuardLines
from mlxport.converter.graph.capture.size_guards import satisfied
from mlxport.converter.graph.ir.size_reads import solved
from mlxport.converter.graph.ir.sizes import Size
from mlxport.converter.torch_model.model_state import trial_run
from mlxport.converter.torch_model.seeding import seeded

_logger = logging.getLogger(__name__)

SIZE_STEPS = (1, 2, 4, 8, 16, 32, 64)
MULTIPLES = (2, 3, 4)
FARTHEST_STEP = 4096  # so far from the example's a size is looked for that meets the conditions
MOST_RUNS = 24  # so often the program is run to see whether it takes some sizes


@dataclass(frozen=True)
class OtherInputs:
    """A call at other sizes than the example's.

    Attributes:
        args: positional inputs.
        kwargs: keyword inputs.
        sizes: name of each dynamic size -> its size here.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    sizes: dict[str, int]


def example_sizes(
    program: ExportedProgram, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, int]:
    """Return the size each of torch's symbols has in a call."""
    found: dict[str, int] = {}
    for shape, given in zip(input_shapes(program), _leaves(args, kwargs), strict=True):
        for size, number in zip(shape, given.shape if shape else (), strict=True):
            part = solved(size.key, number) if isinstance(size, Size) else None
            if part is not None and part[0].is_Symbol:
                found.setdefault(str(part[0]), int(part[1]))
    return found


def other_inputs(
    program: ExportedProgram,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    names: Mapping[str, str],
    conditions: Sequence[str] = (),
    lines: GuardLines | None = None,
) -> OtherInputs:
    """Return a call in which every dynamic size is another than in the example.

    Values are drawn from those of the example, so that an index stays one the model knows.

    Args:
        program: what torch.export captured, with its guards.
        args: positional example inputs.
        kwargs: keyword example inputs.
        names: torch's symbol -> what to call it.
        conditions: what must be true of the sizes, in their names.
        lines: where in the model torch.export decided by sizes.

    Raises:
        CaptureError: torch accepts none of the sizes tried; it says which and why.
    """
    search = _Search(program, args, kwargs, names, conditions, lines)
    sizes = search.find()
    given = search.inputs(sizes)
    return OtherInputs(*given, {names.get(s, s): size for s, size in sizes.items()})


def specialised_on_one(
    program: ExportedProgram,
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    lines: GuardLines,
) -> list[str]:
    """Return torch's symbols of the sizes at one of which a model does not do as captured.

    Its own code tells them from one, and torch.export captured what it does at more. Where it does
    the same in another way (attention to a single place needs no mask), no more is asked of them.

    Args:
        program: what torch.export captured, not decomposed.
        model: the torch module.
        args: positional example inputs.
        kwargs: keyword example inputs.
        lines: which sizes the model tells from one.
    """
    if not lines.above_one:
        return []
    search = _Search(program, args, kwargs, {}, (), None)
    special = [symbol for symbol in dict.fromkeys(lines.above_one) if symbol in search.example]
    return [symbol for symbol in special if search.differs(model, {**search.example, symbol: 1})]


class _Search:
    """Tries sizes until the captured program takes them."""

    def __init__(
        self,
        program: ExportedProgram,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        names: Mapping[str, str],
        conditions: Sequence[str],
        lines: GuardLines | None,
    ) -> None:
        self.lines = lines
        self.names, self.conditions = names, conditions
        self.shapes = input_shapes(program)
        self.leaves, self.spec = tree_flatten((tuple(args), dict(kwargs)))
        self.example = example_sizes(program, args, kwargs)
        self.ranges = {s: (low, high) for s, low, high in symbol_ranges(program)}
        self.module = program.module()
        first = [shape[0] for shape in self.shapes if shape and isinstance(shape[0], Size)]
        self.batch = {str(symbol) for size in first for symbol in size.expr.free_symbols}
        self.refusals: dict[str, str] = {}

    def find(self) -> dict[str, int]:
        """Return sizes that all differ from the example's."""
        for sizes in itertools.islice(self.candidates(list(self.example)), MOST_RUNS):
            if self.takes(sizes):
                return sizes
        found: dict[str, int] = {}  # one after the other, where they do not move together
        for symbol in self.example:
            ways = itertools.islice(self.candidates([symbol]), MOST_RUNS)
            moved = ({**self.example, **found, **one} for one in ways)
            taken = next((sizes for sizes in moved if self.takes(sizes)), None)
            if taken is None:
                raise self.refused(symbol)
            found[symbol] = taken[symbol]
        return found

    def candidates(self, symbols: Sequence[str]) -> Iterator[dict[str, int]]:
        """Yield sizes of some symbols that meet the conditions, larger ones first.

        No two of them are alike where that can be.
        """
        tried: list[dict[str, int]] = []
        ways = [list(self.moved(symbol, len(symbols) > 1)) for symbol in symbols]
        for together in itertools.zip_longest(*ways):
            sizes: dict[str, int] = {}
            for symbol, size, way in zip(symbols, together, ways, strict=True):
                free = (n for n in (size, *way) if n is not None and n not in sizes.values())
                sizes[symbol] = next(free, size if size is not None else self.example[symbol])
            moved = all(sizes[symbol] != self.example[symbol] for symbol in symbols)
            if moved and sizes not in tried and self.meets({**self.example, **sizes}):
                tried.append(sizes)
                yield sizes

    def moved(self, symbol: str, together: bool) -> Iterator[int]:
        """Yield other sizes of one symbol: near ones, multiples, parts, what the conditions name.

        Args:
            symbol: torch's symbol.
            together: whether other symbols move too; then the batch stays small.
        """
        size = self.example[symbol]
        steps = [1] * len(SIZE_STEPS) if symbol in self.batch and together else [*SIZE_STEPS]
        larger = [*(size + step for step in steps), *(size * times for times in MULTIPLES)]
        smaller = [*(size - step for step in steps), *(size // times for times in MULTIPLES)]
        named = self.nearest(symbol)
        for other in dict.fromkeys((*larger[:1], *named[:2], *larger, *named, *smaller)):
            if other != size and self.allowed(symbol, other):
                yield other

    def nearest(self, symbol: str) -> list[int]:
        """Return the sizes next to the example's that meet the conditions, the others as it has."""
        size = self.example[symbol]
        up = range(size + 1, size + FARTHEST_STEP)
        down = range(size - 1, max(size - FARTHEST_STEP, 0), -1)
        met = (
            (n for n in way if self.allowed(symbol, n) and self.meets({**self.example, symbol: n}))
            for way in (up, down)
        )
        return [n for way in met for n in itertools.islice(way, 2)]

    def meets(self, sizes: Mapping[str, int]) -> bool:
        """Whether sizes meet the conditions, and leave none for something negative."""
        shapes = (numbers_at(shape, sizes) for shape in self.shapes)
        if any(number < 0 for shape in shapes for number in shape):
            return False
        return satisfied(self.conditions, {self.names[s]: size for s, size in sizes.items()})

    def allowed(self, symbol: str, size: int) -> bool:
        """Whether a size is in the range torch.export gives for it."""
        low, high = self.ranges.get(symbol, (0, None))
        return size >= max(low, 1) and (high is None or size <= high)

    def takes(self, sizes: dict[str, int]) -> bool:
        """Whether the captured program runs at these sizes."""
        args, kwargs = self.inputs(sizes)
        try:
            with torch.no_grad():
                self.module(*args, **kwargs)
        except Exception as error:  # a failed guard, or whatever an op of the model raises
            first = next((line for line in str(error).splitlines() if line.strip()), "")
            self.refusals[self.spelled(sizes)] = f"{type(error).__name__}: {first.strip()}"
            _logger.debug("the captured program does not run at %s", sizes, exc_info=True)
            return False
        return True

    def differs(self, model: torch.nn.Module, sizes: dict[str, int]) -> bool:
        """Whether a model gives something else at these sizes than its captured program."""
        args, kwargs = self.inputs(sizes)
        try:
            with torch.no_grad(), seeded():
                found = tree_flatten(self.module(*args, **kwargs))[0]
            args, kwargs = self.inputs(sizes)
            with torch.no_grad(), seeded(), trial_run(model):
                expected = tree_flatten(model(*args, **kwargs))[0]
        except Exception:  # whatever the model's code raises at a size it was not made for
            _logger.debug("not run at %s", sizes, exc_info=True)
            return True
        tensors = [
            [x for x in leaves if isinstance(x, torch.Tensor)] for leaves in (found, expected)
        ]
        return len(tensors[0]) != len(tensors[1]) or not all(map(_are_close, *tensors))

    def inputs(self, sizes: dict[str, int]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return a call at these sizes."""
        generator = torch.Generator().manual_seed(0)
        leaves = [
            _resized(leaf, numbers_at(shape, sizes), generator) if shape else leaf
            for shape, leaf in zip(self.shapes, self.leaves, strict=True)
        ]
        args, kwargs = tree_unflatten(leaves, self.spec)
        return args, kwargs

    def spelled(self, sizes: dict[str, int]) -> str:
        """Return the shapes of the inputs at these sizes."""
        return ", ".join(str(numbers_at(shape, sizes)) for shape in self.shapes if shape)

    def refused(self, symbol: str) -> ConversionError:
        """Return the error that says what torch said."""
        axes = "; ".join(
            f"axis {axis} of an input of shape {numbers_at(shape, self.example)}"
            for shape in self.shapes
            for axis, size in enumerate(shape)
            if isinstance(size, Size) and symbol in map(str, size.expr.free_symbols)
        )
        if not self.refusals:  # the conditions leave none: in torch's words, why
            self.takes({**self.example, symbol: self.example[symbol] + 1})
        rows = [f"inputs {shapes}: {why}" for shapes, why in [*self.refusals.items()][-8:]]
        return CaptureError.listing(
            "asked to be dynamic, but of the sizes tried torch accepts no other size than the "
            f"example's on {axes}:",
            rows or ["no other size lies in the range torch.export gives"],
            self.decided(symbol) + STATIC,
        )

    def decided(self, symbol: str) -> str:
        """Say which lines of the model decide by a size."""
        places = [str(place) for place in self.lines.of([symbol])[:3]] if self.lines else []
        return f"The model decides by it at {', '.join(places)}. " if places else ""


def _are_close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two tensors differ by rounding alone."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if not found.dtype.is_floating_point and not found.dtype.is_complex:
        return torch.equal(found, expected)
    tolerance = 1e-2 if found.dtype.itemsize < 4 else 1e-4
    scale = float(expected.abs().nan_to_num(0, 0, 0).max()) if expected.numel() else 0.0
    near = {"rtol": tolerance, "atol": tolerance * scale}
    return torch.allclose(found, expected, equal_nan=True, **near)


def _leaves(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    return tree_flatten((tuple(args), dict(kwargs)))[0]


def _resized(tensor: Any, shape: tuple[int, ...], generator: torch.Generator) -> Any:
    """Return a tensor of another shape with the example's values, drawn anew."""
    if tuple(tensor.shape) == shape:
        return tensor.clone()
    if tensor.dtype == torch.bool:  # a mask keeps its pattern
        for axis, size in enumerate(shape):
            places = torch.arange(size, device=tensor.device) % tensor.shape[axis]
            tensor = tensor.index_select(axis, places)
        return tensor
    flat = tensor.detach().reshape(-1)
    places = torch.randint(flat.numel(), (torch.Size(shape).numel(),), generator=generator)
    return flat[places.to(flat.device)].reshape(shape)
