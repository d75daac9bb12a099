"""The parameters, buffers and constants that bodies read themselves."""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping
from typing import Any

import mlx.nn
import torch

from mlxport.converter.graph.body import Array, Leaf, Lowered
from mlxport.converter.graph.capture import Captured
from mlxport.converter.graph.context import Unsupported
from mlxport.converter.graph.leaves import plain_path, stored_as
from mlxport.converter.graph.naming import Names
from mlxport.converter.graph.value import ARRAY, Order, Value, identity
from mlxport.converter.rules.parametrization import spec_by
from mlxport.converter.rules.registry import LayerSpec, Refusal


class Arrays:
    """Reads the tensors of a captured model, wherever they stand in the MLX model.

    Args:
        captured: the captured model.
        names: where its modules stand in the MLX model.
        lowered: gains what is read.
        preferences: origin of an array -> the axis order to store it in.
    """

    def __init__(
        self,
        captured: Captured,
        names: Names,
        lowered: Lowered,
        preferences: Mapping[str, Order],
    ) -> None:
        self.captured, self.names, self.lowered = captured, names, lowered
        self.preferences = preferences
        self.parameters = dict(captured.model.named_parameters(remove_duplicate=False))
        self.specs: dict[str, LayerSpec | None] = {}

    def read(self, target: str, module: torch.nn.Module, path: str, owner: str) -> Value:
        """Return the tensor ``target`` of the captured module at ``path``.

        Args:
            target: its name in the captured module.
            module: the captured module.
            path: where that stands in the torch model.
            owner: path of the class whose body reads it.

        Raises:
            Unsupported: it stands in a layer that keeps it in a form of its own.
        """
        full = plain_path(f"{path}.{target}" if path else target)
        full = self.captured.sharing.tensor(full)
        tensor, trainable = self._tensor(full, target, module)
        origin = f"{ARRAY}{full}"
        held = self._held(full, tensor.ndim)
        if held is None:
            order = self.preferences.get(origin, identity(tensor.ndim))
            code = self.names.reference(owner, full)
        else:
            parameter, order = held
            code = self.names.reference(owner, full.rpartition(".")[0])
            for segment in parameter.split("."):
                code = ast.Attribute(code, segment)
        self.lowered.arrays[full] = Array(full, tensor, order, trainable)
        name = target.split(".")[-1]
        return Value(tuple(tensor.shape), tensor.dtype, order, name, origin, code=code)

    def table(self, value: Any, owner: str) -> ast.expr | None:
        """Return the embedding whose table a value is, as the class of ``owner`` speaks of it."""
        if not isinstance(value, Value) or value.code is None or not value.is_logical:
            return None
        path = (value.origin or "").removeprefix(ARRAY).rpartition(".")[0]
        spec = self.layer_spec(path)
        if spec is None or spec.target is not mlx.nn.Embedding:
            return None
        self.lowered.leaves.setdefault(path, Leaf(path, spec))
        return self.names.reference(owner, path)

    def layer_spec(self, path: str) -> LayerSpec | None:
        """Return what is built for the leaf at a path; None where there is no leaf."""
        if path not in self.specs:
            rule = self.captured.leaves.get(path)
            try:
                spec = rule and spec_by(rule, self.captured.torch_module(path))
            except Refusal:
                spec = None
            self.specs[path] = spec
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

    def _tensor(self, path: str, target: str, module: torch.nn.Module) -> tuple[torch.Tensor, bool]:
        if path in self.parameters:
            return self.parameters[path].detach(), True
        parent, _, name = path.rpartition(".")
        try:
            found = getattr(self.captured.model.get_submodule(parent), name)
        except AttributeError:
            found = operator.attrgetter(target)(module)
        return found.detach(), False
