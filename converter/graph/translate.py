"""From a torch model to MLX source, weight plan and record: the graph room in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import torch

from mlxport.converter.graph import ops
from mlxport.converter.graph.capture.capture import Captured, capture
from mlxport.converter.graph.capture.dynamic import DynamicSizes, named_ranges
from mlxport.converter.graph.capture.other_inputs import OtherInputs, example_sizes, other_inputs
from mlxport.converter.graph.capture.size_guards import Guards, conditions
from mlxport.converter.graph.capture.table_guards import table_conditions
from mlxport.converter.graph.debug_folder import DebugFolder
from mlxport.converter.graph.ir.body import Lowered
from mlxport.converter.graph.ir.naming import ModelNames
from mlxport.converter.graph.ir.sizes import size_text
from mlxport.converter.graph.lowering.lower import lower
from mlxport.converter.graph.lowering.weight_plan import constants, weight_plan
from mlxport.converter.graph.source.model_py import ModelPy, write_model
from mlxport.converter.plan.record import Conversion, Stem
from mlxport.converter.plan.tensor import Tensor
from mlxport.converter.timings import stage
from mlxport.converter.torch_model.calls import in_order
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
    """

    model_py: ModelPy
    conversion: Conversion
    constants: Mapping[str, Tensor]
    user_files: Mapping[str, str] = field(default_factory=dict)
    other: OtherInputs | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)

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
        captured = capture(model, args, kwargs, handled=ops.registry.OPS, dynamic=dynamic)
        debug.captured(captured)
        lowered = lower(captured, channels_last_ends=channels_last, watch=debug.passed)
    names = ModelNames(model)
    call = in_order(model, args, kwargs)
    if lowered.size_names:
        with stage("sizes"):
            lowered.conditions = size_conditions(captured, lowered, model, *call)
    model_py = write_model(lowered, names, stem)
    debug.emitted(model_py.text())
    conversion = Conversion(
        stem=stem,
        plan=weight_plan(lowered, names),
        modules=tuple(lowered.records),
        inputs=tuple(formal.name for formal in lowered.bodies[""].parameters),
        signature=lowered.signature,
        layers=lowered.layer_files(),
        transposes=lowered.transposes,
        draws=tuple(lowered.scope.draws),
        versions={name: version(name) for name in ("mlxport", "torch", "mlx")},
        dynamic=named_ranges(captured.exported, lowered.size_names),
        conditions=tuple(lowered.conditions),
    )
    user_files = {name: file.text for name, file in lowered.scope.user_files.items()}
    translation = Translation(model_py, conversion, constants(lowered, names), user_files)
    if not lowered.size_names:
        return translation
    with stage("sizes"):
        known = example_sizes(captured.exported, *call)
        sizes = {lowered.size_names[symbol]: size for symbol, size in known.items()}
        other = other_inputs(captured.exported, *call, lowered.size_names, lowered.conditions)
    return replace(translation, other=other, sizes=sizes)


def size_conditions(
    captured: Captured,
    lowered: Lowered,
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> list[str]:
    """Return what must be true of the dynamic sizes, in their names."""
    names = lowered.size_names
    guards = Guards(captured.exported, model, args, kwargs, names)
    example = example_sizes(captured.exported, args, kwargs)
    found = conditions(guards, example, captured.exported)
    found += table_conditions(captured.exported, names)
    return list(
        dict.fromkeys([*found, *(f"{size_text(s, names)} > 1" for s in lowered.scope.above_one)])
    )
