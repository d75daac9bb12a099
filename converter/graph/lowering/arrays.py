"""Read parameters, buffers and constants of the torch model in the bodies of classes."""

from __future__ import annotations

import ast
import logging
import operator
from typing import Any, cast

import mlx.nn
import torch

from mlxport.converter.graph.capture.capture import Captured
from mlxport.converter.graph.capture.leaves import plain_path, stored_as
from mlxport.converter.graph.ir.body import Leaf, Lowered, StoredArray
from mlxport.converter.graph.ir.constant_source import short_expression
from mlxport.converter.graph.ir.constants import array_of, is_short, number_of
from mlxport.converter.graph.ir.context import Context, Unsupported
from mlxport.converter.graph.ir.dtypes import MLX_NAME, in_narrower, mlx_dtype
from mlxport.converter.graph.ir.naming import ModelNames
from mlxport.converter.graph.ir.nodes import stand_in
from mlxport.converter.graph.ir.provenance import Provenance, ProvenanceKind
from mlxport.converter.graph.ir.statement import Statement
from mlxport.converter.graph.ir.value import Order, Value, logical_order
from mlxport.converter.graph.lowering.constants.constant_folding import ConstantResult, Form
from mlxport.converter.graph.lowering.frame import Frame
from mlxport.converter.rules.parametrization import build_spec
from mlxport.converter.rules.registry import LayerSpec, Refusal
from mlxport.converter.torch_model.loading_code import state_of

_logger = logging.getLogger(__name__)

# Names of the arrays of a class that hold constants which ``forward`` computes.
_CONSTANT = "constant_"


class Arrays:
    """Reads the tensors of a captured model, wherever they are in the MLX model.

    Args:
        captured: the captured model.
        names: the attribute paths in MLX of its modules.
        lowered: gains what is read.
    """

    def __init__(self, captured: Captured, names: ModelNames, lowered: Lowered) -> None:
        self.captured, self.names, self.lowered = captured, names, lowered
        self.parameters = dict(captured.model.named_parameters(remove_duplicate=False))
        self.state = {captured.sharing.tensor(name) for name in captured.state}
        self.loaded = set(map(captured.sharing.tensor, state_of(captured.model)))
        self.specs: dict[str, LayerSpec | None] = {}

    def read(self, frame: Frame, name: str) -> Value:
        """Return a tensor of a frame's module, as its body reads it.

        Args:
            frame: the module and the body.
            name: what the tensor is called in the captured module.

        Raises:
            Unsupported: it is in a layer that stores something else than the tensor itself, or of
                a dtype that MLX has not.
        """
        full = self._path(frame, name)
        found = self._tensor(full)
        provenance = Provenance(ProvenanceKind.ARRAY, full)
        if found is None:
            constant = operator.attrgetter(name)(frame.module).detach()
            if is_short(constant):
                return self._literal(frame.cx, constant, provenance)
            found = constant, False
        tensor, trainable = found
        if tensor.dtype not in MLX_NAME:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise Unsupported(
                f"it is of {dtype}, of which MLX keeps no weights. Cast it in the model, or all of "
                "it (model.float())"
            )
        stored = self._in_layer(full, tensor.ndim)
        order = frame.cx.preferred(provenance, logical_order(tensor.ndim))
        if stored is not None:
            _, order = stored
        code = self._reference(frame, full, tensor.ndim)
        self.lowered.arrays[full] = StoredArray(full, tensor, order, trainable)
        short = name.split(".")[-1]
        if full in self.state:  # as it is now, whatever is written later
            value = Value(tuple(tensor.shape), tensor.dtype, order, short, provenance)
            reading = Statement((value,), code, reads=frozenset({full}))
            frame.cx.statements.append(reading)
            return value
        return Value(tuple(tensor.shape), tensor.dtype, order, short, provenance, code=code)

    def write(self, frame: Frame, name: str, values: tuple[Value, Value]) -> None:
        """Write a value into a tensor of a frame's module: the state of later calls.

        Args:
            frame: the module and the body, at the node that writes.
            name: what the tensor is called in the captured module.
            values: the tensor as it was read, and what it becomes.
        """
        full = self._path(frame, name)
        known = self.lowered.arrays[full]
        _, value = frame.dtypes.followed(values)
        value = frame.cx.arrange(value, known.order)
        target = Value(value.shape, value.dtype, value.order, "_")
        self.lowered.state[full] = None
        frame.cx.statements.append(
            Statement(
                (target,),
                value.to_ast(),
                stores=self._reference(frame, full, len(known.order)),
                writes=frozenset({full}),
            )
        )

    def constant(self, frame: Frame, name: str) -> torch.Tensor | None:
        """Return a tensor of a frame's module; None if it is one of the model's, or a graph.

        One of the model's in a dtype that MLX has not is a constant too, where no checkpoint has it
        and no call writes it.
        """
        full = self._path(frame, name)
        known = self._tensor(full)
        if known is not None:
            lasting = full in self.loaded or full in self.state
            return None if lasting or known[0].dtype in MLX_NAME else known[0]
        found = operator.attrgetter(name)(frame.module)
        return found.detach() if isinstance(found, torch.Tensor) else None

    def folded(self, frame: Frame, constant: ConstantResult) -> Value | None:
        """Return the value of a node that is constant, by its shortest expression or as an array.

        None where it is to be computed as PyTorch does.

        Args:
            frame: the body, at the node.
            constant: what the node gives.

        Raises:
            Unsupported: MLX has no dtype for its values.
        """
        if constant.form is Form.COMPUTED:
            return None
        if constant.tensor is None:  # nothing reads it
            return cast(Value, stand_in(frame.node, frame.cx))
        if constant.form is Form.ARRAY:
            return self.kept(frame, constant.tensor)
        tensor, cx = in_narrower(constant.tensor), frame.cx
        value = cx.in_any_order(lambda order: _short_in(cx, tensor, order))
        if tensor.ndim == 0:
            value.variable.number = tensor
        return value

    def _reference(self, frame: Frame, full: str, ndim: int) -> ast.expr:
        """Return the expression of a tensor, as the body of a frame reads or writes it."""
        stored = self._in_layer(full, ndim)
        if stored is None:
            return self.names.reference(frame.owner, full)
        code = self.names.reference(frame.owner, full.rpartition(".")[0])
        for segment in stored[0].split("."):
            code = ast.Attribute(code, segment)
        return code

    def _path(self, frame: Frame, name: str) -> str:
        """Return where a tensor of a captured module is in the torch model."""
        path = f"{frame.path}.{name}" if frame.path else name
        return self.captured.sharing.tensor(plain_path(path))

    def kept(self, frame: Frame, constant: torch.Tensor) -> Value:
        """Make a constant a frozen array of the class, the same one for equal constants.

        A short one is written where it is read.

        Args:
            frame: the body, at the node that gives it.
            constant: its values.

        Raises:
            Unsupported: MLX has no dtype for its values.
        """
        tensor = in_narrower(constant)
        mlx_dtype(tensor.dtype)
        if is_short(tensor):
            value = self._literal(frame.cx, tensor, None)
            value.variable.number = constant if constant.ndim == 0 else None
            return value
        owner = frame.owner
        prefix = f"{owner}.{_CONSTANT}" if owner else _CONSTANT
        known = [path for path in self.lowered.arrays if path.startswith(prefix)]
        same = (p for p in known if _equal(self.lowered.arrays[p].tensor, tensor))
        path = next(same, f"{prefix}{len(known)}")
        provenance = Provenance(ProvenanceKind.ARRAY, path)
        order = frame.cx.preferred(provenance, logical_order(tensor.ndim))
        self.lowered.arrays[path] = StoredArray(path, tensor, order, False)
        code, name = self.names.reference(owner, path), path.rpartition(".")[2]
        return Value(tuple(tensor.shape), tensor.dtype, order, name, provenance, code=code)

    def table(self, value: Any, owner: str) -> ast.expr | None:
        """Return the expression of the embedding whose table a value is; None if it is none."""
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
        constant = args[1].variable.number
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

    def _in_layer(self, path: str, ndim: int) -> tuple[str, Order] | None:
        """Return the name and axis order of a tensor in the layer that has it."""
        parent, _, name = path.rpartition(".")
        spec = self.layer_spec(parent)
        if spec is None or not any(name in entry.sources for entry in spec.entries):
            return None
        stored = stored_as(spec, name, ndim)
        if stored is None and parent in self.lowered.leaves:
            raise Unsupported(
                f"{spec.target.__name__} does not keep {path} as PyTorch does, and it is read"
            )
        return stored

    def _literal(self, cx: Context, constant: torch.Tensor, provenance: Provenance | None) -> Value:
        """Write a constant where it is read: it is short."""
        order = cx.preferred(provenance, logical_order(constant.ndim))
        shape, dtype = tuple(constant.shape), constant.dtype
        value = Value(shape, dtype, order, "constant", provenance)
        cx.statements.append(Statement((value,), array_of(constant.permute(order))))
        if constant.ndim == 0:
            value.variable.number = constant
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


def _short_in(cx: Context, tensor: torch.Tensor, order: Order) -> Value:
    code = short_expression(tensor.permute(order))
    if code is None:
        raise AssertionError("what can be written can be written in any order of its axes")
    return cx.compute(code, *cx.results[0], order)


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)
