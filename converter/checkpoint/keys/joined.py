"""Rename, join and split the tensors of a checkpoint for the parameters of an MLX model.

The model's layers say the shapes, and the shapes the axis. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mlx.nn as nn

from mlxport.converter.checkpoint.checkpoint import printable
from mlxport.converter.checkpoint.keys.folds import Source
from mlxport.converter.checkpoint.keys.infer_layout import COUNTERS
from mlxport.converter.checkpoint.keys.rename import (
    ModuleNames,
    NameOrigin,
    may_lead_to,
    new_names,
)
from mlxport.converter.errors import StateDictError
from mlxport.converter.plan.mlx_layouts import Slot, without_sequences
from mlxport.converter.plan.steps import Concatenate, Split
from mlxport.converter.plan.tensor import TensorSpec

_Shape = tuple[int, ...]


def renamed_sources(
    named: Mapping[str, Source], rename: ModuleNames, model: nn.Module, slots: Sequence[Slot]
) -> dict[str, Source]:
    """Return new name -> source of each tensor, joined and split as the rules say.

    A rule may fit no tensor where it leads to modules without parameters, and one without a new
    name does nothing: `mlxport.verify` takes the same names, of modules.

    Raises:
        OptionsError: as `new_names`.
        StateDictError: shapes or dtypes do not allow it; all of that is listed.
    """
    chosen = {old: new for old, new in rename.items() if new is not None}
    bare = _without_parameters(model)
    counters = {name for name in named if name.rpartition(".")[2] in COUNTERS}
    found = new_names(
        [name for name in named if name not in counters],
        chosen,
        idle=lambda old: may_lead_to(chosen[old], bare),
    )
    shapes = {
        name: slot.wanted if slot.wanted is not None else slot.shape
        for slot in slots
        for name in (slot.torch, slot.name)
    }
    reasons = {
        name: slot.reason for slot in slots if slot.reason for name in (slot.torch, slot.name)
    }
    problems: list[str] = []
    sources: dict[str, Source] = {}
    for name, origin in found.items():
        given = [named[key] for key in origin.keys]
        if len(given) == 1 and not origin.parts:
            sources[name] = given[0]
            continue
        if closed := [one for one in origin.parts or (name,) if one in reasons]:
            problems += [f"{printable(one)}: {reasons[one]}" for one in closed]
            continue
        made = (
            _split(name, origin, given[0], shapes) if origin.parts else _joined(name, given, shapes)
        )
        if isinstance(made, str):
            problems.append(made)
        else:
            sources[name] = made
    if problems:
        raise StateDictError.listing("these cannot be joined or split:", dict.fromkeys(problems))
    return {**sources, **{name: named[name] for name in counters if name not in sources}}


def _without_parameters(model: nn.Module) -> list[str]:
    modules = model.named_modules()
    sequences = [path for path, module in modules if isinstance(module, nn.Sequential)]
    bare = [path for path, module in modules if path and not module.parameters()]
    return [*bare, *(without_sequences(path, sequences) for path in bare)]


def _joined(name: str, given: Sequence[Source], shapes: Mapping[str, _Shape]) -> Source | str:
    keys = tuple(key for source in given for key in source.keys)
    if problem := _obstacle(keys, given):
        return problem
    found = [source.spec.shape for source in given]
    wanted = shapes.get(name)
    joined = {axis: shape for axis in range(len(found[0])) if (shape := _sum(found, axis))}
    fitting = [axis for axis, shape in joined.items() if shape == wanted]
    if wanted is None and joined:
        fitting = [min(joined)]  # no such parameter: told as any other tensor too many
    if len(fitting) != 1:
        parts = " + ".join(map(str, found))
        return f"{printable(name)} {wanted}: {parts} of {', '.join(keys)} give none along one axis"
    (axis,) = fitting
    sizes = tuple(shape[axis] for shape in found)
    spec = TensorSpec(given[0].spec.dtype, joined[axis])
    return Source(keys, (Concatenate(axis, sizes),), spec)


def _split(
    name: str, origin: NameOrigin, given: Source, shapes: Mapping[str, _Shape]
) -> Source | str:
    if problem := _obstacle(given.keys, [given]):
        return problem
    whole, said = given.spec.shape, " + ".join(origin.parts)
    if missing := [part for part in origin.parts if part not in shapes]:
        none = ", ".join(map(printable, missing))
        return f"{given.keys[0]} into {said}: the MLX model has no parameter {none}"
    wanted = [shapes[part] for part in origin.parts]
    fitting = [axis for axis in range(len(whole)) if _sum(wanted, axis) == whole]
    if len(fitting) != 1:
        parts = " + ".join(map(str, wanted))
        return f"{given.keys[0]} {whole} into {said}: {parts} give no such shape along one axis"
    (axis,) = fitting
    sizes = tuple(shape[axis] for shape in wanted)
    spec = TensorSpec(given.spec.dtype, shapes[name])
    return Source(given.keys, (Split(axis, sizes),), spec, parts=origin.parts)


def _obstacle(keys: Sequence[str], given: Sequence[Source]) -> str:
    """Return why tensors can be neither joined nor split; empty where they may."""
    said = ", ".join(keys)
    if unknown := [source.open for source in given if source.open]:
        return f"{said}: {unknown[0]}"
    if any(source.steps for source in given):
        return f"{said}: a norm is folded of some, which it would not be given back from"
    if len({source.spec.dtype for source in given}) > 1:
        return f"{said}: their dtypes differ: {', '.join(source.spec.dtype for source in given)}"
    return ""


def _sum(shapes: Sequence[_Shape], axis: int) -> _Shape | None:
    """Return the shape of tensors one behind the other along an axis; None where none fits."""
    first = shapes[0]
    if any(len(shape) != len(first) or axis >= len(shape) for shape in shapes):
        return None
    if len({shape[:axis] + shape[axis + 1 :] for shape in shapes}) > 1:
        return None
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])
