"""Match the calls of a hand-written MLX model with PyTorch's, and infer their axis orders.

The calls are watched while the model runs. Where a fault before a module hides its axis orders, the
module is called alone with PyTorch's inputs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

import mlx.core as mx
import numpy as np

from mlxport.converter.parity.hand_port.infer_order import (
    AxisOrder,
    OrderMatch,
    OrderStatistics,
    infer_order,
    possible_orders,
    torch_order,
)
from mlxport.converter.parity.run.call_alone import CallTemplate
from mlxport.converter.parity.run.layouts import to_mlx_order, to_numpy
from mlxport.converter.parity.run.trace import TracedCall, arrays, mlx_dtype_name
from mlxport.converter.parity.verdict.reference_data import (
    Call,
    NumpyArray,
    Reference,
    ReferenceValue,
)
from mlxport.converter.plan.record import Layout, ModuleRecord
from mlxport.converter.plan.tensor import MLX_DTYPE, Tensor

_logger = logging.getLogger(__name__)

# How many orders of a module's inputs are tried, where only its results can show the right one.
_MOST_TRIED = 12


@dataclass(frozen=True, eq=False)
class MatchedCall:
    """One call of one module, matched with its counterpart in PyTorch.

    Attributes:
        call: PyTorch's.
        template: of MLX's, with the axis orders inferred so far.
        outputs: the order of each output; empty where they cannot be paired.
        inputs: the order of each input; empty where they cannot be mapped.
        problem: why the outputs cannot be judged.
        obstacle: why the module cannot be judged alone.
    """

    call: Call
    template: CallTemplate
    outputs: tuple[OrderMatch, ...] = ()
    inputs: tuple[OrderMatch, ...] = ()
    problem: str = ""
    obstacle: str = ""

    @property
    def record(self) -> ModuleRecord:
        """The module's record as a conversion would have left it, with the orders found."""
        return self.template.record

    @property
    def recognised(self) -> bool:
        """Whether the outputs are close enough to PyTorch's to show their order."""
        return bool(self.outputs) and all(one.recognised for one in self.outputs)

    @property
    def complete(self) -> bool:
        """Whether calling the module alone could show nothing more."""
        known = self.recognised and all(one.recognised for one in self.inputs)
        return known or bool(self.problem) or bool(self.obstacle)


class CallMatcher:
    """Matches the calls of one run of an MLX model with those in a reference."""

    def __init__(
        self, modules: Mapping[int, Sequence[str]], targets: Mapping[int, str], reference: Reference
    ) -> None:
        """Expect the calls of some modules.

        Args:
            modules: identity of an MLX module -> the torch modules it stands for.
            targets: identity of an MLX module -> its path.
            reference: what PyTorch computed, with the inputs of its modules.
        """
        self.statistics = OrderStatistics()
        self.targets = targets
        self.found: list[MatchedCall] = []
        self.expected = {key: _calls_of(paths, reference) for key, paths in modules.items()}

    def observe(self, traced: TracedCall) -> None:
        """Compare one call with its counterpart, as it comes."""
        calls = self.expected[id(traced.module)]
        if traced.number < len(calls):
            self.found.append(self._matched(calls[traced.number], traced))

    def complete_alone(self) -> None:
        """Infer the orders still unknown by calling modules alone."""
        self.found = [
            found if found.complete else self._matched_alone(found) for found in self.found
        ]

    def variety(self) -> int:
        """Count the different orders of recognised values, by the number of their axes."""
        seen = set()
        for found in self.found:
            record = found.record
            outputs = zip(record.outputs, found.outputs, strict=False)
            inputs = zip(record.inputs, found.inputs, strict=False)
            for layout, one in (*outputs, *inputs):
                if one.recognised:
                    seen.add((len(layout.shape), one.order))
        return len(seen)

    def orders(
        self, shape: tuple[int, ...], array: NumpyArray | tuple[int, ...]
    ) -> list[AxisOrder]:
        """Return the orders in which a shape may be stored in another, the likeliest first."""
        stored = array if isinstance(array, tuple) else array.shape
        return self.statistics.sorted(possible_orders(shape, stored), shape)

    def _matched(self, call: Call, traced: TracedCall) -> MatchedCall:
        given = list(arrays((traced.args, traced.kwargs)))
        values = [to_numpy(array) for array in traced.outputs]
        inputs = self._inputs(call.inputs or (), [to_numpy(array) for array in given])
        results, outputs, problem = self._outputs(call.outputs, values)
        record = ModuleRecord(
            call.path,
            self.targets[id(traced.module)],
            _input_layouts(call, given, inputs),
            _output_layouts(call, results, outputs, values),
            None if results == tuple(range(len(call.outputs))) else results,
        )
        found = MatchedCall(call, CallTemplate.of(traced, record), outputs, inputs, problem)
        agree = bool(outputs) and all(one.agrees for one in outputs)
        if agree and not all(one.recognised for one in inputs):
            # right results from other inputs: the module begins elsewhere than PyTorch's
            found = _without_inputs(found, "its inputs in MLX are other values than in PyTorch")
        return found

    def _inputs(
        self, given: Sequence[Tensor], values: Sequence[NumpyArray]
    ) -> tuple[OrderMatch, ...]:
        """Return the order of each input; none where they do not correspond by number or shape."""
        found = []
        if len(given) != len(values):
            return ()
        for tensor, value in zip(given, values, strict=True):
            shape = tuple(tensor.shape)
            orders = self.orders(shape, value)
            truth = to_numpy(
                to_mlx_order(tensor, Layout(shape, _mlx_dtype(tensor), torch_order(len(shape))))
            )
            match = infer_order(value, truth.reshape(-1), shape, _mlx_dtype(tensor), orders)
            if match is None:
                return ()
            self.statistics.note(match, len(shape))
            found.append(match)
        return tuple(found)

    def _outputs(
        self, given: Sequence[ReferenceValue], values: Sequence[NumpyArray]
    ) -> tuple[tuple[int, ...], tuple[OrderMatch, ...], str]:
        """Return which of PyTorch's tensors each of MLX's is, its order, or why that is unknown."""
        if len(values) > len(given):
            return (), (), f"gives {len(given)} tensors in PyTorch, {len(values)} in MLX"
        left = list(range(len(given)))
        results, found = [], []
        for place, value in enumerate(values):
            options = left if len(values) < len(given) else [place]
            tried = {k: self._output(given[k], value) for k in options}
            fit = {k: s for k, s in tried.items() if s is not None}
            if not fit:
                return (), (), _misfit(given[options[0]].shape, value.shape)
            best = min(fit, key=lambda k: (not fit[k].recognised, fit[k].error, k))
            if len(values) < len(given) and not fit[best].recognised:
                best = min(fit)  # a fault hides which it is: the first it can be
            self.statistics.note(fit[best], len(given[best].shape))
            results.append(best)
            found.append(fit[best])
            left.remove(best) if best in left else None
        return tuple(results), tuple(found), ""

    def _output(self, value: ReferenceValue, array: NumpyArray) -> OrderMatch | None:
        orders = self.orders(value.shape, array)
        if not orders and value.reference.size and array.size != int(np.prod(value.shape)):
            # of another size: parity says so, in whatever order
            return OrderMatch(torch_order(len(value.shape)), float("inf"))
        return infer_order(
            array, value.reference, value.shape, value.dtype, orders, indices=value.indices
        )

    def _matched_alone(self, found: MatchedCall) -> MatchedCall:
        """Call a module with PyTorch's inputs in the orders that fit; keep what matches best."""
        record, given = found.record, found.call.inputs
        if not given or not record.inputs or found.template.obstacle(given):
            return found
        shapes = found.template.shapes()
        trios = zip(found.inputs, given, shapes, strict=True)
        choices = [
            self._input_orders(one, tuple(tensor.shape), shape) for one, tensor, shape in trios
        ]
        best, least = found, float("inf")
        for orders in islice(product(*choices), _MOST_TRIED):
            tried = self._alone(found, orders)
            error = max((one.error for one in tried.outputs), default=float("inf"))
            if tried.recognised and error < least:
                best, least = tried, error
        return best

    def _input_orders(
        self, one: OrderMatch, shape: tuple[int, ...], stored: tuple[int, ...]
    ) -> list[AxisOrder]:
        """Return the orders in which a module may expect an input, the likeliest first.

        An earlier fault may have permuted what it received: the commonest order is tried too.
        """
        orders = self.orders(shape, stored)
        return list(dict.fromkeys([one.order, orders[0]])) if one.recognised else orders

    def _alone(self, found: MatchedCall, orders: Sequence[AxisOrder]) -> MatchedCall:
        record, call = found.record, found.call
        inputs = tuple(
            replace(layout, order=o) for layout, o in zip(record.inputs, orders, strict=True)
        )
        template = replace(found.template, record=replace(record, inputs=inputs))
        try:
            values = [to_numpy(array) for array in template.outputs(call.inputs or ())]
        except Exception:  # the module's code, whatever it raises
            _logger.debug("%s fails in the orders %s", record.path, orders, exc_info=True)
            return replace(found, outputs=())
        chosen = call.alone if record.results is None else [call.alone[k] for k in record.results]
        if len(values) != len(chosen):
            return replace(found, outputs=())
        match = [self._output(v, array) for v, array in zip(chosen, values, strict=True)]
        outputs = tuple(one for one in match if one is not None)
        return _ordered(replace(found, template=template, outputs=outputs))


def _input_layouts(
    call: Call, given: Sequence[mx.array], inputs: Sequence[OrderMatch]
) -> tuple[Layout, ...]:
    """Describe the inputs; none where they could not be mapped."""
    trios = zip(call.inputs or (), given, inputs, strict=True) if inputs else ()
    return tuple(Layout(tuple(t.shape), mlx_dtype_name(a), one.order) for t, a, one in trios)


def _output_layouts(
    call: Call, results: Sequence[int], outputs: Sequence[OrderMatch], values: Sequence[NumpyArray]
) -> tuple[Layout, ...]:
    """Describe the outputs; with no ``results`` parity leaves them unjudged."""
    if not outputs:
        return tuple(Layout(a.shape, str(a.dtype), torch_order(a.ndim)) for a in values)
    chosen = [call.outputs[k] for k in results]
    pairs = zip(chosen, outputs, strict=True)
    return tuple(Layout(v.shape, v.dtype, one.order) for v, one in pairs)


def _without_inputs(found: MatchedCall, obstacle: str) -> MatchedCall:
    """Keep a module from being judged alone, and say why."""
    template = replace(found.template, record=replace(found.record, inputs=()))
    return replace(found, template=template, inputs=(), obstacle=obstacle)


def _ordered(found: MatchedCall) -> MatchedCall:
    """Write the orders of the outputs into the record."""
    record = found.record
    if len(found.outputs) != len(record.outputs):
        return found
    outputs = tuple(
        replace(layout, order=one.order)
        for layout, one in zip(record.outputs, found.outputs, strict=True)
    )
    return replace(found, template=replace(found.template, record=replace(record, outputs=outputs)))


def _calls_of(paths: Sequence[str], reference: Reference) -> list[Call]:
    canonical = {reference.aliases.get(path, path) for path in paths}
    return [call for call in reference.calls if call.path in canonical]


def _misfit(shape: tuple[int, ...], stored: tuple[int, ...]) -> str:
    return f"gives {shape} in PyTorch, {stored} in MLX: no order of axes makes one of the other"


def _mlx_dtype(tensor: Tensor) -> str:
    return MLX_DTYPE.get(tensor.dtype, "float32")
