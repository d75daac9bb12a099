"""Write the check of sizes that a model makes of its inputs before anything else."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator, Mapping, Sequence

import sympy

from mlxport.converter.graph.ir.body import Body
from mlxport.converter.graph.ir.caches import CACHE, LENGTH_AXIS, CacheValue, caches_among
from mlxport.converter.graph.ir.code import substitute, to_ast, to_source
from mlxport.converter.graph.ir.context import Unsupported
from mlxport.converter.graph.ir.inputs import FixedSize
from mlxport.converter.graph.ir.size_reads import solved
from mlxport.converter.graph.ir.sizes import (
    FUNCTIONS,
    Size,
    axis_names,
    shape_text,
    size_text,
    size_tree,
    written,
)
from mlxport.converter.graph.ir.value import Value
from mlxport.converter.graph.source.format import WIDTH

_OPPOSITE: dict[type[ast.cmpop], ast.cmpop] = {
    ast.Eq: ast.NotEq(),
    ast.NotEq: ast.Eq(),
    ast.Lt: ast.GtE(),
    ast.LtE: ast.Gt(),
    ast.Gt: ast.LtE(),
    ast.In: ast.NotIn(),
    ast.GtE: ast.Lt(),
}


def check_lines(conditions: Sequence[str], fixed: Sequence[FixedSize], body: Body) -> list[str]:
    """Return the lines that raise where a model does not hold at the sizes of its inputs.

    Args:
        conditions: what must be true, in the names of the dynamic sizes.
        fixed: sizes that have to be what they were in the example, or larger than some.
        body: the body of the model itself.

    Raises:
        Unsupported: a condition cannot be written in Python.
    """
    exact = [one for one in fixed if not one.least]
    least = [one for one in fixed if one.least]
    return [
        *_fixed_lines(exact, body),
        *_least_lines(least, body),
        *_dynamic_lines(conditions, body),
    ]


def if_any(tests: Sequence[ast.expr]) -> list[str]:
    """Return the line, or the lines, that ask whether any of some tests is true."""
    # not by one BoolOp: ast.unparse sets the fourth of its operands in parentheses
    texts = [
        f"({to_source(test)})"
        if isinstance(test, ast.BoolOp) and len(tests) > 1
        else to_source(test)
        for test in tests
    ]
    line = f"        if {' or '.join(texts)}:"
    if len(line) <= WIDTH:
        return [line]
    first, *rest = texts
    indented = [f"            {first}", *(f"            or {text}" for text in rest)]
    return ["        if (", *indented, "        ):"]


def raise_error(message: str, error: str = "ValueError") -> list[str]:
    """Return the lines that raise with a message."""
    parts = textwrap.wrap(message, WIDTH - 20, drop_whitespace=False, break_long_words=False)
    if len(parts) == 1 and len(parts[0]) + len(error) + 22 <= WIDTH:
        return [f"            raise {error}({_quoted(parts[0])})"]
    return [
        f"            raise {error}(",
        *(f"                {_quoted(part)}" for part in parts),
        "            )",
    ]


def _fixed_lines(fixed: Sequence[FixedSize], body: Body) -> Iterator[str]:
    """Yield the check of each input that has sizes which are fixed."""
    for number, value in enumerate(body.inputs):
        sizes = {one.place.axis: one for one in fixed if one.place.input == number}
        if not sizes or isinstance(value, CacheValue):
            continue
        shape = ast.Attribute(_array(value, body), "shape")
        axes = [axis for axis in value.order if axis in sizes]
        if len(sizes) == value.ndim:
            tests = [_differs(shape, to_ast(tuple(sizes[axis].size for axis in axes)))]
        else:
            tests = [
                _differs(_item(shape, value.order.index(axis)), ast.Constant(sizes[axis].size))
                for axis in axes
            ]
        yield from if_any(tests)
        yield from raise_error(f"{to_source(_array(value, body))}: {_fixed_text(value, sizes)}")


def _least_lines(least: Sequence[FixedSize], body: Body) -> Iterator[str]:
    """Yield the check of each input that has sizes of which only smaller ones do not do."""
    for number, value in enumerate(body.inputs):
        sizes = {one.place.axis: one.size for one in least if one.place.input == number}
        if not sizes or isinstance(value, CacheValue):
            continue
        array = _array(value, body)
        names = axis_names(value.ndim)
        tests: list[ast.expr] = [
            ast.Compare(
                _item(ast.Attribute(array, "shape"), value.order.index(axis)),
                [ast.Lt()],
                [ast.Constant(sizes[axis])],
            )
            for axis in value.order
            if axis in sizes
        ]
        text = _listed([f"{names[axis]} {size}" for axis, size in sorted(sizes.items())])
        yield from if_any(tests)
        yield from raise_error(f"{to_source(array)}: expected at least {text}")


def _fixed_text(value: Value, sizes: Mapping[int, FixedSize]) -> str:
    """Say which sizes of an input are fixed, and what would open them."""
    names = axis_names(value.ndim)
    spelled = {
        axis: f"{one.size} along axis {axis}"
        if names[axis] in names[:axis]
        else f"{names[axis]} {one.size}"
        for axis, one in sorted(sizes.items())
    }
    parts = []
    if asked := [axis for axis, one in sorted(sizes.items()) if one.wanted]:
        at = _listed([spelled[axis] for axis in asked])
        parts.append(f"torch.export finds that the model works at {at} only")
    if left := [axis for axis, one in sorted(sizes.items()) if not one.wanted]:
        axes = ",".join(map(str, left))
        python = left[0] if len(left) == 1 else f"({axes.replace(',', ', ')})"
        at = _listed([spelled[axis] for axis in left])
        opens = "opens it" if len(left) == 1 else "opens them"
        parts.append(f"converted for {at}; --dynamic {axes} (dynamic={python} in Python) {opens}")
    return "; ".join(parts)


def _listed(words: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _dynamic_lines(conditions: Sequence[str], body: Body) -> list[str]:
    """Return the check of the sizes that are dynamic."""
    reads = _reads(body)
    tests = [_read(condition, reads) for condition in conditions]
    relations = dict(_relations(body, reads))
    if not (tests or relations):
        return []
    names = body.sizes.names
    taken = [
        f"{value.name} {shape_text(value.stored_shape, names)}"
        for value in body.inputs
        if not isinstance(value, CacheValue) and any(isinstance(size, Size) for size in value.shape)
    ]
    lengths = {size_text(cache.shape[LENGTH_AXIS], names) for cache in caches_among(body.inputs)}
    taken += [f"{CACHE} of offset {length}" for length in lengths]
    takes = ", ".join(taken)
    expected = [*conditions, *relations]
    lines = if_any([*tests, *relations.values()])
    return [*lines, *raise_error(f"{takes}: expected {' and '.join(expected)}")]


def _relations(body: Body, reads: Mapping[str, ast.expr]) -> Iterator[tuple[str, ast.expr]]:
    """Yield what sizes of several axes have to do with one another, and how to see they have not.

    A size that is read off one axis is that of all others it names.
    """
    names = body.sizes.names
    for value in body.inputs:
        if isinstance(value, CacheValue):
            continue  # what it holds came of calls like this one
        for axis, size in enumerate(value.shape):
            if not isinstance(size, Size) or not {*map(str, size.expr.free_symbols)} <= {*names}:
                continue
            shape = ast.Attribute(_array(value, body), "shape")
            place = _item(shape, value.order.index(axis))
            wanted = substitute(size_tree(size, names), reads)
            if to_source(wanted) != to_source(place):
                text = f"{size_text(size, names)} at {to_source(place)}"
                yield text, _differs(place, wanted)


def _differs(a: ast.expr, b: ast.expr) -> ast.expr:
    return ast.Compare(a, [ast.NotEq()], [b])


def _item(shape: ast.expr, place: int) -> ast.expr:
    return ast.Subscript(shape, ast.Constant(place))


def _array(value: Value, body: Body) -> ast.expr:
    """Return how the model reads one of its inputs."""
    return substitute(value.to_ast(), {f.variable: ast.Name(f.name) for f in body.parameters})


def _reads(body: Body) -> dict[str, ast.expr]:
    """Return how the model reads each size off its inputs, by name."""
    symbol = sympy.Symbol("size", integer=True, positive=True)
    reads: dict[str, ast.expr] = {}
    for value in body.inputs:
        array = _array(value, body)
        for axis, size in enumerate(value.shape):
            if isinstance(value, CacheValue) and axis != LENGTH_AXIS:
                continue
            solution = solved(size.key, symbol) if isinstance(size, Size) else None
            if solution is None or not solution[0].is_Symbol:
                continue
            code = (
                ast.Attribute(array, "offset")
                if isinstance(value, CacheValue)
                else _item(ast.Attribute(array, "shape"), value.order.index(axis))
            )
            name = body.sizes.names[str(solution[0])]
            reads.setdefault(name, written(solution[1], {"size": code}))
    return reads


def _read(condition: str, reads: Mapping[str, ast.expr]) -> ast.expr:
    """Return what is true where a condition is not."""
    tree = ast.parse(condition, mode="eval").body
    unknown = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} - {*reads, *FUNCTIONS}
    if unknown:
        raise Unsupported(f"that {condition} cannot be checked: {sorted(unknown)} is not known")
    negated: ast.expr = ast.UnaryOp(ast.Not(), tree)
    if isinstance(tree, ast.Compare) and len(tree.ops) == 1 and type(tree.ops[0]) in _OPPOSITE:
        negated = ast.Compare(tree.left, [_OPPOSITE[type(tree.ops[0])]], tree.comparators)
    return substitute(negated, reads)


def _quoted(text: str) -> str:
    return to_source(ast.Constant(text.replace('"', "'")))
