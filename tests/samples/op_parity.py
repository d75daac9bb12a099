"""The parity check of op handlers: lower, write Python, run it, compare with torch.

`assert_op_parity(fn, *inputs)` exports `fn`, decomposes what has no handler, lowers the flat graph
with inputs stored in several axis orders, runs the emitted text and compares every output with
torch, judged as `mlxport verify` judges: against float64. `lower_op` gives the emitted text itself.
"""

from __future__ import annotations

import itertools
import operator
import string
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import torch
from torch.export._remove_effect_tokens_pass import _remove_effect_tokens
from torch.export.graph_signature import OutputKind
from torch.utils._pytree import tree_leaves, tree_map

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.printing import code_text, numbered
from mlxport.converter.graph.ir.provenance import Provenance, ProvenanceKind
from mlxport.converter.graph.ir.scopes import NodeScope
from mlxport.converter.graph.ir.statement import Statement
from mlxport.converter.graph.ir.value import Order, Value, Variable, channels_last, logical_order
from mlxport.converter.graph.ops.registry import OPS

NOISE_MULTIPLE = 32

MLX_DTYPE = {
    torch.bool: mx.bool_,
    torch.uint8: mx.uint8,
    torch.int8: mx.int8,
    torch.int16: mx.int16,
    torch.int32: mx.int32,
    torch.int64: mx.int64,
    torch.float16: mx.float16,
    torch.bfloat16: mx.bfloat16,
    torch.float32: mx.float32,
    torch.complex64: mx.complex64,
}


@dataclass
class Lowered:
    """A lowered function: the statements emitted, and the values that go in and come out."""

    cx: Context
    inputs: list[Value]
    outputs: Any
    constants: list[tuple[Value, torch.Tensor]] = field(default_factory=list)

    @property
    def body(self) -> list[str]:
        """The statements as source, inputs named a, b, c … and results x1, x2 …"""
        names = self.names()
        return [
            f"{', '.join(names[t.variable] for t in s.targets)} = {code_text(s.code, names)}"
            for s in self.cx.statements
        ]

    @property
    def source(self) -> str:
        """The expression of the only statement."""
        assert len(self.cx.statements) == 1, self.body
        return code_text(self.cx.statements[0].code, self.names())

    @property
    def demands(self) -> dict[str, list[Order]]:
        """Parameter -> the axis orders its consumers asked for."""
        return {
            str(provenance.name): orders for provenance, orders in self.cx.model.demands.items()
        }

    @property
    def orders(self) -> list[Order]:
        """Axis order of every output as stored."""
        return [v.order for v in tree_leaves(self.outputs) if isinstance(v, Value)]

    def names(self) -> dict[Variable, str]:
        letters = string.ascii_lowercase
        given = [*letters, *(f"input{i}" for i in range(len(letters), len(self.inputs)))]
        names = {v.variable: name for v, name in zip(self.inputs, given, strict=False)}
        for i, (value, _) in enumerate(self.constants):
            names[value.variable] = f"constant{i}"
        return numbered(self.cx.statements, names)


class _Function(torch.nn.Module):
    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, *args: torch.Tensor) -> Any:
        return self.fn(*args)


@cache
def _decompositions() -> dict[Any, Any]:
    table = torch.export.default_decompositions()
    table.materialize()
    handled = {op for name in OPS if (op := _overload(name)) is not None}
    return {op: fn for op, fn in table.items() if op not in handled}


def _overload(name: str) -> Any:
    namespace, op, overload = name.split(".")
    packet = getattr(getattr(torch.ops, namespace), op, None)  # another release may lack it
    return getattr(packet, overload, None)


def exported(fn: Callable[..., Any], inputs: Sequence[torch.Tensor]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export warns about torch's own code
        program = torch.export.export(_Function(fn), tuple(inputs), strict=False)
        if _is_handled(program.graph):
            return program  # decomposing would change nothing, and takes most of the time
        return _remove_effect_tokens(program.run_decompositions(dict(_decompositions())))


def _is_handled(graph: torch.fx.Graph) -> bool:
    return not unhandled(graph)


def unhandled(graph: torch.fx.Graph) -> list[str]:
    """Return what a graph calls that has no handler."""
    called = {node.target for node in graph.nodes if node.op == "call_function"}
    return sorted(str(t) for t in called if t is not operator.getitem and str(t) not in OPS)


def lower_op(
    fn: Callable[..., Any],
    *inputs: torch.Tensor,
    orders: Sequence[Order | None] | None = None,
    parameters: Sequence[int] = (),
) -> Lowered:
    return _lower(exported(fn, inputs), orders or [None] * len(inputs), parameters)


def _lower(program: Any, orders: Sequence[Order | None], parameters: Sequence[int]) -> Lowered:
    cx = Context()
    lowered = Lowered(cx, [], None)
    env: dict[Any, Any] = {}
    given = program.graph_signature.user_inputs
    lifted = program.graph_signature.inputs_to_lifted_tensor_constants
    for node in program.graph.nodes:
        if node.op == "placeholder":
            meta = node.meta["val"]
            is_input = node.name in given
            index = len(lowered.inputs)
            order = (orders[index] if is_input else None) or logical_order(meta.ndim)
            free = not is_input or index in parameters
            provenance = Provenance(ProvenanceKind.ARRAY, node.name) if free else None
            env[node] = Value(tuple(meta.shape), meta.dtype, order, node.name, provenance)
            if is_input:
                lowered.inputs.append(env[node])
            else:
                lowered.constants.append((env[node], program.constants[lifted[node.name]]))
        elif node.op == "call_function":
            env[node] = _call(cx, node, env)
        elif node.op == "output":
            specs = program.graph_signature.output_specs  # what is written into inputs is no result
            given_back = [s.kind is OutputKind.USER_OUTPUT for s in specs]
            results = list(itertools.compress(node.args[0], given_back))
            lowered.outputs = tree_map(lambda n: env.get(n, n), results)
        else:
            raise AssertionError(f"{node.op} nodes have no place here")
    return lowered


def _call(cx: Context, node: Any, env: dict[Any, Any]) -> Any:
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), env.__getitem__)
    if node.target is operator.getitem:
        return args[0][args[1]]
    assert str(node.target) in OPS, f"{node.target} has no handler"
    metas = [m for m in tree_leaves(node.meta.get("val")) if isinstance(m, torch.Tensor)]
    scope = NodeScope(tuple((tuple(m.shape), m.dtype) for m in metas), fx=node)
    result = OPS[str(node.target)].handler(replace(cx, node=scope), *args, **kwargs)
    values = [v for v in tree_leaves(result) if isinstance(v, Value)]
    assert len(values) == len(metas), f"{node.target}: {len(values)} results, not {len(metas)}"
    for value, meta in zip(values, metas, strict=True):
        assert value.shape == tuple(meta.shape), f"{node.target} claims shape {value.shape}"
        assert value.dtype == meta.dtype, f"{node.target} claims {value.dtype}"
    return result


def run(lowered: Lowered, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Run the emitted text; check every value against what the handlers said of it."""
    names = lowered.names()
    space: dict[str, Any] = {"mx": mx, "nn": nn}
    for function, file in lowered.cx.model.imports.items():
        exec(f"from mlxport.layers.{file} import {function}", space)
    given = [*zip(lowered.inputs, inputs, strict=True), *lowered.constants]
    for value, tensor in given:
        space[names[value.variable]] = _to_mlx(tensor.permute(value.order))
    for statement, line in zip(lowered.cx.statements, lowered.body, strict=True):
        exec(line, space)
        _check_claims(statement, line, [space[names[t.variable]] for t in statement.targets])
    outputs = [v for v in tree_leaves(lowered.outputs) if v is not None]
    return [
        _to_torch(space[names[v.variable]]).permute(np.argsort(v.order).tolist()) for v in outputs
    ]


def _check_claims(statement: Statement, line: str, arrays: list[Any]) -> None:
    for target, array in zip(statement.targets, arrays, strict=True):
        assert isinstance(array, mx.array), f"{line}: gives {type(array).__name__}"
        claimed, dtype = target.stored_shape, MLX_DTYPE[target.dtype]
        assert array.shape == claimed, f"{line}: gives shape {array.shape}, not {claimed}"
        assert array.dtype == dtype, f"{line}: gives {array.dtype}, not {dtype}"


def assert_op_parity(
    fn: Callable[..., Any],
    *inputs: torch.Tensor,
    orders: Sequence[Order | None] | None = None,
    dtype: torch.dtype | None = None,
    parameters: Sequence[int] = (),
    exact: bool = True,
    program: Any = None,
) -> None:
    inputs = tuple(_cast(x, dtype) for x in inputs)
    program = program or exported(fn, inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = tree_leaves(fn(*(x.clone() for x in inputs)))
        wide = torch.float64 if exact else None
        want = tree_leaves(fn(*(_cast(x, wide).clone() for x in inputs)))
    for tried in [orders] if orders else orders_to_try(inputs):
        got = run(_lower(program, tried, parameters), inputs)
        assert len(got) == len(own), f"orders {tried}: number of outputs"
        for index, triple in enumerate(zip(got, own, want, strict=True)):
            _compare(f"orders {tried}: output {index}", *triple)


def orders_to_try(inputs: Sequence[torch.Tensor]) -> Iterator[list[Order | None]]:
    """Yield the combinations of stored orders to try, each once."""
    last = [channels_last(x.ndim) if x.ndim > 2 else None for x in inputs]
    back: list[Order | None] = [logical_order(x.ndim)[::-1] for x in inputs]
    own: list[Order | None] = [None] * len(inputs)
    tried: list[list[Order | None]] = []
    for orders in (own, last, back, [*last[:1], *own[1:]], [*own[:1], *last[1:]]):
        if orders not in tried:
            tried.append(orders)
            yield orders


def _cast(x: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    if x.is_complex():
        return x.to(torch.complex128) if dtype == torch.float64 else x
    return x if dtype is None or not x.is_floating_point() else x.to(dtype)


def _to_mlx(x: torch.Tensor) -> mx.array:
    assert x.dtype in MLX_DTYPE, f"{x.dtype} has no place in MLX"
    if x.numel() == 0:  # MLX 0.32.4 may reduce an array made from an empty one without end
        return mx.zeros(tuple(x.shape), dtype=MLX_DTYPE[x.dtype])
    return mx.array(x.contiguous()).reshape(tuple(x.shape))


def _to_torch(x: mx.array) -> torch.Tensor:
    if x.dtype == mx.bfloat16:
        return torch.from_numpy(np.array(x.view(mx.uint16))).view(torch.bfloat16)
    return torch.from_numpy(np.array(x))


def _compare(name: str, got: torch.Tensor, own: torch.Tensor, want: torch.Tensor) -> None:
    """Compare MLX's value with torch's in float64; torch's in its own dtype sets the scale."""
    own, want = own.detach(), want.detach()
    assert got.shape == own.shape, f"{name}: shape {got.shape}, torch has {own.shape}"
    assert got.dtype == own.dtype, f"{name}: dtype {got.dtype}, torch has {own.dtype}"
    if not own.is_floating_point() and not own.is_complex():
        assert torch.equal(got, own), f"{name}: {got}, torch has {own}"
        return
    infinite = (torch.isinf,) if own.is_complex() else (torch.isposinf, torch.isneginf)
    for kind in (torch.isnan, *infinite):
        assert torch.equal(kind(got), kind(own)), f"{name}: {kind.__name__} differs"
    finite = torch.isfinite(own) & torch.isfinite(want)
    error, noise = (_error(x[finite], want[finite]) for x in (got, own))
    limit = NOISE_MULTIPLE * max(noise, torch.finfo(own.dtype).eps / 2)
    assert error <= limit, f"{name}: error {error:.3g}, torch's {noise:.3g}, limit {limit:.3g}"


def _error(x: torch.Tensor, reference: torch.Tensor) -> float:
    exact = torch.complex128 if x.is_complex() else torch.float64
    difference = torch.linalg.vector_norm(x.to(exact) - reference.to(exact))
    scale = torch.linalg.vector_norm(reference.to(exact))
    return float(difference / scale) if scale > 0 else float(difference)
