"""Write values that are used once where they are used, while lines stay short."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping, Sequence

from mlxport.converter.graph.ir.code import substitute, to_source
from mlxport.converter.graph.ir.statement import Statement
from mlxport.converter.graph.ir.value import Variable, uses_in
from mlxport.converter.graph.source.loops import Effects, Item, Loop, reads_of, targets_of

LONGEST_INLINE = 64
DEEPEST_INLINE = 4


def inline(items: Sequence[Item], result: ast.expr) -> tuple[list[Item], ast.expr]:
    """Return the items of a body and its result with values put where they are used.

    The calls of one module keep their order, so that the first call stays the first; so do draws.

    Args:
        items: of the body; the code of statements is replaced.
        result: the expression the body returns.
    """
    inliner = _Inliner(items, result)
    for item in items:
        inliner.visit(item)
    result, _ = inliner.absorb(result)
    return [item for item in items if targets_of(item)[0].variable not in inliner.absorbed], result


class _Inliner:
    """Expressions on the way to where they are used.

    Attributes:
        absorbed: variables whose expressions are written elsewhere now.
    """

    def __init__(self, items: Sequence[Item], result: ast.expr) -> None:
        self._uses = Counter(uses_in(result)) + Counter(v for item in items for v in reads_of(item))
        self._names = {t.variable: t.name for item in items for t in targets_of(item)}
        self._waiting: dict[Variable, tuple[ast.expr, Effects]] = {}
        self.absorbed: set[Variable] = set()

    def visit(self, item: Item) -> None:
        """Put waiting expressions into an item; let its own wait where it is used once."""
        if isinstance(item, Loop):
            effects = item.effects
        else:
            item.code, effects = self.absorb(item.code)
            effects |= Effects.of(item)
        for variable in [v for v, (_, e) in self._waiting.items() if e.conflict(effects)]:
            del self._waiting[variable]  # absorbed already, or it stays before this item
        if isinstance(item, Statement) and len(item.targets) == 1:
            variable = item.targets[0].variable
            if self._uses[variable] == 1:
                self._waiting[variable] = item.code, effects

    def absorb(self, tree: ast.expr) -> tuple[ast.expr, Effects]:
        """Return an expression with waiting ones in it, and the effects of those."""
        effects = Effects()
        for variable in uses_in(tree):
            if variable not in self._waiting:
                continue
            code, more = self._waiting[variable]
            merged = substitute(tree, {variable: code})
            if _depth(merged) <= DEEPEST_INLINE and _length(merged, self._names) <= LONGEST_INLINE:
                tree = merged
                self.absorbed.add(variable)
                effects |= more
        return tree, effects


def _depth(tree: ast.AST) -> int:
    inner = max((_depth(child) for child in ast.iter_child_nodes(tree)), default=0)
    return inner + isinstance(tree, (ast.Call, ast.BinOp))


def _length(tree: ast.expr, known: Mapping[Variable, str]) -> int:
    names = {variable: ast.Name(known.get(variable, "x")) for variable in uses_in(tree)}
    return len(to_source(substitute(tree, names)))
