"""Choose names for the variables of an emitted body."""

from __future__ import annotations

import ast
import builtins
import keyword
from collections.abc import Iterable, Sequence

from mlxport.converter.graph.ir.code import substitute
from mlxport.converter.graph.ir.inputs import Formal
from mlxport.converter.graph.ir.value import Use, Value, Variable, uses_in

FLOW = ("x", "y", "z")


class Variables:
    """Chooses names: a value used once flows on as ``x``, one used again is named after its source.

    Where ``x`` is still needed the flow goes on as ``y`` or ``z``.

    Args:
        inputs: the arguments of the body; they keep their names.
        reads: for every item of the body, the variables it reads; the returned ones last.
        imported: names the module imports, which no variable may hide.
    """

    def __init__(
        self, inputs: Sequence[Formal], reads: Sequence[Sequence[Variable]], imported: Iterable[str]
    ) -> None:
        self._name = {value.variable: value.name for value in inputs}
        self._last_read = {name: i for i, names in enumerate(reads) for name in names}
        self._count = {n: sum(names.count(n) for names in reads) for n in self._last_read}
        self._taboo = {*imported, *dir(builtins), *keyword.kwlist, "self", "mx", "nn", "Path"}
        self._reads = reads

    def named(self, tree: ast.expr) -> ast.expr:
        """Return an expression with variables in place of references."""
        found = {variable for variable in uses_in(tree) if variable in self._name}
        return substitute(tree, {variable: ast.Name(self._name[variable]) for variable in found})

    def assign(self, value: Value, item: int, *, flows: bool = True) -> str:
        """Name the value computed by item number ``item``; where it does not flow, by its name."""
        if value.variable not in self._last_read:
            return "_"
        free = flows and value.flows
        chosen = self._choose(value, item) if free else self.free(value.name, item)
        self._name[value.variable] = chosen
        return chosen

    def carry(self, start: ast.expr, value: Value, item: int) -> str:
        """Name the value of a loop: the variable it starts from, where that is not needed again."""
        started = start.key if isinstance(start, Use) else None
        if started in self._name and self._dies(started, item):
            self._name[value.variable] = self._name[started]
        else:
            self._name[value.variable] = self._choose(value, item)
        return self._name[value.variable]

    def free(self, wish: str, item: int) -> str:
        """Return a name like ``wish`` that no live variable bears."""
        taken = {self._name[n] for n in self._name if not self._dies(n, item)} | self._taboo
        if wish not in taken:
            return wish
        return next(n for n in (f"{wish}{i}" for i in range(2, 10**6)) if n not in taken)

    def _choose(self, value: Value, item: int) -> str:
        if self._count[value.variable] == 1:
            for name in FLOW:
                if self.free(name, item) == name:
                    return name
        return self.free(value.name, item)

    def _dies(self, variable: Variable, item: int) -> bool:
        return self._last_read.get(variable, -1) <= item
