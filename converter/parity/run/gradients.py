"""Judge the gradients of an MLX model's inputs and parameters by those of PyTorch.

Gradients of parameters are compared in the layout of the MLX parameter: PyTorch's are converted by
the steps of the weight plan, as the parameter itself is. Needs mlx and numpy, never torch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.run.caches import caches_as_arrays
from mlxport.converter.parity.run.interface import mlx_arguments
from mlxport.converter.parity.run.judge_arrays import judge_array
from mlxport.converter.parity.run.layouts import to_mlx_order
from mlxport.converter.parity.run.replay_draws import replayed
from mlxport.converter.parity.run.trace import arrays, mapped
from mlxport.converter.parity.verdict.compare import Verdict
from mlxport.converter.parity.verdict.entry import BACKWARD, ParityEntry
from mlxport.converter.parity.verdict.judgement import DEFAULT_JUDGEMENT, Judgement
from mlxport.converter.parity.verdict.reference_data import (
    Gradients,
    NumpyArray,
    Reference,
    ReferenceValue,
)
from mlxport.converter.plan.record import Conversion, Layout
from mlxport.converter.plan.steps import rearranges
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.plan.weight_plan import Entry as Planned
from mlxport.converter.plan.weight_plan import WeightPlan

_logger = logging.getLogger(__name__)


def judge_gradients(
    model: nn.Module,
    conversion: Conversion,
    reference: Reference,
    gradients: Gradients,
    *,
    plan: WeightPlan | None = None,
    given: tuple[Sequence[Any], Mapping[str, Any]] | None = None,
    judgement: Judgement = DEFAULT_JUDGEMENT,
) -> tuple[ParityEntry, ...]:
    """Judge the gradients of a model's floating inputs and of its parameters.

    Args:
        model: the MLX model, in eval mode; its parameters are left as they are.
        conversion: says in which axis order inputs and outputs are stored.
        reference: what PyTorch computed; gives the inputs and the random draws.
        gradients: PyTorch's.
        plan: of the weights, by the names of the torch model; the conversion's if not given.
        given: what to call the model with instead of the reference's inputs.
        judgement: what passes.

    Returns:
        An entry for each, the inputs first, then the parameters in the order of their modules'
        calls. What cannot be judged says why; where MLX cannot differentiate, all fail.
    """
    check = _GradientCheck(model, conversion, reference, gradients, judgement, given)
    return check.entries(conversion.plan if plan is None else plan)


class _GradientCheck:
    """The comparison of one model's gradients."""

    def __init__(
        self,
        model: nn.Module,
        conversion: Conversion,
        reference: Reference,
        gradients: Gradients,
        judgement: Judgement,
        given: tuple[Sequence[Any], Mapping[str, Any]] | None = None,
    ) -> None:
        self.model, self.conversion, self.reference = model, conversion, reference
        self.given = given
        self.gradients, self.judgement = gradients, judgement
        self.root = next(record for record in conversion.modules if record.path == "")

    def entries(self, plan: WeightPlan) -> tuple[ParityEntry, ...]:
        """Return the entries, numbered within each module."""
        if reason := self.gradients.obstacle:
            return (ParityEntry("", name="gradients", skipped={BACKWARD: reason}),)
        inputs, parameters = self._of_inputs(), self._of_parameters(plan)
        judged_inputs = [
            k for k, (_, value, _) in enumerate(inputs) if isinstance(value, ReferenceValue)
        ]
        judged = [p for p, value in parameters if isinstance(value, ReferenceValue)]
        targets = [planned.targets[0] for planned in judged]
        try:
            of_targets, of_inputs = self._differentiate(targets, judged_inputs)
        except Exception as error:  # the model's code and MLX, whatever they raise
            _logger.debug("MLX fails to differentiate", exc_info=True)
            first = str(error).splitlines()[0] if str(error) else ""
            problem = f"MLX fails to differentiate: {type(error).__name__}: {first}"
            of_targets, of_inputs, failure = {}, {}, problem
        else:
            failure = ""
        entries = []
        for k, (name, value, layout) in enumerate(inputs):
            blank = ParityEntry("", name=f"gradient of {name}", layer=type(self.model).__name__)
            entries.append(self._entry(blank, value, of_inputs.get(k), layout, failure))
        for planned, value in parameters:
            path, _, _ = planned.sources[0].rpartition(".")
            blank = ParityEntry(path, name=f"gradient of {', '.join(planned.sources)}")
            found = of_targets.get(planned.targets[0])
            entries.append(self._entry(blank, value, found, None, failure))
        return tuple(_numbered(entries))

    def _entry(
        self,
        blank: ParityEntry,
        value: ReferenceValue | str,
        found: mx.array | None,
        layout: Layout | None,
        failure: str,
    ) -> ParityEntry:
        if isinstance(value, str):
            return replace(blank, skipped={BACKWARD: value})
        if found is None:
            verdict = Verdict((failure,), value.shape, value.dtype)
        else:
            straight = Layout(value.shape, value.dtype, tuple(range(found.ndim)))
            verdict = judge_array(found, layout or straight, value, self.judgement)
        return replace(blank, verdicts={BACKWARD: verdict})

    def _of_inputs(self) -> list[tuple[str, ReferenceValue | str, Layout]]:
        """Return name, expected gradient or why there is none, and layout of each input."""
        names, given = self.conversion.inputs, self.gradients.inputs
        signature, recorded = self.conversion.signature, self.reference.signature
        if signature is not None and recorded is not None and given:
            names = tuple(signature.tensors())
            by_name = dict(zip(recorded.tensors(), given, strict=True))
            given = tuple(by_name[name] for name in names)
        return [
            (name, "it is no floating number" if value is None else value, layout)
            for name, value, layout in zip(names, given, self.root.inputs, strict=False)
        ]

    def _of_parameters(self, plan: WeightPlan) -> list[tuple[Planned, ReferenceValue | str]]:
        """Return the plan of each parameter, with its expected gradient or why there is none."""
        counts: dict[str, int] = {}
        for planned in plan.entries:
            for key in planned.sources:
                key = plan.ties.get(key, key)
                counts[key] = counts.get(key, 0) + 1
        known = self.gradients.parameters
        found = [
            (planned, _expected(planned, known, [counts[plan.ties.get(k, k)] for k in keys]))
            for planned in plan.entries
            if (keys := planned.sources) and any(key in known for key in keys)
        ]
        order = {record.path: k for k, record in reversed([*enumerate(self.conversion.modules)])}
        last = len(order)
        return sorted(found, key=lambda one: order.get(one[0].sources[0].rpartition(".")[0], last))

    def _differentiate(
        self, targets: Sequence[str], inputs: Sequence[int]
    ) -> tuple[dict[str, mx.array], dict[int, mx.array]]:
        """Return MLX's gradients of parameters by name, and of inputs by number."""
        given = self.given or mlx_arguments(self.root, self.conversion, self.reference)
        flat = list(arrays(given))
        current = dict(tree_flatten(self.model.parameters()))
        wanted = {
            "parameters": {name: current[name] for name in targets},
            "inputs": [flat[k] for k in inputs],
        }
        factors = self._factors()

        def loss(of: Any) -> mx.array:
            self.model.update(tree_unflatten(list(of["parameters"].items())))
            feed = {**dict(enumerate(flat)), **dict(zip(inputs, of["inputs"], strict=True))}
            numbers = iter(range(len(flat)))
            positional, named = mapped(
                lambda leaf: feed[next(numbers)] if isinstance(leaf, mx.array) else leaf, given
            )
            return _weighted(list(arrays(self.model(*positional, **named))), factors)

        try:
            with (
                caches_as_arrays(self.model, self.conversion),
                replayed(self.reference.draws, self.conversion.draws),
            ):
                found = mx.grad(loss)(wanted)
                mx.eval(found)
        finally:
            self.model.update(tree_unflatten(list(current.items())))
        return found["parameters"], dict(zip(inputs, found["inputs"], strict=True))

    def _factors(self) -> list[mx.array | None]:
        pairs = zip(self.gradients.factors, self.root.outputs, strict=True)
        return [
            None if factor is None else to_mlx_order(factor, layout) for factor, layout in pairs
        ]


def _weighted(outputs: Sequence[mx.array], factors: Sequence[mx.array | None]) -> mx.array:
    if len(outputs) != len(factors):
        raise ParityError(f"PyTorch gives {len(factors)} tensors, MLX {len(outputs)}")
    total = mx.array(0.0)
    for output, factor in zip(outputs, factors, strict=True):
        if factor is None:
            continue
        if output.shape != factor.shape:
            raise ParityError(f"an output has shape {output.shape}, PyTorch's {factor.shape}")
        total = total + (output * factor).sum()
    return total


def _expected(
    planned: Planned, known: Mapping[str, ReferenceValue], counts: Sequence[int]
) -> ReferenceValue | str:
    """Return PyTorch's gradient in the layout of the MLX parameter, or why there is none."""
    others = [step.kind for step in planned.steps if not rearranges(step)]
    if others or len(planned.sources) != 1 or len(planned.targets) != 1:
        kinds = ", ".join(dict.fromkeys(others)) or "joined"
        return f"the MLX parameter is made from PyTorch's and is another number ({kinds})"
    if max(counts) > 1:
        return "PyTorch has one parameter where MLX has several"
    value = known[planned.sources[0]]
    reference, native = (_moved(planned, array, value) for array in (value.reference, value.native))
    shape = tuple(reference.shape)
    return replace(value, shape=shape, reference=reference.reshape(-1), native=native.reshape(-1))


def _moved(planned: Planned, flat: NumpyArray, value: ReferenceValue) -> NumpyArray:
    values = np.asarray(flat, dtype=np.float64).reshape(value.shape)
    (moved,) = planned.apply((Tensor(values, "F64"),))
    return moved.bits


def _numbered(entries: Sequence[ParityEntry]) -> Iterator[ParityEntry]:
    """Yield entries with their numbers among those of one module."""
    seen: dict[str, int] = {}
    for entry in entries:
        number = seen.get(entry.path, 0)
        seen[entry.path] = number + 1
        yield replace(entry, output=number)
