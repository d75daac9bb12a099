"""Record the references of a converted model: what PyTorch computes, in every run to judge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from mlxport.converter.graph.capture.other_inputs import OtherInputs
from mlxport.converter.graph.capture.size_guards import satisfied
from mlxport.converter.parity.reference.record_reference import record_reference
from mlxport.converter.parity.reference.recorded_values import tensors
from mlxport.converter.parity.reference.trials import (
    Trial,
    Trials,
    batched,
    narrowed,
    recorded_trials,
)
from mlxport.converter.parity.verdict.reference_data import Reference
from mlxport.converter.plan.record import Conversion, ModuleRecord
from mlxport.converter.torch_model.calls import CallArguments, in_order
from mlxport.converter.torch_model.control_flow import control_flow_written_out

# judged wherever the batch is left open, unless others are asked for
BATCH_SIZES = (1, 2)
# judged of a model that keeps state, unless another number is asked for
CALLS = 4


def _shape_at(shape: Sequence[int | str], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return a recorded shape in numbers; a size is a number, or an expression in the names."""
    most = sum(sizes.values()) + 1
    return tuple(
        size
        if isinstance(size, int)
        else next(n for n in range(most) if satisfied([f"{size} == {n}"], sizes))
        for size in shape
    )


@dataclass(frozen=True, eq=False)
class Origin:
    """A torch model and the example it was converted on, or is verified on.

    Attributes:
        model: the torch model.
        args: its positional arguments.
        kwargs: its keyword arguments.
        conversion: the record of the conversion.
        trials: what is to be judged besides the example.
        sizes: name of each dynamic size -> what it is in the example.
        other: the call at other sizes, where sizes are dynamic.
        notes: filled in while references are recorded: what could not be tried, and why.
    """

    model: torch.nn.Module
    args: Sequence[Any]
    kwargs: Mapping[str, Any] | None
    conversion: Conversion
    trials: Trials = field(default_factory=Trials)
    sizes: Mapping[str, int] = field(default_factory=dict)
    other: OtherInputs | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        """The torch modules that have a counterpart."""
        return [record.path for record in self.conversion.modules if record.path]

    @property
    def state(self) -> list[str]:
        """The tensors that a call leaves for later ones."""
        return [record.path for record in self.conversion.state]

    def references(self) -> Iterator[Reference]:
        """Yield what PyTorch computes for the example, at other sizes, and in every trial.

        Layer inputs are kept of the first two kinds of runs, so that layers are judged alone.

        Raises:
            ParityError: the model cannot be run again.
        """
        with control_flow_written_out() as flow:
            flow.chosen.clear()  # by inputs that are not judged
            yield from self._references()
            self.notes.extend(flow.one_sided())

    def _references(self) -> Iterator[Reference]:
        yield replace(self._recorded(self.args, self.kwargs), sizes=self.sizes)
        given = in_order(self.model, self.args, self.kwargs)
        for reference in self._tried(self._of_sequence(given)):
            yield replace(reference, sizes=self.sizes)
        if self.other is not None:
            other = self._recorded(self.other.args, self.other.kwargs)
            yield replace(other, sizes=self.other.sizes)
        trials = [*self.trials.of_kinds(given), *self._of_batch_sizes(given)]
        batch, _ = self._moves(given)
        for trial in trials:
            sizes = dict(self.sizes)
            if batch in sizes and trial.batch_size is not None:
                sizes[batch] = trial.batch_size
            for reference in self._tried([trial]):
                yield replace(reference, sizes=sizes)
        for case, sizes in self._of_cache(self._sizes_of(given)):
            if not satisfied(self.conversion.conditions, sizes):
                taken = ", ".join(self.conversion.conditions)
                self.notes.append(f"{case} not judged: the model takes {taken}")
                continue
            shapes = [_shape_at(layout.shape, sizes) for layout in self._root.inputs]
            for reference in self._tried([Trial(case, narrowed(given, shapes))]):
                yield replace(reference, sizes=sizes)

    @property
    def _root(self) -> ModuleRecord:
        return next(record for record in self.conversion.modules if record.path == "")

    def _sizes_of(self, given: CallArguments) -> dict[str, int]:
        """Return what each dynamic size is in the example, read off its shapes if not known."""
        if self.sizes:
            return dict(self.sizes)
        return {
            str(name): size
            for layout, tensor in zip(self._root.inputs, tensors(given), strict=False)
            for name, size in zip(layout.shape, tensor.shape, strict=False)
            if name in self.conversion.dynamic
        }

    def _of_cache(self, sizes: Mapping[str, int]) -> Iterator[tuple[str, dict[str, int]]]:
        """Yield the calls that a model with a cache serves and no example may be, with their sizes.

        torch.export takes sizes of zero and one for fixed: neither the first call of a text, whose
        cache is empty, nor that of a single token is like the calls it captures.

        Args:
            sizes: of the example.
        """
        cache, signature = self.conversion.cache, self.conversion.signature
        if cache is None or signature is None or not sizes.keys() >= self.conversion.dynamic.keys():
            return
        shapes = dict(zip(signature.tensors(), self._root.inputs, strict=True))
        names = {*signature.arguments[cache.argument].tensors(cache.argument)}
        length = next(str(layout.shape[2]) for name, layout in shapes.items() if name in names)
        batch = next(layout.shape[0] for name, layout in shapes.items() if name in names)
        others = (size for name, one in shapes.items() if name not in names for size in one.shape)
        text = {str(size) for size in others} & {*self.conversion.dynamic} - {str(batch), length}
        yield "empty cache", {**sizes, length: 0}
        if text:
            yield "one token", {**sizes, **dict.fromkeys(sorted(text), 1)}

    def _tried(self, trials: Iterable[Trial]) -> Iterator[Reference]:
        return recorded_trials(self.model, trials, self.paths, self.notes, self.state)

    def _of_sequence(self, given: CallArguments) -> Iterator[Trial]:
        """Yield the calls behind the first; of a model that keeps nothing, where they are asked."""
        asked = self.trials.calls
        if self.state and self.conversion.draws and asked != 1:
            self.notes.append("calls behind the first not judged: the model draws random numbers")
            return
        yield from self.trials.of_sequence(given, asked or (CALLS if self.state else 1))

    def _recorded(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> Reference:
        modules = self.conversion.modules
        taken: dict[str, set[int]] = {}
        for record in modules:
            taken.setdefault(record.path, set()).add(len(record.inputs))
        return record_reference(
            self.model,
            args,
            kwargs,
            paths=self.paths,
            since={r.path: r.since for r in modules if r.since},
            taken=taken,
            keep_inputs=True,
            state=self.state,
        )

    def _of_batch_sizes(self, given: CallArguments) -> Iterator[Trial]:
        """Yield a call for each batch size that is not judged anyhow, and note what cannot be."""
        name, moves = self._moves(given)
        wanted = self.trials.batch_sizes
        wanted = (BATCH_SIZES if name else ()) if wanted is None else wanted
        sizes = [len(x) for x, moving in zip(tensors(given), moves, strict=False) if moving]
        known = {*sizes, self.other.sizes.get(name, 0) if self.other else 0}
        for size in wanted:
            reason = self._reason_against(name, size)
            if reason:
                self.notes.append(f"batch size {size} not judged: {reason}")
            elif size not in known:
                yield Trial(f"batch size {size}", batched(given, size, moves), size)

    def _moves(self, given: CallArguments) -> tuple[str, list[bool]]:
        """Return the name of the batch size, and of each input whether its first axis is that."""
        root = next(record for record in self.conversion.modules if record.path == "")
        layouts, inputs = root.inputs, tensors(given)
        if [len(layout.shape) for layout in layouts] != [x.ndim for x in inputs]:
            return "", []
        firsts = [layout.shape[0] if layout.shape else None for layout in layouts]
        name = next((one for one in firsts if one in self.conversion.dynamic), "")
        return str(name), [one == name for one in firsts]

    def _reason_against(self, name: str, size: int) -> str:
        if not name:
            return "the batch is fixed as it was captured; dynamic=(0,) leaves it open"
        least, most = self.conversion.dynamic[name]
        least = 1 if least == 2 else least  # which torch.export assumes of every open size
        sizes = {**self.sizes, name: size}
        complete = sizes.keys() >= self.conversion.dynamic.keys()
        if size < least or (most is not None and size > most):
            return f"the model takes {least} to {'any' if most is None else most}"
        if complete and not satisfied(self.conversion.conditions, sizes):
            return f"the model takes {', '.join(self.conversion.conditions)}"
        return ""
