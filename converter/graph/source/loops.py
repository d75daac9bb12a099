"""Roll calls of consecutive elements of a list of modules, each fed by the last, into a loop."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mlxport.converter.graph.ir.naming import (
    ModelNames,
    ModuleKind,
    children_of,
    kind_of,
    variable_name,
)
from mlxport.converter.graph.ir.statement import Statement
from mlxport.converter.graph.ir.value import Use, Value, Variable, expression_structure, uses_in


@dataclass(frozen=True)
class Effects:
    """Why an item of a body keeps its place among others.

    Attributes:
        modules: qualified names of the modules it calls, whose first call is to stay the first.
        draws: whether it draws random numbers.
        reads: the state that it reads.
        writes: the state that it writes.
    """

    modules: frozenset[str] = frozenset()
    draws: bool = False
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, statement: Statement) -> Effects:
        """Return the effects of a statement."""
        modules = frozenset() if statement.module is None else frozenset({statement.module})
        return cls(modules, statement.draws, statement.reads, statement.writes)

    def __or__(self, other: Effects) -> Effects:
        """Return the effects of two items together."""
        return Effects(
            self.modules | other.modules,
            self.draws or other.draws,
            self.reads | other.reads,
            self.writes | other.writes,
        )

    def conflict(self, other: Effects) -> bool:
        """Whether two items must keep their order.

        Both draw, or call a module or one inside it, or one writes state that the other knows.
        """
        if self.writes & (other.reads | other.writes) or other.writes & self.reads:
            return True
        return (self.draws and other.draws) or any(
            f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.")
            for a in self.modules
            for b in other.modules
        )


@dataclass
class Loop:
    """``for layer in container: target = layer(target, …)``.

    With a cache: ``for layer, layer_cache in zip(container, cache)``.

    Attributes:
        target: what the last call gives.
        container: the list, or a slice of it.
        start: what the first call is given.
        others: further arguments, the same for every call.
        effects: of all calls.
        cache: the list whose elements the calls are given, one each; None where there is none.
        cache_place: where among the further arguments that element stands.
    """

    target: Value
    container: ast.expr
    start: ast.expr
    others: list[ast.expr]
    effects: Effects
    cache: ast.expr | None = None
    cache_place: int = 0


Item = Statement | Loop


def reads_of(item: Item) -> list[Variable]:
    """Return the variables that an item of a body reads, each as often as it is read."""
    if isinstance(item, Loop):
        cache = [] if item.cache is None else [item.cache]
        return [name for tree in (item.start, *item.others, *cache) for name in uses_in(tree)]
    return uses_in(item.code)


def targets_of(item: Item) -> Sequence[Value]:
    """Return the values that an item of a body computes."""
    return (item.target,) if isinstance(item, Loop) else item.targets


def reroll(
    statements: Sequence[Statement],
    names: ModelNames,
    owner: str,
    result: ast.expr,
    cache: Variable | None = None,
) -> list[Item]:
    """Return the items of a body, with a loop for each chain of calls.

    Args:
        statements: of the body.
        names: of the modules.
        owner: path of the module whose body it is.
        result: the expression the body returns.
        cache: the parameter that is a list of the layers of a cache, if one is.
    """
    uses = Counter(uses_in(result)) + Counter(name for s in statements for name in uses_in(s.code))
    items: list[Item] = []
    i = 0
    while i < len(statements):
        chain = _chain(statements, i, names, uses, cache)
        items.append(_loop(chain, names, owner, cache) if len(chain) > 1 else statements[i])
        i += len(chain)
    return items


def _chain(
    statements: Sequence[Statement],
    first: int,
    names: ModelNames,
    uses: Counter[Variable],
    cache: Variable | None,
) -> list[Statement]:
    """Return the longest chain that begins with a statement, at least that statement."""
    chain = [statements[first]]
    for following in statements[first + 1 :]:
        if not _continues(chain[-1], following, names, uses, cache):
            break
        places = {_cache_place(statement, cache) for statement in (*chain, following)}
        if len(places) > 1:
            break
        chain.append(following)
    return chain


def _continues(
    last: Statement,
    following: Statement,
    names: ModelNames,
    uses: Counter[Variable],
    cache: Variable | None,
) -> bool:
    """Whether a statement calls the next element of a list with what the last one gave."""
    if not (_calls_element(last, names) and _calls_element(following, names)):
        return False
    (container, index), (other, next_index) = _split(last), _split(following)
    if container != other or next_index <= index:
        return False
    skipped = (_element_path(container, i) for i in range(index + 1, next_index))
    if not all(_is_identity(names, path) for path in skipped):
        return False
    passed, (first, *others) = last.targets[0].variable, _arguments(following)
    feeds = isinstance(first, Use) and first.key is passed and uses[passed] == 1
    before = _arguments(last)[1:]
    place = _cache_place(last, cache)
    if place is not None and place == _cache_place(following, cache):
        both_move_by_one = next_index == index + 1 == index + _moved(before, others, place)
        others, before = _without(others, place), _without(before, place)
        feeds = feeds and both_move_by_one
    return feeds and _same_arguments(others, before)


def _cache_place(statement: Statement, cache: Variable | None) -> int | None:
    """Return which further argument of a call is an element of the cache; None where none is."""
    found = [n for n, a in enumerate(_arguments(statement)[1:]) if _is_layer(a, cache)]
    return found[0] if len(found) == 1 else None


def _is_layer(argument: ast.expr, cache: Variable | None) -> bool:
    return (
        isinstance(argument, ast.Subscript)
        and isinstance(argument.slice, ast.Constant)
        and isinstance(argument.value, Use)
        and argument.value.key is cache
    )


def _number(layer: ast.expr) -> int:
    number: int = layer.slice.value  # type: ignore[attr-defined]
    return number


def _moved(before: Sequence[ast.expr], after: Sequence[ast.expr], place: int) -> int:
    return _number(after[place]) - _number(before[place])


def _without(arguments: Sequence[ast.expr], place: int) -> list[ast.expr]:
    return [*arguments[:place], *arguments[place + 1 :]]


def _loop(
    chain: Sequence[Statement], names: ModelNames, owner: str, cache: Variable | None
) -> Loop:
    (container, first), (_, last) = _split(chain[0]), _split(chain[-1])
    element = names.reference(owner, _element_path(container, first))
    if not isinstance(element, ast.Subscript):
        raise AssertionError(f"{container!r} is not a list")
    elements: ast.expr = element.value
    size = len(children_of(names.model.get_submodule(container)))
    if (first, last) != (0, size - 1):
        lower = ast.Constant(first) if first else None
        upper = ast.Constant(last + 1) if last + 1 < size else None
        elements = ast.Subscript(elements, ast.Slice(lower, upper))
    start, *others = _arguments(chain[0])
    if container:
        chain[-1].targets[0].name = variable_name(container)
    effects = Effects()
    for statement in chain:
        effects |= Effects.of(statement)
    target, place = chain[-1].targets[0], _cache_place(chain[0], cache)
    if place is None:
        return Loop(target, elements, start, others, effects)
    held = others[place]
    begin = _number(held)
    layers: ast.expr = held.value  # type: ignore[attr-defined]
    if begin:
        layers = ast.Subscript(layers, ast.Slice(ast.Constant(begin)))
    return Loop(target, elements, start, _without(others, place), effects, layers, place)


def _calls_element(statement: Statement, names: ModelNames) -> bool:
    """Whether the statement calls one element of a list and gives one value."""
    if statement.module is None or len(statement.targets) != 1 or not _arguments(statement):
        return False
    container, _, index = statement.module.rpartition(".")
    parent = names.model.get_submodule(container)
    return index.isdigit() and kind_of(parent) is ModuleKind.LIST


def _split(statement: Statement) -> tuple[str, int]:
    container, _, index = str(statement.module).rpartition(".")
    return container, int(index)


def _element_path(container: str, index: int) -> str:
    return f"{container}.{index}" if container else str(index)


def _arguments(statement: Statement) -> list[ast.expr]:
    return statement.code.args if isinstance(statement.code, ast.Call) else []


def _same_arguments(some: list[ast.expr], others: list[ast.expr]) -> bool:
    numbers: dict[Variable, int] = {}
    return expression_structure(some, numbers) == expression_structure(others, numbers)


def _is_identity(names: ModelNames, path: str) -> bool:
    return isinstance(names.model.get_submodule(path), torch.nn.Identity)
