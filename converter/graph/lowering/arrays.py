"""The parameters, buffers and constants that bodies read themselves."""

from __future__ import annotations

import ast
import logging
import operator
from collections.abc import Mapping
from typing import Any

import mlx.nn
import torch

from mlxport.converter.graph.capture.capture import Captured
from mlxport.converter.graph.capture.leaves import plain_path, stored_as
from mlxport.converter.graph.ir.body import Array, Leaf, Lowered
from mlxport.converter.graph.ir.constant_source import spelled
from mlxport.converter.graph.ir.constants import array_of, is_short, number_of
from mlxport.converter.graph.ir.context import Context, Statement, Unsupported
from mlxport.converter.graph.ir.naming import Names
from mlxport.converter.graph.ir.value import (
    Order,
    Provenance,
    ProvenanceKind,
    Value,
    Variable,
    identity,
)
from mlxport.converter.graph.lowering.constant_folding import Fixed
from mlxport.converter.rules.parametrization import build_spec
from mlxport.converter.rules.registry import LayerSpec, Refusal

_logger = logging.getLogger(__name__)

# What constants that ``forward`` computes are called in the class that keeps them.
KEPT = "constant_"


class Arrays:
    """Reads the tensors of a captured model, wherever they stand in the MLX model.

    Args:
        captured: the captured model.
        names: where its modules stand in the MLX model.
        lowered: gains what is read.
        preferences: provenance of an array -> the axis order to store it in.
    """

    def __init__(
        self,
        captured: Captured,
        names: Names,
        lowered: Lowered,
        preferences: Mapping[Provenance, Order],
    ) -> None:
        self.captured, self.names, self.lowered = captured, names, lowered
        self.preferences = preferences
        self.parameters = dict(captured.model.named_parameters(remove_duplicate=False))
        self.specs: dict[str, LayerSpec | None] = {}
        self.numbers: dict[Variable, torch.Tensor] = {}

    def read(
        self, cx: Context, target: str, module: torch.nn.Module, path: str, owner: str
    ) -> Value:
        """Return the tensor ``target`` of the captured module at ``path``.

        Args:
            cx: the body that reads it.
            target: its name in the captured module.
            module: the captured module.
            path: where that stands in the torch model.
            owner: path of the class whose body reads it.

        Raises:
            Unsupported: it stands in a layer that keeps it in a form of its own.
        """
        full = plain_path(f"{path}.{target}" if path else target)
        full = self.captured.sharing.tensor(full)
        found = self._tensor(full)
        provenance = Provenance(ProvenanceKind.ARRAY, full)
        if found is None:
            constant = operator.attrgetter(target)(module).detach()
            if is_short(constant):
                return self._written(cx, constant, provenance)
            found = constant, False
        tensor, trainable = found
        held = self._held(full, tensor.ndim)
        if held is None:
            order = self.preferences.get(provenance, identity(tensor.ndim))
            code = self.names.reference(owner, full)
        else:
            parameter, order = held
            code = self.names.reference(owner, full.rpartition(".")[0])
            for segment in parameter.split("."):
                code = ast.Attribute(code, segment)
        self.lowered.arrays[full] = Array(full, tensor, order, trainable)
        name = target.split(".")[-1]
        return Value(tuple(tensor.shape), tensor.dtype, order, name, provenance, code=code)

    def constant(self, target: str, module: torch.nn.Module, path: str) -> torch.Tensor | None:
        """Return the tensor ``target`` of a captured module; None if it is one of the model's."""
        full = self.captured.sharing.tensor(plain_path(f"{path}.{target}" if path else target))
        if self._tensor(full) is not None:
            return None
        found: torch.Tensor = operator.attrgetter(target)(module).detach()
        return found

    def folded(self, cx: Context, fixed: Fixed, owner: str) -> Value | None:
        """Return an array that is the same at every call as it is best written.

        None where that is how PyTorch computes it.
        """
        tensor = fixed.tensor
        shape, dtype = cx.results[0]
        if fixed.made or (tuple(tensor.shape), tensor.dtype) != (shape, dtype):
            return None
        if spelled(tensor) is not None:
            value = cx.chosen(lambda order: _spelled_in(cx, tensor, order))
            if tensor.ndim == 0:
                self.numbers[value.variable] = tensor
            return value
        return self._kept(tensor, owner) if fixed.rounded else None

    def _kept(self, tensor: torch.Tensor, owner: str) -> Value:
        """Keep a constant of ``forward`` among the frozen arrays of its class, one of a kind."""
        prefix = f"{owner}.{KEPT}" if owner else KEPT
        kept = [path for path in self.lowered.arrays if path.startswith(prefix)]
        same = (p for p in kept if _equal(self.lowered.arrays[p].tensor, tensor))
        path = next(same, f"{prefix}{len(kept)}")
        provenance = Provenance(ProvenanceKind.ARRAY, path)
        order = self.preferences.get(provenance, identity(tensor.ndim))
        self.lowered.arrays[path] = Array(path, tensor, order, False)
        code, name = self.names.reference(owner, path), path.rpartition(".")[2]
        return Value(tuple(tensor.shape), tensor.dtype, order, name, provenance, code=code)

    def table(self, value: Any, owner: str) -> ast.expr | None:
        """Return the embedding whose table a value is, as the class of ``owner`` speaks of it."""
        if not isinstance(value, Value) or value.code is None or not value.is_logical:
            return None
        if value.provenance is None or value.provenance.kind is not ProvenanceKind.ARRAY:
            return None
        path = str(value.provenance.name).rpartition(".")[0]
        spec = self.layer_spec(path)
        if spec is None or spec.target is not mlx.nn.Embedding:
            return None
        self.lowered.leaves.setdefault(path, Leaf(path, spec))
        return self.names.reference(owner, path)

    def with_number(self, op: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments of an op, a second one that is a constant number as that number.

        Only where PyTorch would compute the same with the number itself: an array without axes and
        a number of Python take part alike in the choice of a dtype only beside one with axes.
        """
        if len(args) < 2 or not isinstance(args[0], Value) or not isinstance(args[1], Value):
            return args
        constant = self.numbers.get(args[1].variable)
        if constant is None or op._overloadname != "Tensor":
            return args
        if "Scalar" not in op.overloadpacket.overloads():
            return args
        number = number_of(constant, args[0])
        return args if number is None else (args[0], number, *args[2:])

    def layer_spec(self, path: str) -> LayerSpec | None:
        """Return what is built for the leaf at a path; None where there is no leaf."""
        if path not in self.specs:
            rule = self.captured.leaves.get(path)
            self.specs[path] = None
            if rule is not None:
                try:
                    self.specs[path] = build_spec(rule, self.captured.torch_module(path))
                except Refusal as reason:
                    _logger.debug("%s: its rule refuses: %s", path, reason)
        return self.specs[path]

    def _held(self, path: str, ndim: int) -> tuple[str, Order] | None:
        """Return the name and axis order of a tensor in the layer that has it."""
        parent, _, name = path.rpartition(".")
        spec = self.layer_spec(parent)
        if spec is None or not any(name in entry.sources for entry in spec.entries):
            return None
        held = stored_as(spec, name, ndim)
        if held is None and parent in self.lowered.leaves:
            raise Unsupported(
                f"{spec.target.__name__} does not keep {path} as PyTorch does, and it is read"
            )
        return held

    def _written(self, cx: Context, constant: torch.Tensor, provenance: Provenance) -> Value:
        """Write a constant where it is read."""
        order = self.preferences.get(provenance, identity(constant.ndim))
        shape, dtype = tuple(constant.shape), constant.dtype
        value = Value(shape, dtype, order, "constant", provenance)
        cx.statements.append(Statement((value,), array_of(constant.permute(order))))
        if constant.ndim == 0:
            self.numbers[value.variable] = constant
        return value

    def _tensor(self, path: str) -> tuple[torch.Tensor, bool] | None:
        """Return a tensor of the model and whether it is trained; None for a mere constant."""
        if path in self.parameters:
            return self.parameters[path].detach(), True
        parent, _, name = path.rpartition(".")
        try:
            found = getattr(self.captured.model.get_submodule(parent), name)
        except AttributeError:
            return None
        return found.detach(), False


def _spelled_in(cx: Context, tensor: torch.Tensor, order: Order) -> Value:
    code = spelled(tensor.permute(order))
    if code is None:
        raise AssertionError("what can be written can be written in any order of its axes")
    return cx.compute(code, *cx.results[0], order)


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)
