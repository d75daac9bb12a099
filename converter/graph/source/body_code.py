"""Write a body as Python statements that read as if written by hand.

Calls of consecutive list elements become a loop, a value used once is written where it is used as
long as the line stays short, and variables get names. What draws random numbers keeps its order.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence

from mlxport.converter.graph.ir.body import Body
from mlxport.converter.graph.ir.caches import CACHE, caches_among
from mlxport.converter.graph.ir.code import substitute
from mlxport.converter.graph.ir.inputs import Formal
from mlxport.converter.graph.ir.naming import ModelNames
from mlxport.converter.graph.ir.statement import Nesting, Statement
from mlxport.converter.graph.ir.value import uses_in
from mlxport.converter.graph.source.format import Code
from mlxport.converter.graph.source.inlining import inline
from mlxport.converter.graph.source.loops import Item, Loop, reads_of, reroll
from mlxport.converter.graph.source.state_reads import with_attributes
from mlxport.converter.graph.source.variables import Variables


def write_body(body: Body, names: ModelNames) -> Code:
    """Return the statements of a body's ``__call__``.

    Args:
        body: the body; it stays as it is.
        names: of the modules.
    """
    if body.result is None:
        raise AssertionError(f"the body of {body.path!r} returns nothing")
    statements, result = with_attributes(body.statements, body.result)
    layers = caches_among(body.inputs)
    lists = [f.variable for f in body.parameters if f.name == CACHE and len(layers) > 1]
    cache = lists[0] if lists else None
    items, result = inline(reroll(statements, names, body.path, result, cache), result)
    return tuple(_named(items, result, body.parameters, body.imported))


def _named(
    items: Sequence[Item], result: ast.expr, inputs: Sequence[Formal], imported: Iterable[str]
) -> Iterator[ast.stmt]:
    """Yield the statements, with a name for every variable."""
    reads = [*(reads_of(item) for item in items), uses_in(result)]
    variables = Variables(inputs, reads, imported)
    for i, item in enumerate(items):
        if isinstance(item, Loop):
            yield from _loop(item, i, variables)
        else:
            code = variables.named(item.code)
            yield ast.Assign([item.stores or _targets(item, i, variables)], code)
    yield ast.Return(variables.named(result))


def _targets(statement: Statement, i: int, variables: Variables) -> ast.expr:
    first, *others = statement.targets
    flows = statement.nesting is None
    names = [variables.assign(first, i)]
    names += [variables.assign(other, i, flows=flows) for other in others]
    if statement.nesting is not None:
        return _nested(statement.nesting, iter(names))
    if not others and not isinstance(statement.code, ast.Tuple):
        return ast.Name(names[0])
    return ast.Tuple([ast.Name(name) for name in names])


def _nested(nesting: Nesting, names: Iterator[str], outermost: bool = True) -> ast.expr:
    """Return the names that a nested tuple is unpacked into, ``_`` for a part that is not read."""
    if isinstance(nesting, str):
        return ast.Name(next(names))
    parts = [_nested(part, names, False) for part in nesting]
    if not outermost and all(isinstance(part, ast.Name) and part.id == "_" for part in parts):
        return ast.Name("_")
    return ast.Tuple(parts)


def _loop(loop: Loop, i: int, variables: Variables) -> Iterator[ast.stmt]:
    start = variables.named(loop.start)
    others = [variables.named(other) for other in loop.others]
    target = variables.carry(loop.start, loop.target, i)
    each = variables.free("layer", i)
    if not (isinstance(start, ast.Name) and start.id == target):
        yield ast.Assign([ast.Name(target)], start)
    elements, targets = substitute(loop.container, {}), ast.Name(each)
    iterated: ast.expr = elements
    element: ast.expr = targets
    if loop.cache is not None:
        layer = variables.free(f"layer_{CACHE}", i)
        others.insert(loop.cache_place, ast.Name(layer))
        iterated = ast.Call(ast.Name("zip"), [elements, variables.named(loop.cache)], [])
        element = ast.Tuple([targets, ast.Name(layer)])
    call = ast.Call(targets, [ast.Name(target), *others], [])
    step = ast.Assign([ast.Name(target)], call)
    yield ast.For(element, iterated, [step], [])
