"""From a torch model to MLX source, weight plan and record: the graph room in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import torch
from torch.export import ExportedProgram

from mlxport.converter.graph import ops
from mlxport.converter.graph.capture.capture import Captured, capture
from mlxport.converter.graph.capture.dynamic import DynamicSizes, named_ranges, user_inputs
from mlxport.converter.graph.capture.guard_lines import GuardLines
from mlxport.converter.graph.capture.other_inputs import (
    OtherInputs,
    example_sizes,
    other_inputs,
    specialised_on_one,
)
from mlxport.converter.graph.capture.size_guards import Guards, conditions, satisfied
from mlxport.converter.graph.capture.table_guards import table_conditions
from mlxport.converter.graph.debug_folder import DebugFolder
from mlxport.converter.graph.ir.body import Lowered
from mlxport.converter.graph.ir.inputs import input_values
from mlxport.converter.graph.ir.naming import ModelNames
from mlxport.converter.graph.ir.nodes import flat
from mlxport.converter.graph.ir.sizes import name_symbols, size_text
from mlxport.converter.graph.lowering.lower import lower
from mlxport.converter.graph.lowering.weight_plan import (
    cache_record,
    constants,
    derived_tensors,
    state_records,
    weight_plan,
)
from mlxport.converter.graph.source.model_py import ModelPy, write_model
from mlxport.converter.plan.record import Conversion, Stem
from mlxport.converter.plan.structure import Signature
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.timings import stage
from mlxport.converter.torch_model.calls import CallArguments, in_order
from mlxport.converter.torch_model.model_state import eval_mode


@dataclass(frozen=True)
class Translation:
    """A model translated, before any weight has moved.

    Attributes:
        model_py: the emitted source, in its parts.
        conversion: the record; its plan's sources are keys of the model's state dict.
        constants: target name -> values that no state dict holds, as stored.
        user_files: name -> text of files of the user's own that go into ``layers/``.
        other: the example call at other sizes, where sizes are dynamic.
        sizes: name of each dynamic size -> what it is in the example.
        notes: what there is to say of it, one sentence each.
    """

    model_py: ModelPy
    conversion: Conversion
    constants: Mapping[str, Tensor]
    user_files: Mapping[str, str] = field(default_factory=dict)
    other: OtherInputs | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def source(self) -> str:
        """The text of ``model.py``."""
        return self.model_py.text()


def translate(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    channels_last: bool = False,
    dynamic: DynamicSizes | None = None,
    stem: Stem = "weights",
    debug: DebugFolder | None = None,
) -> Translation:
    """Translate a torch model, captured on example inputs.

    Args:
        model: the torch module; its modes are left as they are.
        args: positional inputs.
        kwargs: keyword inputs.
        channels_last: the MLX model takes and gives channels-last arrays, without transposes.
        dynamic: which sizes of the inputs are dynamic; none if not given.
        stem: what the files of the weights are called before their ending.
        debug: is told what each stage gives.

    Raises:
        CaptureError: torch.export cannot capture the model, or not at more than one size.
        UnsupportedError: modules or ops without MLX counterpart, all of them listed.
    """
    debug = debug or DebugFolder(None)
    with eval_mode(model):  # rules look at the mode too
        sizes = _Sizes(model, in_order(model, args, kwargs))
        captured = capture(
            model,
            args,
            kwargs,
            handled=ops.registry.OPS,
            dynamic=dynamic,
            check_sizes=sizes.search,
        )
        debug.captured(captured)
        lowered = lower(captured, channels_last_ends=channels_last, watch=debug.passed)
    names = ModelNames(model)
    lowered.conditions = sizes.conditions_with(captured.exported, lowered)
    model_py = write_model(lowered, names, stem)
    debug.emitted(model_py.text())
    conversion = Conversion(
        stem=stem,
        plan=replace(weight_plan(lowered, names), derived=derived_tensors(captured)),
        modules=tuple(lowered.records),
        inputs=tuple(formal.name for formal in lowered.bodies[""].parameters),
        signature=lowered.signature,
        layers=lowered.layer_files(),
        transposes=lowered.transposes,
        draws=tuple(lowered.scope.draws),
        state=tuple(state_records(lowered, names)),
        cache=cache_record(lowered.cached),
        versions={name: version(name) for name in ("mlxport", "torch", "mlx")},
        dynamic=named_ranges(captured.exported, lowered.size_names),
        conditions=tuple(lowered.conditions),
    )
    user_files = {name: file.text for name, file in lowered.scope.user_files.items()}
    translation = Translation(model_py, conversion, constants(lowered, names), user_files)
    with stage("sizes"):
        other = sizes.other_inputs(lowered.conditions)
    return replace(translation, other=other, sizes=sizes.example, notes=_notes(lowered))


def _notes(lowered: Lowered) -> tuple[str, ...]:
    """Say what the MLX model computes in another dtype than the torch model."""
    if not lowered.narrowed:
        return ()
    lines = ", ".join(filter(None, lowered.narrowed)) or "an unknown line"
    return (
        f"float64 values are computed in float32, as no GPU of MLX's has float64 ({lines}); parity "
        "judges what that costs on the inputs it is given",
    )


def size_conditions(
    captured: Captured,
    lowered: Lowered,
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> list[str]:
    """Return what must be true of the dynamic sizes, in their names."""
    sizes = _Sizes(model, (args, kwargs))
    sizes.read(captured.exported, lowered.size_names, captured.guard_lines)
    return sizes.conditions_with(captured.exported, lowered)


@dataclass
class _Sizes:
    """The dynamic sizes of a model.

    Attributes:
        model: the torch module.
        call: its example inputs.
        program: what torch.export captured; None where no size is dynamic.
        lines: of the model, at which torch.export decided by sizes.
        names: torch's symbol -> what to call it.
        guarded: what must be true of the sizes by torch.export's guards.
        specialised_on_one: the sizes at one of which the model does not do as captured.
        other: a call at other sizes, which meet the conditions.
    """

    model: torch.nn.Module
    call: CallArguments
    program: ExportedProgram | None = None
    lines: GuardLines | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    guarded: Sequence[str] = ()
    specialised_on_one: Sequence[str] = ()
    other: OtherInputs | None = None

    @stage("sizes")
    def search(self, program: ExportedProgram, signature: Signature, lines: GuardLines) -> None:
        """Look for sizes that the model takes besides those of the example.

        Args:
            program: what torch.export captured, not decomposed.
            signature: what the model takes and gives.
            lines: of the model, at which torch.export decided by sizes.

        Raises:
            CaptureError: torch accepts none of the sizes tried.
        """
        names = name_symbols(flat(input_values(signature, user_inputs(program))[1]))
        if not names:
            return
        self.read(program, names, lines)
        self.other = self._searched(self.conditions(program))

    def read(self, program: ExportedProgram, names: Mapping[str, str], lines: GuardLines) -> None:
        """Read what a captured program asks of the sizes.

        Args:
            program: what torch.export captured, not decomposed.
            names: torch's symbol -> what to call it.
            lines: of the model, at which torch.export decided by sizes.
        """
        self.program, self.lines, self.names = program, lines, names
        guards = Guards(program, self.model, *self.call, names)
        self.guarded = conditions(guards, example_sizes(program, *self.call), program)
        special = specialised_on_one(program, self.model, *self.call, lines)
        self.specialised_on_one = [names[symbol] for symbol in special]

    def conditions(self, program: ExportedProgram) -> list[str]:
        """Return what must be true of the sizes.

        Args:
            program: what torch.export captured, not decomposed, with or without in-place writes.
        """
        if not self.names:
            return []
        found = [*self.guarded, *table_conditions(program, self.names)]
        one = {name: {**self.example, name: 1} for name in self.specialised_on_one}
        above_one = [f"{name} > 1" for name, sizes in one.items() if satisfied(found, sizes)]
        return list(dict.fromkeys([*found, *above_one]))

    def conditions_with(self, program: ExportedProgram, lowered: Lowered) -> list[str]:
        """Return what must be true of the sizes, by the program and by the ops it is lowered to."""
        above_one = (f"{size_text(s, self.names)} > 1" for s in lowered.scope.above_one)
        return list(dict.fromkeys([*self.conditions(program), *above_one]))

    @property
    def example(self) -> dict[str, int]:
        """What each size is in the example, by name."""
        known = example_sizes(self.program, *self.call) if self.program is not None else {}
        return {self.names[symbol]: size for symbol, size in known.items()}

    def other_inputs(self, conditions: Sequence[str]) -> OtherInputs | None:
        """Return a call at other sizes that meet all conditions there turned out to be."""
        if self.other is None or satisfied(conditions, self.other.sizes):
            return self.other
        return self._searched(conditions)

    def _searched(self, conditions: Sequence[str]) -> OtherInputs:
        assert self.program is not None
        return other_inputs(self.program, *self.call, self.names, conditions, self.lines)
