"""Lower a captured model: every leaf module by its rule, everything else op by op.

The walk follows the module hierarchy that torch.export kept. Problems are collected, never raised
one by one: the lowering goes on with what PyTorch says a node gives, and all of them are reported.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.fx import Graph, Node

from mlxport.converter.graph.body import Array, Body, Leaf, Lowered
from mlxport.converter.graph.capture import Captured, plain_path
from mlxport.converter.graph.context import Context, Statement, Unsupported
from mlxport.converter.graph.naming import Names, argument_name, is_inlined, variable_name
from mlxport.converter.graph.ops.registry import OPS
from mlxport.converter.graph.problems import Problem, raise_problems
from mlxport.converter.graph.schedule import write_body
from mlxport.converter.graph.signature import nested_result
from mlxport.converter.graph.value import Order, Value, channels_last, identity
from mlxport.converter.record import Layout, ModuleRecord
from mlxport.converter.rules.registry import Axes, LayerSpec, Refusal

Preferences = Mapping[str, Order]


def lower(captured: Captured, *, channels_last_ends: bool = False) -> Lowered:
    """Lower a captured model.

    Lowered twice: the first pass shows in which axis order the consumers of each input and
    parameter want it; the second stores it that way where they agree.

    Args:
        captured: the model.
        channels_last_ends: take inputs and give outputs channels-last, without transposes.

    Raises:
        UnsupportedError: modules or ops without support, all of them listed.
    """
    first = _Lowering(captured, {}, channels_last_ends).model()
    agreed = {
        origin: orders[0] for origin, orders in first.demands.items() if len(set(orders)) == 1
    }
    second = _Lowering(captured, agreed, channels_last_ends).model()
    return second if second.transposes <= first.transposes else first


class _Lowering:
    """One pass over the captured hierarchy."""

    def __init__(self, captured: Captured, preferences: Preferences, last: bool) -> None:
        self.captured = captured
        self.preferences = preferences
        self.channels_last_ends = last
        self.names = Names(captured.model)
        self.parameters = dict(captured.model.named_parameters(remove_duplicate=False))
        self.lowered = Lowered()
        self.problems: list[Problem] = []

    # -- the model itself ------------------------------------------------------------------------

    def model(self) -> Lowered:
        root = self.captured.root
        inputs = [_input(node) for node in _graph(root).nodes if node.op == "placeholder"]
        body = Body("", inputs)
        cx = self._context(body)
        arranged = [self._enter(cx, value) for value in inputs]
        outputs = self._run(root, "", "", cx, arranged)
        body.outputs = [self._leave(cx, value) for value in _flat(outputs)]
        body.result = nested_result(self.captured.program, body.outputs)
        body.text = write_body(body, self.names, self.lowered.imports)
        self._keep(body)
        raise_problems(type(self.captured.model).__name__, self.problems)
        self._record("", body.inputs, body.outputs)
        return self.lowered

    def _enter(self, cx: Context, value: Value) -> Value:
        if self.channels_last_ends and value.ndim > 2:
            value.order = channels_last(value.ndim)
        order = self.preferences.get(value.origin or "", value.order)
        entered = cx.arrange(replace(value, origin=None), order)
        return replace(entered, origin=value.origin)

    def _leave(self, cx: Context, value: Value) -> Value:
        wanted = identity(value.ndim)
        if self.channels_last_ends and value.ndim > 2:
            wanted = channels_last(value.ndim)
        return cx.arrange(value, wanted)

    # -- walking graphs --------------------------------------------------------------------------

    def _context(self, body: Body) -> Context:
        return Context(
            statements=body.statements, imports=self.lowered.imports, demands=self.lowered.demands
        )

    def _run(
        self, module: torch.nn.Module, path: str, owner: str, cx: Context, inputs: Sequence[Any]
    ) -> Any:
        """Lower the graph of the module at ``path`` into the body of the class ``owner``."""
        waiting = iter(inputs)
        env: dict[Node, Any] = {}
        for node in _graph(module).nodes:
            if node.op == "placeholder":
                env[node] = next(waiting)
            elif node.op == "output":
                return torch.fx.node.map_arg(node.args[0], env.__getitem__)
            else:
                env[node] = self._node(node, module, path, owner, cx, env)
        raise AssertionError(f"the graph of {path!r} has no output")

    def _node(
        self,
        node: Node,
        module: torch.nn.Module,
        path: str,
        owner: str,
        cx: Context,
        env: Mapping[Node, Any],
    ) -> Any:
        arguments: Any = torch.fx.node.map_arg((node.args, node.kwargs), env.__getitem__)
        args, kwargs = arguments
        cx.results, cx.name = _results(node), _name(node)
        if node.op == "get_attr":
            return self._array(str(node.target), module, path, owner)
        if node.op == "call_module":
            return self._module(node, module, path, owner, cx, args, kwargs)
        if node.target is operator.getitem:
            return args[0][args[1]]
        return self._op(node, path, cx, args, kwargs)

    def _op(
        self, node: Node, path: str, cx: Context, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        name = str(node.target)
        try:
            if name not in OPS:
                raise Unsupported("no MLX handler")
            result = OPS[name].handler(cx, *args, **kwargs)
            _check(node, result)
        except Unsupported as reason:
            self.problems.append(Problem.at(node, name, path, str(reason)))
            return _stand_in(node, cx)
        return result

    # -- modules ---------------------------------------------------------------------------------

    def _module(
        self,
        node: Node,
        parent: torch.nn.Module,
        parent_path: str,
        owner: str,
        cx: Context,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        path = f"{parent_path}.{node.target}" if parent_path else str(node.target)
        child = parent.get_submodule(str(node.target))
        inputs = _bound(_graph(child), args, kwargs)
        if plain_path(path) in self.captured.leaves:
            try:
                return self._leaf(path, owner, cx, inputs)
            except Refusal:
                pass  # the ops it is made of may still be supported
        if is_inlined(self.captured.torch_module(path)):
            return self._run(child, path, owner, cx, inputs)
        return self._class(child, path, owner, cx, inputs)

    def _leaf(self, path: str, owner: str, cx: Context, inputs: Sequence[Value]) -> Value:
        plain = plain_path(path)
        if plain not in self.lowered.leaves:
            spec = self.captured.leaves[plain].build(self.captured.torch_module(path))
            self.lowered.leaves[plain] = Leaf(plain, spec)
            if _is_ours(spec):
                file = spec.target.__module__.rpartition(".")[2]
                self.lowered.imports[spec.target.__name__] = file
        spec = self.lowered.leaves[plain].spec
        _check_batched(spec, inputs)
        arranged = [_arrange_for(spec, cx, value) for value in inputs]
        shape, dtype = cx.results[0]
        order = _order_after(spec, arranged[0], len(shape))
        cx.name = variable_name(plain, cx.name)
        value = cx.compute(self._call(owner, plain, arranged), shape, dtype, order)
        cx.statements[-1].module = plain
        self._record(plain, arranged, [value])
        return value

    def _class(
        self,
        module: torch.nn.Module,
        path: str,
        owner: str,
        cx: Context,
        inputs: Sequence[Any],
    ) -> Any:
        """Lower a module that becomes a class; a second call must have the same body."""
        plain = plain_path(path)
        known = self.lowered.bodies.get(plain)
        values = _flat(inputs)
        if len(values) != len(inputs) or (known and len(known.inputs) != len(values)):
            return self._run(module, path, owner, cx, inputs)
        places = self._places(plain, len(values))
        values = [values[i] for i in places]
        if known is not None:
            pairs = zip(values, known.inputs, strict=True)
            values = [cx.arrange(value, formal.order) for value, formal in pairs]
        calls = len(self.lowered.records)
        body, result = self._body(module, path, values, places)
        if known is not None and known.text != body.text:
            del self.lowered.records[calls:]
            return self._run(module, path, owner, cx, inputs)
        self._keep(body)
        outputs = tuple(
            Value(v.shape, v.dtype, v.order, variable_name(plain, cx.name)) for v in body.outputs
        )
        cx.statements.append(Statement(outputs, self._call(owner, plain, values), plain))
        self._record(plain, values, outputs)
        return outputs[0] if isinstance(result, Value) else outputs

    def _places(self, path: str, count: int) -> list[int]:
        """Return which captured input stands first, second … in ``forward``."""
        known = self.captured.arguments.get(path, ())
        if len(known) != count:
            return list(range(count))
        return sorted(range(count), key=lambda i: known[i].position)

    def _body(
        self, module: torch.nn.Module, path: str, values: Sequence[Value], places: Sequence[int]
    ) -> tuple[Body, Any]:
        """Lower the body of a class.

        Args:
            module: the captured module.
            path: its captured path.
            values: what it is called with, in the order of ``forward``.
            places: of each of them, where it stands among the captured inputs.
        """
        plain = plain_path(path)
        known = self.captured.arguments.get(plain, ())
        names = [f"x{i}" if len(values) > 1 else "x" for i in range(len(values))]
        if len(known) == len(values):
            names = [known[i].name for i in places]
        formal = [
            Value(v.shape, v.dtype, v.order, name, v.origin)
            for v, name in zip(values, names, strict=True)
        ]
        body = Body(plain, formal)
        captured = [value for _, value in sorted(zip(places, formal, strict=True), key=_first)]
        result = self._run(module, path, plain, self._context(body), captured)
        body.outputs = _flat(result)
        single = isinstance(result, Value)
        returned = [value.to_ast() for value in body.outputs]
        body.result = returned[0] if single else ast.Tuple(returned)
        body.text = write_body(body, self.names, self.lowered.imports)
        return body, result

    def _keep(self, body: Body) -> None:
        """Keep the body of a class; each call of it counts."""
        self.lowered.bodies.setdefault(body.path, body)
        self.lowered.transposes += sum(line.count(".transpose(") for line in body.text)

    def _call(self, owner: str, path: str, values: Sequence[Value]) -> ast.Call:
        return ast.Call(self.names.reference(owner, path), [v.to_ast() for v in values], [])

    # -- parameters and records ------------------------------------------------------------------

    def _array(self, target: str, module: torch.nn.Module, path: str, owner: str) -> Value:
        full = plain_path(f"{path}.{target}" if path else target)
        tensor, trainable = self._tensor(full, target, module)
        origin = f"array:{full}"
        order = self.preferences.get(origin, identity(tensor.ndim))
        self.lowered.arrays[full] = Array(full, tensor, order, trainable)
        name, code = target.split(".")[-1], self.names.reference(owner, full)
        return Value(tuple(tensor.shape), tensor.dtype, order, name, origin, code)

    def _tensor(self, path: str, target: str, module: torch.nn.Module) -> tuple[torch.Tensor, bool]:
        if path in self.parameters:
            return self.parameters[path].detach(), True
        parent, _, name = path.rpartition(".")
        try:
            found = getattr(self.captured.model.get_submodule(parent), name)
        except AttributeError:
            found = operator.attrgetter(target)(module)
        return found.detach(), False

    def _record(self, path: str, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        self.lowered.records.append(
            ModuleRecord(path, self.names.target(path), _layouts(inputs), _layouts(outputs))
        )


# -- what a layer wants and gives ----------------------------------------------------------------


def _arrange_for(spec: LayerSpec, cx: Context, value: Value) -> Value:
    if spec.axes is Axes.CHANNELS_LAST:
        return cx.channels_last(value, spec.rank)
    if spec.axes is Axes.FEATURES_LAST:
        return cx.last(value, spec.rank or 1)
    return cx.logical(value) if spec.axes is Axes.LOGICAL else value


def _check_batched(spec: LayerSpec, inputs: Sequence[Value]) -> None:
    """Refuse input without a batch axis for MLX's own spatial layers, which all want one."""
    unbatched = spec.rank is not None and any(v.ndim == spec.rank + 1 for v in inputs)
    if unbatched and spec.axes is Axes.CHANNELS_LAST and not _is_ours(spec):
        raise Refusal(f"{spec.target.__name__} takes no input without a batch axis")


def _is_ours(spec: LayerSpec) -> bool:
    return spec.target.__module__.startswith("mlxport.layers.")


def _order_after(spec: LayerSpec, value: Value, ndim: int) -> Order:
    if ndim == value.ndim:
        return value.order
    if spec.axes is Axes.LOGICAL:
        return identity(ndim)
    raise Refusal(f"{spec.target.__name__} changes the number of axes from {value.ndim} to {ndim}")


# -- reading fx nodes ----------------------------------------------------------------------------


def _graph(module: torch.nn.Module) -> Graph:
    graph: Any = module.graph
    return graph  # type: ignore[no-any-return]


def _input(node: Node) -> Value:
    fake = node.meta["val"]
    if not isinstance(fake, torch.Tensor):
        raise Unsupported(f"input {node.name!r} is a {type(fake).__name__}; only tensors for now")
    name = argument_name(str(node.target))
    return Value(tuple(fake.shape), fake.dtype, identity(fake.ndim), name, f"input:{name}")


def _results(node: Node) -> tuple[tuple[tuple[Any, ...], torch.dtype], ...]:
    found = torch.utils._pytree.tree_leaves(node.meta.get("val"))
    return tuple((tuple(t.shape), t.dtype) for t in found if isinstance(t, torch.Tensor))


def _name(node: Node) -> str:
    """Name a node's result after its op: ``cat``, ``mul``."""
    target = (
        str(node.target).removeprefix("aten.").split(".")[0]
        if node.op == "call_function"
        else node.name
    )
    return re.sub(r"\W|_\d+$", "", target).strip("_") or "y"


def _bound(graph: Graph, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return arguments in the order of the placeholders of a submodule's graph."""
    names = [str(node.target) for node in graph.nodes if node.op == "placeholder"]
    return [*args, *(kwargs[name] for name in names[len(args) :])]


def _first(pair: tuple[int, Value]) -> int:
    return pair[0]


def _flat(values: Any) -> list[Value]:
    return [v for v in torch.utils._pytree.tree_leaves(values) if isinstance(v, Value)]


def _stand_in(node: Node, cx: Context) -> Any:
    made = [Value(shape, dtype, identity(len(shape)), cx.name) for shape, dtype in cx.results]
    return made[0] if isinstance(node.meta.get("val"), torch.Tensor) else tuple(made)


def _check(node: Node, result: Any) -> None:
    """Hold a handler's answer against what PyTorch says the node gives."""
    expected = [(tuple(shape), dtype) for shape, dtype in _results(node)]
    got = [(tuple(value.shape), value.dtype) for value in _flat(result)]
    if expected != got:
        raise Unsupported(f"the handler gives {got} where PyTorch gives {expected}")


def _layouts(values: Sequence[Value]) -> tuple[Layout, ...]:
    return tuple(
        Layout(tuple(map(int, v.shape)), str(v.dtype).removeprefix("torch."), v.order)
        for v in values
    )
