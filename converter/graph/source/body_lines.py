"""Turn the statements of a body into lines that read as if written by hand.

Calls of consecutive list elements become a loop, a value used once is written
where it is used as long as the line stays short, and variables get names. What draws random numbers
stays, in its order.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from mlxport.converter.graph.ir.body import Body
from mlxport.converter.graph.ir.code import substitute, to_source
from mlxport.converter.graph.ir.inputs import Formal
from mlxport.converter.graph.ir.naming import (
    ModelNames,
    ModuleKind,
    children_of,
    kind_of,
    variable_name,
)
from mlxport.converter.graph.ir.statement import Nesting, Statement
from mlxport.converter.graph.ir.value import Use, Value, Variable, expression_structure, uses_in
from mlxport.converter.graph.source.format import statement as lay_out
from mlxport.converter.graph.source.variables import Variables

LONGEST_INLINE = 64
DEEPEST_INLINE = 4
_DRAW = "%draw"  # in place of a module's path: what draws random numbers keeps its order too


@dataclass
class Loop:
    """``for layer in container: target = layer(target, …)``."""

    target: Value
    container: ast.expr
    start: ast.expr
    others: list[ast.expr]
    modules: frozenset[str | None]


Item = Statement | Loop


def write_body(body: Body, names: ModelNames) -> tuple[str, ...]:
    """Return the lines of a body, without ``def`` and indented for a method."""
    if body.result is None:
        raise AssertionError(f"the body of {body.path!r} returns nothing")
    statements = [replace(statement) for statement in body.statements]
    items = _roll(statements, names, body.path, _uses_of(body.result))
    items, result = _inline(items, body.result)
    return tuple(_lines(items, result, body.parameters, body.imported))


def _uses_of(*trees: ast.expr) -> Counter[Variable]:
    return Counter(variable for tree in trees for variable in uses_in(tree))


def _read_by(item: Item) -> list[Variable]:
    if isinstance(item, Loop):
        return [name for tree in (item.start, *item.others) for name in uses_in(tree)]
    return uses_in(item.code)


def _targets(item: Item) -> Sequence[Value]:
    return (item.target,) if isinstance(item, Loop) else item.targets


# -- loops ---------------------------------------------------------------------------------------


def _roll(
    statements: Sequence[Statement], names: ModelNames, owner: str, returned: Counter[Variable]
) -> list[Item]:
    """Write calls of consecutive elements of one list, each fed by the last, as a loop."""
    uses = returned + Counter(name for s in statements for name in uses_in(s.code))
    items: list[Item] = []
    i = 0
    while i < len(statements):
        chain = _chain(statements, i, names, uses)
        if len(chain) > 1:
            items.append(_loop(chain, names, owner))
        else:
            items.append(statements[i])
        i += len(chain)
    return items


def _chain(
    statements: Sequence[Statement], first: int, names: ModelNames, uses: Counter[Variable]
) -> list[Statement]:
    chain = [statements[first]]
    for following in statements[first + 1 :]:
        last = chain[-1]
        if not (_element(last, names) and _element(following, names)):
            break
        (container, index), (other, next_index) = _split(last), _split(following)
        passed = last.targets[0].variable
        gap = range(index + 1, next_index)
        if (
            container != other
            or not all(
                _is_identity(names, f"{container}.{i}" if container else str(i)) for i in gap
            )
            or next_index <= index
            or uses[passed] != 1
            or uses_in(_arguments(following)[0]) != [passed]
            or not isinstance(_arguments(following)[0], Use)
            or not _same_arguments(_arguments(following)[1:], _arguments(last)[1:])
        ):
            break
        chain.append(following)
    return chain


def _loop(chain: Sequence[Statement], names: ModelNames, owner: str) -> Loop:
    (container, first), (_, last) = _split(chain[0]), _split(chain[-1])
    element = names.reference(owner, _split_path(container, first))
    if not isinstance(element, ast.Subscript):
        raise AssertionError(f"{container!r} is not a list")
    whole: ast.expr = element.value
    size = len(children_of(names.model.get_submodule(container)))
    if (first, last) != (0, size - 1):
        lower = ast.Constant(first) if first else None
        upper = ast.Constant(last + 1) if last + 1 < size else None
        whole = ast.Subscript(whole, ast.Slice(lower, upper))
    start, *others = _arguments(chain[0])
    if container:
        chain[-1].targets[0].name = variable_name(container)
    modules = frozenset[str | None]().union(*map(_called, chain))
    return Loop(chain[-1].targets[0], whole, start, others, modules)


def _element(statement: Statement, names: ModelNames) -> bool:
    """Whether the statement calls one element of a list and gives one value."""
    if statement.module is None or len(statement.targets) != 1 or not _arguments(statement):
        return False
    container, _, index = statement.module.rpartition(".")
    parent = names.model.get_submodule(container)
    return index.isdigit() and kind_of(parent) is ModuleKind.LIST


def _split(statement: Statement) -> tuple[str, int]:
    container, _, index = str(statement.module).rpartition(".")
    return container, int(index)


def _split_path(container: str, index: int) -> str:
    return f"{container}.{index}" if container else str(index)


def _arguments(statement: Statement) -> list[ast.expr]:
    return statement.code.args if isinstance(statement.code, ast.Call) else []


def _same_arguments(some: list[ast.expr], others: list[ast.expr]) -> bool:
    numbers: dict[Variable, int] = {}
    return expression_structure(some, numbers) == expression_structure(others, numbers)


def _is_identity(names: ModelNames, path: str) -> bool:
    return isinstance(names.model.get_submodule(path), torch.nn.Identity)


# -- inlining ------------------------------------------------------------------------------------


def _inline(items: Sequence[Item], result: ast.expr) -> tuple[list[Item], ast.expr]:
    """Write values that are used once where they are used, while lines stay short.

    The calls of one module keep their order, so that the first call stays the first; so do draws.
    """
    uses = _uses_of(result) + Counter(name for item in items for name in _read_by(item))
    known = {t.variable: t.name for item in items for t in _targets(item)}
    waiting: dict[Variable, ast.expr] = {}
    calls: dict[Variable, frozenset[str | None]] = {}  # the modules that a waiting expression calls
    absorbed: set[Variable] = set()

    def absorb(tree: ast.expr) -> tuple[ast.expr, frozenset[str | None]]:
        called: frozenset[str | None] = frozenset()
        for name in uses_in(tree):
            if name not in waiting:
                continue
            merged = substitute(tree, {name: waiting[name]})
            if _depth(merged) <= DEEPEST_INLINE and _length(merged, known) <= LONGEST_INLINE:
                tree = merged
                absorbed.add(name)
                called |= calls[name]
        return tree, called

    for item in items:
        if isinstance(item, Loop):
            called = item.modules
        else:
            item.code, called = absorb(item.code)
            called |= _called(item)
        for name in [name for name in waiting if _overlap(calls[name], called)]:
            del waiting[name]  # absorbed already, or it stays before this call
        if isinstance(item, Statement) and len(item.targets) == 1:
            value = item.targets[0].variable
            if uses[value] == 1:
                waiting[value], calls[value] = item.code, called
    result, _ = absorb(result)
    return [item for item in items if _targets(item)[0].variable not in absorbed], result


def _called(statement: Statement) -> frozenset[str | None]:
    drawing = {_DRAW} if statement.draws else set()
    return frozenset({statement.module, *drawing} - {None})


def _overlap(some: Iterable[str | None], others: Collection[str | None]) -> bool:
    """Whether calls of some modules are also calls of others: of the same, or of one inside."""
    return any(
        a == b or f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.")
        for a in some
        for b in others
    )


def _depth(tree: ast.AST) -> int:
    inner = max((_depth(child) for child in ast.iter_child_nodes(tree)), default=0)
    return inner + isinstance(tree, (ast.Call, ast.BinOp))


def _length(tree: ast.expr, known: Mapping[Variable, str]) -> int:
    names = {variable: ast.Name(known.get(variable, "x")) for variable in uses_in(tree)}
    return len(to_source(substitute(tree, names)))


# -- naming --------------------------------------------------------------------------------------


def _lines(
    items: Sequence[Item], result: ast.expr, inputs: Sequence[Formal], imported: Iterable[str]
) -> list[str]:
    reads = [*(_read_by(item) for item in items), uses_in(result)]
    variables = Variables(inputs, reads, imported)
    lines: list[str] = []
    for i, item in enumerate(items):
        if isinstance(item, Loop):
            lines += _loop_lines(item, i, variables)
            continue
        code = variables.named(item.code)
        targets = _targets_text(item, i, variables)
        if len(item.targets) == 1 and isinstance(item.code, ast.Tuple):
            targets += ","
        lines += lay_out(f"{targets} = ", code, 8)
    return lines + lay_out("return ", variables.named(result), 8)


def _targets_text(statement: Statement, i: int, variables: Variables) -> str:
    if statement.nesting is None:
        return ", ".join(variables.assign(target, i) for target in statement.targets)
    first, *others = statement.targets
    names = [variables.assign(first, i)]
    names += [variables.assign(other, i, flows=False) for other in others]
    return _nested(statement.nesting, iter(names))


def _nested(nesting: Nesting, names: Iterator[str], outermost: bool = True) -> str:
    """Write the names a nested tuple is taken apart into; a part nobody reads stays whole."""
    if isinstance(nesting, str):
        return next(names)
    parts = [_nested(part, names, False) for part in nesting]
    if not outermost and set(parts) == {"_"}:
        return "_"
    return ", ".join(parts) if outermost else f"({', '.join(parts)})"


def _loop_lines(loop: Loop, i: int, variables: Variables) -> list[str]:
    start = to_source(variables.named(loop.start))
    others = [variables.named(other) for other in loop.others]
    target = variables.carry(loop.start, loop.target, i)
    each = variables.free("layer", i)
    lines = [f"        {target} = {start}"] if target != start else []
    lines += lay_out(f"for {each} in ", loop.container, 8, ":")
    call = ast.Call(ast.Name(each), [ast.Name(target), *others], [])
    return lines + lay_out(f"{target} = ", call, 12)
