"""How a body reads the sizes its expressions speak of: ``n, h, w, _ = x.shape``.

Expressions have holes for sizes. Once a body is complete, each is filled in terms of the shapes of
the arrays that exist at that place; a size that no shape determines becomes an argument.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch.utils._sympy.functions import FloorDiv

from mlxport.converter.graph.ir.caches import LENGTH_AXIS, CacheValue, caches_among
from mlxport.converter.graph.ir.code import substitute
from mlxport.converter.graph.ir.sizes import Size, SizeUse, written
from mlxport.converter.graph.ir.statement import Statement
from mlxport.converter.graph.ir.value import Value, Variable


@dataclass
class Read:
    """A size read off an array, and the first statement that needs it."""

    source: Value
    axis: int
    needed: int
    variable: Value


@dataclass
class SizeReads:
    """What a body's sizes come from.

    Attributes:
        names: torch's symbol -> what to call it.
        given: sizes that are arguments of the body, and the variables they are.
    """

    names: Mapping[str, str]
    given: list[tuple[Size, Value]] = field(default_factory=list)

    def written_in(
        self, statements: Sequence[Statement], result: ast.expr, inputs: Sequence[Value]
    ) -> tuple[list[Statement], ast.expr]:
        """Return statements and result with all sizes read off the arrays there are.

        Sizes that no array determines are added to ``given``.
        """
        while True:
            body = _Body(self, inputs)
            codes = [body.filled(s.code, i, s.targets) for i, s in enumerate(statements)]
            returned = body.filled(result, len(statements), ())
            if not body.missing:
                break
            size = _widest(body.missing)
            self.given.append((size, self._variable(size)))
        for statement, code in zip(statements, codes, strict=True):
            statement.code = code
        return list(_with_reads(statements, body.reads)), returned

    def _variable(self, size: Size) -> Value:
        symbols = sorted(map(str, size.expr.free_symbols))
        name = self.names.get(symbols[0], "size") if len(symbols) == 1 else "size"
        return _number_called(name)


class _Body:
    """One attempt at writing all sizes of a body."""

    def __init__(self, reads: SizeReads, inputs: Sequence[Value]) -> None:
        self.sizes = reads
        self.reads: dict[tuple[Variable, int], Read] = {}
        self.missing: list[sympy.Basic] = []
        self.known: dict[sympy.Basic, sympy.Symbol] = {}  # size -> a symbol for what determines it
        self.solved: dict[sympy.Basic, sympy.Basic] = {}  # part of a size -> by such symbols
        self.sources: dict[str, tuple[Value, int] | Value] = {}
        for size, variable in reads.given:
            self._offer(size, variable)
        caches = caches_among(inputs)
        for value in [*(v for v in inputs if not isinstance(v, CacheValue)), *caches]:
            self._offer_shape(value)

    def filled(self, tree: ast.expr, position: int, targets: Sequence[Value]) -> ast.expr:
        """Return an expression with its sizes written; then its targets determine sizes too."""
        sizes = {n.key: n.size for n in ast.walk(tree) if isinstance(n, SizeUse)}
        codes = {key: self._code(size, position) for key, size in sizes.items()}
        for target in targets:
            self._offer_shape(target)
        return substitute(tree, codes) if codes else tree

    def _offer_shape(self, value: Value) -> None:
        if isinstance(value, CacheValue):
            length = value.shape[LENGTH_AXIS]
            if value.readable and isinstance(length, Size):
                self._offer(length, (value, LENGTH_AXIS))
            return
        for axis, size in enumerate(value.shape):
            if isinstance(size, Size):
                self._offer(size, (value, axis))

    def _offer(self, size: Size, source: tuple[Value, int] | Value) -> None:
        """Note what determines a size; the first that does is read."""
        if size.key in self.known:
            return
        symbol = sympy.Symbol(f"size_{len(self.known)}", integer=True, positive=True)
        self.known[size.key] = symbol
        self.sources[symbol.name] = source
        self.solved.setdefault(size.expr, symbol)
        part = solved(size.key, symbol)
        if part is not None:
            self.solved.setdefault(*part)

    def _code(self, size: Size, position: int) -> ast.expr:
        expr = self.known.get(size.key)
        if expr is None:
            expr = size.expr.xreplace(self.solved)
        determined = {s for s in expr.free_symbols if s.name in self.sources}
        if determined != expr.free_symbols:
            self.missing.append(expr if expr in self.known else size.expr.xreplace(self.solved))
            return ast.Constant(0)
        return written(expr, {s.name: self._read(s.name, position) for s in determined})

    def _read(self, name: str, position: int) -> ast.expr:
        source = self.sources[name]
        if isinstance(source, Value):
            return source.to_ast()
        value, axis = source
        key = (value.variable, axis)
        if key not in self.reads and isinstance(value, CacheValue):  # before it is updated
            self.reads[key] = Read(value, axis, 0, _number_called("offset"))
        elif key not in self.reads:
            size = value.shape[axis]
            self.reads[key] = Read(value, axis, position, self.sizes._variable(size))
        return self.reads[key].variable.to_ast()


def solved(size: sympy.Basic, value: Any) -> tuple[sympy.Basic, Any] | None:
    """Solve ``size == value`` for the one part of the size that varies, where it is linear.

    Args:
        size: ``4 * s + 2``, say, or a number.
        value: what it is: a symbol or a number.

    Returns:
        The part (``s``) and what it is (``(value - 2) // 4``); None where no one part varies.
    """
    terms: dict[Any, Any] = dict(size.as_coefficients_dict())
    constant = terms.pop(sympy.S.One, sympy.S.Zero)
    if len(terms) != 1:
        return None
    part, factor = terms.popitem()
    if not (factor.is_Integer and constant.is_Integer) or part.is_Mul or part.is_Pow:
        return None
    rest = value - constant
    return part, rest if factor == 1 else FloorDiv(rest, factor)


def _widest(missing: Sequence[sympy.Basic]) -> Size:
    """Return the largest expression in which all that is missing speaks of its first symbol."""
    symbol = next(s for s in _in_order(missing[0]) if not s.name.startswith("size_"))
    chains = [list(_around(expr, symbol)) for expr in missing if symbol in expr.free_symbols]
    for expr in chains[0]:
        if all(expr in chain for chain in chains) and _without_known_sizes(expr):
            return Size(expr)
    return Size(symbol)


def _in_order(expr: sympy.Basic) -> list[sympy.Symbol]:
    return sorted(expr.free_symbols, key=str)


def _without_known_sizes(expr: sympy.Basic) -> bool:
    return bool(expr.is_integer) and not any(s.name.startswith("size_") for s in expr.free_symbols)


def _around(expr: sympy.Basic, symbol: sympy.Symbol) -> Iterator[sympy.Basic]:
    """Yield the parts of an expression in which all mentions of a symbol lie, widest first."""
    while True:
        yield expr
        inner = [part for part in expr.args if symbol in part.free_symbols]
        if len(inner) != 1:
            return
        expr = inner[0]


def _with_reads(
    statements: Sequence[Statement], reads: Mapping[tuple[Variable, int], Read]
) -> Iterator[Statement]:
    by_source: dict[Variable, list[Read]] = {}
    for read in reads.values():
        by_source.setdefault(read.source.variable, []).append(read)
    first: dict[int, list[Statement]] = {}
    for group in by_source.values():
        first.setdefault(min(read.needed for read in group), []).append(_reading(group))
    for i, statement in enumerate(statements):
        yield from first.get(i, ())
        yield statement
    yield from first.get(len(statements), ())


def _reading(reads: Sequence[Read]) -> Statement:
    """Return the statement that reads sizes of one array: all at once where it is several."""
    source = reads[0].source
    if isinstance(source, CacheValue):
        code = ast.Attribute(source.to_ast(), "offset")
        return Statement((reads[0].variable,), code, reads=frozenset({source.use.label}))
    shape = ast.Attribute(source.to_ast(), "shape")
    if len(reads) == 1:
        place = ast.Constant(source.order.index(reads[0].axis))
        return Statement((reads[0].variable,), ast.Subscript(shape, place))
    by_axis = {read.axis: read.variable for read in reads}
    targets = [by_axis.get(axis) or _number_called("_") for axis in source.order]
    return Statement(tuple(targets), shape, nesting=tuple(t.name for t in targets))


def _number_called(name: str) -> Value:
    return Value((), torch.int64, (), name, flows=False)
