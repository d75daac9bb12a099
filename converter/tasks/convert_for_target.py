"""Convert or inspect a checkpoint for an MLX model that its user wrote: the target.

Needs torch only to read what ``torch.save`` wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mlx.nn as nn

from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.formats.open_checkpoint import open_checkpoint
from mlxport.converter.checkpoint.keys.bind import OUTSIDE
from mlxport.converter.checkpoint.keys.infer_layout import COUNTERS
from mlxport.converter.options.output import OutputOptions
from mlxport.converter.options.source import SourceOptions
from mlxport.converter.output.carry_along import carry_along
from mlxport.converter.output.contents import open_weights
from mlxport.converter.output.whole_folder import OutputFolder
from mlxport.converter.plan.steps import Concatenate, folds
from mlxport.converter.plan.tensor import TensorSpec, to_mlx
from mlxport.converter.plan.weight_plan import WeightPlan
from mlxport.converter.tasks.convert_weights import convert_by
from mlxport.converter.tasks.fit_target import Fit, fit_target
from mlxport.converter.tasks.inspection import InspectedTensor, Inspection, ties_of
from mlxport.converter.tasks.result import Converted
from mlxport.converter.torch_model.factory import make_target


def convert_for_target(
    source: str | Path,
    output: str | Path,
    target: str | nn.Module,
    reading: SourceOptions,
    writing: OutputOptions,
) -> Converted:
    """Convert weights for an MLX model; see ``mlxport.convert_checkpoint``.

    Raises:
        StateDictError: not every tensor has its parameter and every parameter its tensor; all
            that does not fit is listed and nothing is written.
    """
    sources = (Path(source),)
    with OutputFolder(Path(output), overwrite=writing.overwrite, sources=sources) as folder:
        checkpoint, model, fit = _fitted(source, target, reading)
        fit.require("Nothing was written.")
        if writing.carry_along:
            carry_along(folder, Path(source))
        name = target if isinstance(target, str) else type(target).__qualname__
        plan = _plan(checkpoint, fit)
        found = convert_by(
            folder,
            plan,
            checkpoint,
            dtype=reading.dtype,
            max_shard_size=writing.max_shard_size,
            source={"target": name},
        )
        written = open_weights(folder).tensors
        model.load_weights([(name, to_mlx(tensor)) for name, tensor in written.items()])
    model.eval()
    notes = (*fit.result.notes, f"parity was not judged: {name} is your own. {_VERIFY}")
    return Converted(lambda: model, "", found.conversion, None, notes, found.warnings, name=name)


_VERIFY = "mlxport.verify(model, torch_model, inputs) holds it to PyTorch."


def inspect_for_target(
    source: str | Path,
    target: str | nn.Module,
    reading: SourceOptions,
) -> Inspection:
    """Tell what of a checkpoint goes where in an MLX model; see ``mlxport.inspect``."""
    checkpoint, model, fit = _fitted(source, target, reading)
    layers = {path: type(module).__name__ for path, module in model.named_modules()}
    goes = {name: parameter for parameter, name in fit.matched.items()}
    rows = [_row(name, fit, goes.get(name), layers) for name in fit.named]
    problems = tuple(fit.result.problems)
    return Inspection(
        str(checkpoint.path),
        checkpoint.key,
        fit.result.notes,
        tuple(rows),
        ties_of(checkpoint),
        problems=problems,
    )


def _fitted(
    source: str | Path, target: str | nn.Module, reading: SourceOptions
) -> tuple[Checkpoint, nn.Module, Fit]:
    """Return the checkpoint, the MLX model, and how they fit."""
    checkpoint = reading.without_dropped(open_checkpoint(source, reading.key))
    model = make_target(target, reading.model_args) if isinstance(target, str) else target
    return checkpoint, model, fit_target(model, checkpoint, reading.rename, reading.prefix)


def _row(name: str, fit: Fit, parameter: str | None, layers: Mapping[str, str]) -> InspectedTensor:
    source = fit.named[name]
    spec, becomes, target = source.spec, None, ""
    counted = COUNTERS.get(name.rpartition(".")[2])
    if parameter is None:
        kind, evidence = ("counter", f"left out: {counted}") if counted else ("unexpected", "")
    elif parameter in fit.entries:
        slot = fit.slots[parameter]
        kind, becomes, target = layers[slot.group], slot.shape, parameter
        structural = parameter in fit.result.by_structure
        evidence = "only this layer has these shapes" if structural else "its name"
    else:
        kind = "misshapen" if parameter in fit.result.misshapen else "unsettled"
        evidence = f"meant for {parameter}"
    joined = any(isinstance(step, Concatenate) for step in source.steps)
    evidence += "; its norm is folded" if any(map(folds, source.steps)) else ""
    evidence += f"; joined from {', '.join(source.keys)}" if joined else ""
    evidence += f"; split from {source.keys[0]}" if source.parts else ""
    shape, size = spec.shape, spec.nbytes
    return InspectedTensor(
        name, source.keys, spec.dtype, shape, size, kind, becomes, evidence, (), target
    )


def _plan(checkpoint: Checkpoint, fit: Fit) -> WeightPlan:
    ignored = {
        key: COUNTERS.get(name.rpartition(".")[2], "")
        for name, source in fit.named.items()
        for key in source.keys
        if name.rpartition(".")[2] in COUNTERS
    }
    specs = {key: TensorSpec.of(tensor) for key, tensor in checkpoint.tensors.items()}
    used = {key for entry in fit.entries.values() for key in entry.sources}
    ignored |= {key: OUTSIDE for key in specs if key not in used and key not in ignored}
    ties = {key: group[0] for group in ties_of(checkpoint) for key in group[1:]}
    return WeightPlan(tuple(dict.fromkeys(fit.entries.values())), ignored, specs=specs, ties=ties)
