"""The IR of a whole model: the bodies of its classes, its layers and its arrays."""

from __future__ import annotations

import ast
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mlxport.converter.graph.ir.caches import CachedArgument
from mlxport.converter.graph.ir.inputs import FixedSize, Formal
from mlxport.converter.graph.ir.printing import code_text, numbered, statement_text, value_text
from mlxport.converter.graph.ir.scopes import ModelScope
from mlxport.converter.graph.ir.size_reads import SizeReads
from mlxport.converter.graph.ir.sizes import SizeUse, size_text, size_tree
from mlxport.converter.graph.ir.statement import Statement
from mlxport.converter.graph.ir.value import Order, Value, expression_structure
from mlxport.converter.plan.record import ModuleRecord
from mlxport.converter.plan.structure import Signature
from mlxport.converter.plan.weight_plan import Entry
from mlxport.converter.rules.registry import LayerSpec


@dataclass(frozen=True)
class Leaf:
    """A module that becomes one MLX layer.

    Attributes:
        path: its qualified name in PyTorch.
        spec: what to build.
    """

    path: str
    spec: LayerSpec


@dataclass(frozen=True)
class StoredArray:
    """A parameter or buffer that a body reads itself.

    Attributes:
        path: its qualified name in PyTorch.
        tensor: the torch tensor.
        order: the axis order it is stored in.
        trainable: False for buffers and constants.
    """

    path: str
    tensor: torch.Tensor
    order: Order
    trainable: bool

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape as stored."""
        return tuple(self.tensor.shape[axis] for axis in self.order)


@dataclass
class Body:
    """The ``__call__`` of one class of the emitted model.

    Attributes:
        path: qualified name of the torch module.
        inputs: the tensors it is given, in order.
        formals: its parameters, where they are not just these tensors.
        outputs: what it returns, flattened.
        statements: what it computes, in order.
        result: the expression it returns; None until all of it is lowered.
        sizes: where the sizes in its expressions come from.
        imported: names that ``model.py`` imported when it was lowered; no variable may hide them.
    """

    path: str
    inputs: list[Value] = field(default_factory=list)
    formals: list[Formal] | None = None
    outputs: list[Value] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    result: ast.expr | None = None
    sizes: SizeReads = field(default_factory=lambda: SizeReads({}))
    imported: frozenset[str] = frozenset()

    @property
    def transposes(self) -> int:
        """Transposes it executes itself, those of the modules it calls left out."""
        return sum(map(_transposes_in, self._expressions()))

    @property
    def reads(self) -> frozenset[str]:
        """The state that a call of it reads."""
        return frozenset().union(*(statement.reads for statement in self.statements))

    @property
    def writes(self) -> frozenset[str]:
        """The state that a call of it writes."""
        return frozenset().union(*(statement.writes for statement in self.statements))

    def structure(self) -> Hashable:
        """Return what bodies share that compute the same of their inputs."""
        numbers = {formal.variable: i for i, formal in enumerate(self.parameters)}
        given = len(numbers)
        codes = []
        for statement in self.statements:
            stores = expression_structure(statement.stores, numbers)
            code = expression_structure(statement.code, numbers)
            codes.append((code, len(statement.targets), stores))
            for target in statement.targets:
                numbers.setdefault(target.variable, len(numbers))
        return given, *codes, expression_structure(self.result, numbers)

    def _expressions(self) -> Iterator[ast.expr]:
        yield from (statement.code for statement in self.statements)
        if self.result is not None:
            yield self.result

    @property
    def parameters(self) -> list[Formal]:
        """The parameters of ``__call__``."""
        tensors = [Formal.of(v) for v in self.inputs] if self.formals is None else self.formals
        return [*tensors, *(Formal(v.variable, v.name, "int") for _, v in self.sizes.given)]

    def __str__(self) -> str:
        """Return its inputs, statements and result, one a line."""

        def size(number: Any) -> str:
            return size_text(number, self.sizes.names)

        names = self._printed_names()
        inputs = [value_text(v, code_text(v.to_ast(), names), size) for v in self.inputs]
        computed = [statement_text(statement, names, size) for statement in self.statements]
        result = [] if self.result is None else [f"return {code_text(self.result, names)}"]
        lines = [f"  {line}" for line in (*inputs, *computed, *result)]
        return "\n".join([f"body of {self.path or 'the model'}", *lines])

    def _printed_names(self) -> dict[Any, Any]:
        """Return what to print for each variable, and for each size that no variable holds yet."""
        given = {formal.variable: formal.name for formal in self.parameters}
        trees = [*(statement.code for statement in self.statements), self.result]
        nodes = [node for tree in trees if tree for node in ast.walk(tree)]
        sizes = {
            n.key: size_tree(n.size, self.sizes.names) for n in nodes if isinstance(n, SizeUse)
        }
        return {**numbered(self.statements, given), **sizes}


def _transposes_in(tree: ast.expr) -> int:
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return sum(isinstance(func, ast.Attribute) and func.attr == "transpose" for func in calls)


@dataclass
class Lowered:
    """A whole model, lowered.

    Attributes:
        signature: what it takes and gives.
        bodies: path -> body of every module that becomes a class with ``__call__``.
        leaves: path -> the layer of every leaf.
        arrays: path -> every parameter, buffer or constant read by a body.
        records: the modules and the layouts at their boundaries, in call order, the model last.
        scope: what all of its bodies share: imports, random draws, demands.
        transposes: transposes executed in one call of the model.
        inlined: captured path of each call that is written in place -> why it calls no class.
        size_names: torch's symbol for a dynamic size -> what to call it.
        conditions: what must be true of the sizes, in their names.
        fixed: sizes of the inputs that the model is fixed to.
        unchecked: whose values decide what is looked up in an array: inputs by place, others by
            name.
        state: the paths of the arrays that a call writes, in the order of their first write.
        cached: the argument that is a cache; None where none is.
        narrowed: the lines of the model that compute in float64, and in MLX in float32.
    """

    signature: Signature = field(default_factory=Signature)
    bodies: dict[str, Body] = field(default_factory=dict)
    leaves: dict[str, Leaf] = field(default_factory=dict)
    arrays: dict[str, StoredArray] = field(default_factory=dict)
    records: list[ModuleRecord] = field(default_factory=list)
    scope: ModelScope = field(default_factory=ModelScope)
    transposes: int = 0
    inlined: dict[str, str] = field(default_factory=dict)
    size_names: dict[str, str] = field(default_factory=dict)
    conditions: list[str] = field(default_factory=list)
    fixed: tuple[FixedSize, ...] = ()
    unchecked: Sequence[int | str] = ()
    state: dict[str, None] = field(default_factory=dict)
    cached: CachedArgument | None = None
    narrowed: dict[str, None] = field(default_factory=dict)

    def layer_files(self) -> tuple[str, ...]:
        """Return the files of ``mlxport.layers`` that the source and the user's own files need."""
        users = self.scope.user_files
        needed = {layer for file in users.values() for layer in file.layers}
        return tuple(sorted({*self.scope.imports.values(), *needed} - {*users}))

    def keep(self, body: Body) -> None:
        """Keep the body of a class; each call of it counts its transposes."""
        self.bodies.setdefault(body.path, body)
        self.transposes += body.transposes

    def arrays_outside_layers(self) -> dict[str, StoredArray]:
        """Return the arrays that are attributes of classes, not of layers."""
        return {
            path: array
            for path, array in self.arrays.items()
            if path.rpartition(".")[0] not in self.leaves
        }

    def entries(self) -> list[tuple[str, Entry, Mapping[str, str]]]:
        """Return ``(module path, relative entry, ignored)`` of every leaf."""
        return [
            (leaf.path, entry, leaf.spec.ignored)
            for leaf in self.leaves.values()
            for entry in leaf.spec.entries
        ]
