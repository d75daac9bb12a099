"""Lower a captured model: every leaf module by its rule, everything else op by op.

The walk follows the module hierarchy that torch.export kept. Problems are collected, never raised
one by one: the lowering goes on with what PyTorch says a node gives, and all of them are reported.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.fx import Graph, Node

from mlxport.converter.graph.arrays import Arrays
from mlxport.converter.graph.body import Body, Lowered
from mlxport.converter.graph.capture import Captured
from mlxport.converter.graph.context import Context, Statement, Unsupported
from mlxport.converter.graph.entrance import enter
from mlxport.converter.graph.flattened import holds, of_columns
from mlxport.converter.graph.folding import Folding
from mlxport.converter.graph.leaf_lowering import as_linear, call_of, lower_leaf, record_call
from mlxport.converter.graph.leaves import plain_path
from mlxport.converter.graph.made_floats import following
from mlxport.converter.graph.naming import Names, is_inlined, variable_name
from mlxport.converter.graph.nodes import (
    bound,
    check_result,
    flat,
    graph_of,
    name_of,
    results_of,
    stand_in,
    where_static,
    with_sizes,
    without_sizes,
)
from mlxport.converter.graph.ops.registry import OPS
from mlxport.converter.graph.preferences import of_parts, place_of, unanimous
from mlxport.converter.graph.problems import Problem, Tally, raise_gaps
from mlxport.converter.graph.schedule import write_body
from mlxport.converter.graph.signature import nested_result
from mlxport.converter.graph.size_reads import SizeReads
from mlxport.converter.graph.sizes import NotStatic, Size, is_symbolic, name_symbols, symbolic
from mlxport.converter.graph.value import Order, Value, channels_last, identity
from mlxport.converter.rules.registry import Refusal
from mlxport.converter.timings import stage

Preferences = Mapping[str, Order]


@stage("lower")
def lower(captured: Captured, *, channels_last_ends: bool = False) -> Lowered:
    """Lower a captured model.

    Lowered several times: the first pass shows in which axis order the consumers of each input
    and parameter want it; later ones store it that way, and are kept where it saves transposes.

    Args:
        captured: the model.
        channels_last_ends: take inputs and give outputs channels-last, without transposes.

    Raises:
        UnsupportedError: modules or ops without support, all of them listed.
    """
    lowered, tally = attempt(captured, channels_last_ends=channels_last_ends)
    raise_gaps(type(captured.model).__name__, tally.gaps())
    return lowered


def attempt(captured: Captured, *, channels_last_ends: bool = False) -> tuple[Lowered, Tally]:
    """Lower a captured model as far as it goes, and tell what was met on the way.

    Where there are problems, the lowered model goes on with what PyTorch says, and cannot run.
    """
    tally = Tally()
    folding = Folding()
    preferences: dict[str, Order] = {}

    def lowered_by(preferences: Preferences) -> Lowered:
        return _Lowering(captured, preferences, channels_last_ends, tally, folding).model()

    best = lowered_by(preferences)
    for more in (unanimous, of_parts, unanimous, of_columns):
        for added in more(best.demands, preferences):
            tried = lowered_by(preferences | added)
            fewest = best.transposes + (more is unanimous)
            if tried.transposes < fewest and holds(tried, preferences | added):
                best, preferences = tried, preferences | added
                break
    return best, tally


class _Lowering:
    """One pass over the captured hierarchy."""

    def __init__(
        self,
        captured: Captured,
        preferences: Preferences,
        last: bool,
        tally: Tally,
        folding: Folding,
    ) -> None:
        self.captured = captured
        self.preferences = preferences
        self.channels_last_ends = last
        self.names = Names(captured.model)
        self.lowered = Lowered()
        self.arrays = Arrays(captured, self.names, self.lowered, preferences)
        self.tally = tally
        self.folding = folding

    # -- the model itself ------------------------------------------------------------------------

    def model(self) -> Lowered:
        root = self.captured.root
        signature = self.lowered.signature = self.captured.signature
        placeholders = [node for node in graph_of(root).nodes if node.op == "placeholder"]
        formals, inputs = enter(signature, placeholders)
        self.lowered.size_names = name_symbols(flat(inputs))
        body = Body("", flat(inputs), formals, sizes=SizeReads(self.lowered.size_names))
        cx = self._context(body)
        arranged = [self._enter(cx, v) if isinstance(v, Value) else v for v in inputs]
        outputs = self._run(root, "", "", cx, arranged)
        leaving = [self._leave(cx, v) if isinstance(v, Value) else v for v in outputs]
        body.outputs = flat(leaving)
        body.result = nested_result(signature.result, leaving)
        body.text = write_body(body, self.names, self.lowered.imports)
        self._keep(body)
        if body.sizes.given:
            self._report_sizes(graph_of(root), [size for size, _ in body.sizes.given])
        record_call(self.lowered, self.names, "", body.inputs, body.outputs)
        return self.lowered

    def _enter(self, cx: Context, value: Value) -> Value:
        if self.channels_last_ends and value.ndim > 2:
            value.order = channels_last(value.ndim)
        order = cx.preferred(value.origin or "", value.order)
        entered = cx.arrange(replace(value, origin=None), order)
        return replace(entered, origin=value.origin)

    def _leave(self, cx: Context, value: Value) -> Value:
        wanted = identity(value.ndim)
        if self.channels_last_ends and value.ndim > 2:
            wanted = channels_last(value.ndim)
        return cx.arrange(value, wanted)

    def _report_sizes(self, graph: Graph, sizes: Sequence[Size]) -> None:
        """Note that some sizes cannot be read off the inputs."""
        output = next(node for node in graph.nodes if node.op == "output")
        listed = ", ".join(map(str, sizes))
        reason = "it depends on the data, or no input's shape tells it"
        self.tally.problems[output] = Problem.at(output, f"a size ({listed})", "", reason)

    # -- walking graphs --------------------------------------------------------------------------

    def _context(self, body: Body) -> Context:
        return Context(
            statements=body.statements,
            imports=self.lowered.imports,
            demands=self.lowered.demands,
            own=self.lowered.own,
            inputs=body.inputs,
            preferences=self.preferences,
            draws=self.lowered.draws,
            above_one=self.lowered.above_one,
        )

    def _run(
        self, module: torch.nn.Module, path: str, owner: str, cx: Context, inputs: Sequence[Any]
    ) -> Any:
        """Lower the graph of the module at ``path`` into the body of the class ``owner``."""
        self.tally.walked.add(plain_path(path))
        self.folding.of(
            graph_of(module), lambda node: self.arrays.constant(str(node.target), module, path)
        )
        waiting = iter(inputs)
        env: dict[Node, Any] = {}
        for node in graph_of(module).nodes:
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
        cx.results, cx.name, cx.node = results_of(node), name_of(node), node
        cx.place = place_of(node, path)
        cx.source = place_of(next(iter(node.all_input_nodes), node), path)
        if node.op == "get_attr":
            return self._array(node, module, path, owner, cx)
        if node.op == "call_module":
            args, kwargs = following(cx, arguments, called=True)
            return self._module(node, module, path, owner, cx, args, kwargs)
        if node.target is operator.getitem:
            return args[0][args[1]]
        if is_symbolic(node):
            return symbolic(node.meta["val"])
        if str(node.target) == "aten.linear.default":
            table = self.arrays.table(args[1], owner)
            if table is not None:
                return as_linear(cx, table, *args)
        return self._op(node, path, owner, cx, args, kwargs)

    def _op(
        self,
        node: Node,
        path: str,
        owner: str,
        cx: Context,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        name = self.tally.ops[node] = str(node.target)
        fixed = self.folding.known[node.graph].get(node)
        try:
            folded = self.arrays.folded(cx, fixed, owner) if fixed is not None else None
            if folded is not None:
                return folded
            if name not in OPS:
                raise Unsupported("no MLX handler")
            args = self.arrays.with_number(node.target, args)
            args, kwargs = following(cx, (args, kwargs))
            result = OPS[name].handler(cx, *args, **kwargs)
            check_result(node, result)
        except Unsupported as reason:
            told = where_static(node, reason) if isinstance(reason, NotStatic) else reason
            self.tally.problems[node] = Problem.at(node, name, path, str(told))
            return stand_in(node, cx)
        return result

    def _array(
        self, node: Node, module: torch.nn.Module, path: str, owner: str, cx: Context
    ) -> Value:
        try:
            return self.arrays.read(cx, str(node.target), module, path, owner)
        except Unsupported as reason:
            self.tally.problems[node] = Problem.at(node, str(node.target), path, str(reason))
            value: Value = stand_in(node, cx)
            return value

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
        place = self.captured.place(path)
        child = parent.get_submodule(str(node.target))
        inputs = bound(graph_of(child), args, kwargs)
        if place in self.captured.leaves:
            try:
                return lower_leaf(
                    self.captured,
                    self.names,
                    self.lowered,
                    cx,
                    graph_of(child),
                    path,
                    owner,
                    inputs,
                )
            except Refusal as reason:  # the ops it is made of may still be supported
                self.tally.refusals[plain_path(path)] = str(reason)
            except Unsupported as reason:
                name = type(self.captured.torch_module(path)).__name__
                self.tally.problems[node] = Problem.at(node, name, path, str(reason))
                return stand_in(node, cx)
        if is_inlined(self.captured.torch_module(path)) or place in self.captured.sharing.opened:
            return self._run(child, path, owner, cx, inputs)
        return self._class(child, path, owner, cx, inputs)

    def _class(
        self,
        module: torch.nn.Module,
        path: str,
        owner: str,
        cx: Context,
        inputs: Sequence[Any],
    ) -> Any:
        """Lower a module that becomes a class; a second call must have the same body."""
        plain = self.captured.place(path)
        known = self.lowered.bodies.get(plain)
        values = flat(inputs)
        plain_call = len(values) == len(without_sizes(inputs))
        if not plain_call or (known and len(known.inputs) != len(values)):
            return self._run(module, path, owner, cx, inputs)
        places = self._places(plain, len(values))
        values = [values[i] for i in places]
        if known is not None:
            pairs = list(zip(values, known.inputs, strict=True))
            if any(value.ndim != formal.ndim for value, formal in pairs):
                return self._run(module, path, owner, cx, inputs)
            values = [cx.arrange(value, formal.order) for value, formal in pairs]
        calls, draws = len(self.lowered.records), len(self.lowered.draws)
        transposes = self.lowered.transposes
        body = self._body(module, path, values, places, inputs)
        if known is not None and known.text != body.text:
            del self.lowered.records[calls:], self.lowered.draws[draws:]
            self.lowered.transposes = transposes
            return self._run(module, path, owner, cx, inputs)
        self._keep(body)
        outputs = tuple(
            Value(v.shape, v.dtype, v.order, variable_name(plain, cx.name), v.origin, v.lineage)
            for v in body.outputs
        )
        given = [*values, *(size for size, _ in body.sizes.given)]
        code, drawing = call_of(self.names, owner, plain, given), len(self.lowered.draws) > draws
        cx.statements.append(Statement(outputs, code, plain, draws=drawing))
        results = self.captured.result_places(path, len(outputs))
        record_call(self.lowered, self.names, plain, values, outputs, results)
        if not isinstance(body.result, ast.Tuple):
            return with_sizes(graph_of(module), outputs[0])
        order = self.captured.results_order(path, len(outputs))
        in_order = tuple(outputs[order.index(i)] for i in range(len(outputs)))
        return with_sizes(graph_of(module), in_order)

    def _places(self, path: str, count: int) -> list[int]:
        """Return which captured input stands first, second … in ``forward``."""
        known = self.captured.arguments.get(path, ())
        if len(known) != count:
            return list(range(count))
        return sorted(range(count), key=lambda i: known[i].position)

    def _body(
        self,
        module: torch.nn.Module,
        path: str,
        values: Sequence[Value],
        places: Sequence[int],
        inputs: Sequence[Any],
    ) -> Body:
        """Lower the body of a class.

        Args:
            module: the captured module.
            path: its captured path.
            values: what it is called with, in the order of ``forward``.
            places: of each of them, where it stands among the captured inputs that are tensors.
            inputs: the captured inputs, sizes among them.
        """
        plain = self.captured.place(path)
        known = self.captured.arguments.get(plain, ())
        names = [f"x{i}" if len(values) > 1 else "x" for i in range(len(values))]
        if len(known) == len(values):
            names = [known[i].name for i in places]
        formal = [
            Value(v.shape, v.dtype, v.order, name, v.origin, v.lineage)
            for v, name in zip(values, names, strict=True)
        ]
        body = Body(plain, formal, sizes=SizeReads(self.lowered.size_names))
        in_order = sorted(zip(places, formal, strict=True), key=operator.itemgetter(0))
        tensors = iter([value for _, value in in_order])
        captured = [item if isinstance(item, Size) else next(tensors) for item in inputs]
        result = self._run(module, path, plain, self._context(body), captured)
        given = flat(result)
        body.outputs = [given[i] for i in self.captured.results_order(path, len(given))]
        sized = not isinstance(result, Value) and len(without_sizes(result)) != len(result)
        single = isinstance(result, Value) or (sized and len(given) == 1)
        returned = [value.to_ast() for value in body.outputs]
        body.result = returned[0] if single else ast.Tuple(returned)
        body.text = write_body(body, self.names, self.lowered.imports)
        return body

    def _keep(self, body: Body) -> None:
        """Keep the body of a class; each call of it counts."""
        self.lowered.bodies.setdefault(body.path, body)
        self.lowered.transposes += sum(line.count(".transpose(") for line in body.text)
