"""Carry the state of an MLX model from call to call while it is verified in several modes.

Each mode has a state of its own: that of the calls in place, of the whole graph, of the compiled
one. What the model's state was before is put back at the end.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.run.judge_arrays import judge_array
from mlxport.converter.parity.run.trace import attribute_at
from mlxport.converter.parity.verdict.compare import Verdict
from mlxport.converter.parity.verdict.entry import STATE, ParityEntry
from mlxport.converter.parity.verdict.judgement import Judgement
from mlxport.converter.parity.verdict.reference_data import Reference
from mlxport.converter.plan.record import StateRecord


class StateRuns:
    """The state of one model, in the modes it is verified in.

    Args:
        model: the MLX model.
        records: what of it is state.
    """

    def __init__(self, model: nn.Module, records: Sequence[StateRecord]) -> None:
        self.model, self.records = model, records
        self._beginning: Sequence[mx.array] = ()
        self._before: dict[str, Sequence[mx.array]] = {}
        self._after: dict[str, Sequence[mx.array]] = {}

    @contextmanager
    def from_the_beginning(self) -> Iterator[None]:
        """Let the model begin anew, and give it back its state at the end."""
        now = self._read()
        try:
            if self.records:
                _reset(self.model)
            self._beginning = self._read()
            yield
        finally:
            self._set(now)

    def begin(self, call: int) -> None:
        """Note that a call of a sequence is next: the first begins anew, others go on."""
        self._before = {} if call == 1 else dict(self._after)
        self._after = {}

    @contextmanager
    def running(self, mode: str) -> Iterator[None]:
        """Let the model run in a mode on what the call before left; keep what this one leaves."""
        self._set(self._before.get(mode, self._beginning))
        try:
            yield
            self._after[mode] = self._read()
        finally:
            self._set(self._beginning)

    def judged(self, reference: Reference, judgement: Judgement) -> Iterator[ParityEntry]:
        """Yield the verdicts on the state after a call, in each mode.

        Args:
            reference: what PyTorch computed.
            judgement: what passes.

        Raises:
            ParityError: the reference was recorded of a model with other state.
        """
        if {record.path for record in self.records} != reference.state.keys():
            raise ParityError(
                "the reference was recorded of a model that keeps "
                f"{', '.join(reference.state) or 'nothing'} from call to call, the converted one "
                f"keeps {', '.join(record.path for record in self.records) or 'nothing'}. Record "
                "the reference of the model that was converted."
            )
        for number, record in enumerate(self.records):
            value = reference.state[record.path]
            verdicts: dict[str, Verdict] = {
                mode: judge_array(arrays[number], record.layout, value, judgement)
                for mode, arrays in self._after.items()
            }
            yield ParityEntry(record.path, 0, 0, STATE, verdicts, name=f"state {record.path}")

    def is_in(self, path: str) -> bool:
        """Whether a module, by its qualified name in PyTorch, has state of its own or below."""
        return any(record.path.startswith(f"{path}.") for record in self.records)

    def _read(self) -> list[mx.array]:
        arrays = []
        for record in self.records:
            found = attribute_at(self.model, record.target)
            if not isinstance(found, mx.array):
                raise ParityError(
                    f"{type(self.model).__name__} has no array at {record.target}, which is state "
                    "by conversion.json. Is this the model that was made together with it?"
                )
            arrays.append(found)
        mx.eval(arrays)
        return arrays

    def _set(self, arrays: Sequence[mx.array]) -> None:
        for record, array in zip(self.records, arrays, strict=True):
            parent, _, name = record.target.rpartition(".")
            _set_item(attribute_at(self.model, parent), name, array)


def _reset(model: nn.Module) -> None:
    methods: Mapping[str, Any] = {n: getattr(model, n, None) for n in ("reset", "reset_state")}
    reset = next((method for method in methods.values() if inspect.ismethod(method)), None)
    if reset is None:
        raise ParityError(
            f"{type(model).__name__} keeps state from call to call and has no method reset(). Is "
            "this the model that was made together with conversion.json?"
        )
    reset()


def _set_item(parent: Any, name: str, array: mx.array) -> None:
    if isinstance(parent, nn.Module):
        setattr(parent, name, array)
    elif isinstance(parent, dict):
        parent[name] = array
    else:
        parent[int(name)] = array
