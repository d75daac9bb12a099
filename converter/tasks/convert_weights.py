"""Inspect a checkpoint, and convert its weights, where no model says what they are.

Needs torch only to read what ``torch.save`` wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint, printable
from mlxport.converter.checkpoint.keys.bind import OUTSIDE, cast_floats, decode_float8, recorded
from mlxport.converter.checkpoint.keys.folds import Source, plain_sources
from mlxport.converter.checkpoint.keys.infer_layout import Reading, parse_layers, read_tensors
from mlxport.converter.checkpoint.keys.kinds import kinds_of, recognised
from mlxport.converter.checkpoint.keys.loading import NO_LOADING_CODE
from mlxport.converter.errors import SeveralStateDictsError, StateDictError
from mlxport.converter.options.output import OutputOptions
from mlxport.converter.options.source import SourceOptions
from mlxport.converter.output.carry_along import carry_along
from mlxport.converter.output.contents import source_of, stem_of, write_json, write_weights
from mlxport.converter.output.whole_folder import OutputFolder
from mlxport.converter.plan.record import RECORD_FILE, Conversion
from mlxport.converter.plan.tensor import TensorSpec
from mlxport.converter.plan.weight_plan import Entry, WeightPlan
from mlxport.converter.tasks.inspection import InspectedTensor, Inspection, layer_option, ties_of
from mlxport.converter.tasks.result import Converted


def inspect(
    source: str | Path,
    layers: Sequence[str],
    reading: SourceOptions,
) -> Inspection:
    """Tell what is in a checkpoint; see ``mlxport.inspect``."""
    try:
        checkpoint, _ = reading.open(source)
    except SeveralStateDictsError as several:
        return Inspection(str(source), None, (), (), choices=several.choices)
    sources = _sources(checkpoint, reading.prefix)
    readings = read_tensors(sources, parse_layers(layers))
    rows = [_row(name, sources[name], reading) for name, reading in readings.items()]
    return Inspection(
        str(checkpoint.path), checkpoint.key, checkpoint.notes, tuple(rows), ties_of(checkpoint)
    )


def convert_weights(
    source: str | Path,
    output: str | Path,
    layers: Sequence[str],
    reading: SourceOptions,
    writing: OutputOptions,
) -> Converted:
    """Convert weights alone, by evidence and ``layers``; see ``mlxport.convert_checkpoint``.

    Raises:
        StateDictError: what some tensors are is open; all are listed with what would
            decide on them.
    """
    choices = parse_layers(layers)
    files = (Path(source),)
    with OutputFolder(Path(output), overwrite=writing.overwrite, sources=files) as folder:
        checkpoint, original_keys = reading.open(source)
        sources = _sources(checkpoint, reading.prefix)
        plan = _plan(checkpoint, sources, read_tensors(sources, choices))
        if writing.carry_along:
            carry_along(folder, Path(source))
        found = convert_by(
            folder,
            plan,
            checkpoint,
            original_keys,
            dtype=reading.dtype,
            max_shard_size=writing.max_shard_size,
        )
    notes = (*checkpoint.notes, NO_LOADING_CODE, _no_model())
    return replace(found, notes=notes, warnings=(*found.warnings, *kinds_of(checkpoint)))


def convert_by(
    folder: Path,
    plan: WeightPlan,
    checkpoint: Checkpoint,
    original_keys: Mapping[str, str] | None = None,
    *,
    dtype: str | None = None,
    max_shard_size: int | None = None,
    source: Mapping[str, str] | None = None,
) -> Converted:
    """Write what a plan makes of a checkpoint, and the record of it: a folder without a model.

    Args:
        folder: where.
        plan: what to write; its keys are the checkpoint's.
        checkpoint: the weights.
        original_keys: key of ``checkpoint`` -> that in the file, where keys were renamed.
        dtype: cast all floating-point weights to this.
        max_shard_size: of the data in a file.
        source: what else the record says of where the weights came from.
    """
    plan = plan if dtype is None else cast_floats(plan, dtype)
    plan, decoded = decode_float8(plan)
    written = write_weights(folder, plan, checkpoint, original_keys, max_shard_size=max_shard_size)
    conversion = Conversion(
        plan=recorded(plan, checkpoint, original_keys or {}),
        modules=(),
        inputs=(),
        source=source_of(checkpoint, written.sha256, **(source or {})),
        digests=written.digests,
        stem=stem_of(checkpoint),
    )
    write_json(folder / RECORD_FILE, conversion.to_json())
    warnings = list(written.warnings)
    if decoded:
        named = ", ".join(map(printable, decoded))
        warnings.append(f"MLX has no float8: decoded to bfloat16, which holds every value: {named}")
    name = checkpoint.path.name
    return Converted(None, "", conversion, None, (), tuple(warnings), name=name)


def _no_model() -> str:
    given = f"{argument('model')} and {argument('inputs')}"
    return f"weights alone were converted: give {given} for a model that runs"


def _sources(checkpoint: Checkpoint, prefix: str | None) -> dict[str, Source]:
    dotted = f"{prefix}." if prefix and not prefix.endswith(".") else prefix or ""
    specs = {
        key: TensorSpec.of(tensor)
        for key, tensor in checkpoint.tensors.items()
        if key.startswith(dotted)
    }
    if not specs:
        raise StateDictError(f"no key of the checkpoint begins with {dotted!r}")
    return {name.removeprefix(dotted): src for name, src in plain_sources(specs).items()}


def _row(name: str, source: Source, reading: Reading) -> InspectedTensor:
    becomes = None
    if reading.steps is not None:
        entry = Entry((name,), (name,), reading.steps)
        becomes = entry.apply((source.spec.outline(),))[0].shape
    spec = source.spec
    folded = "; its norm is folded" if source.steps else ""
    return InspectedTensor(
        name,
        source.keys,
        spec.dtype,
        spec.shape,
        spec.nbytes,
        reading.kind,
        becomes,
        (f"left out: {reading.ignored}" if reading.ignored else reading.evidence) + folded,
        reading.options,
    )


def _plan(
    checkpoint: Checkpoint, sources: Mapping[str, Source], readings: Mapping[str, Reading]
) -> WeightPlan:
    problems = []
    entries, ignored = [], {}
    for name, reading in readings.items():
        source = sources[name]
        if reading.ignored:
            ignored.update(dict.fromkeys(source.keys, reading.ignored))
        elif reading.steps is None:
            said = layer_option(name, reading.options)
            problems.append(f"{said}  {source.spec.shape}: {reading.evidence}")
        else:
            entries.append(Entry(source.keys, (name,), (*source.steps, *reading.steps)))
    if problems:
        raise StateDictError.listing(
            f"what {len(problems)} tensors are is open:",
            problems,
            f"Say {argument('layers')} for each, '*=Conv' for most and the others after it, or "
            f"convert with {argument('model')}, which knows. `mlxport inspect` shows all tensors."
            + "".join(f"\n{hint}" for hint in recognised(checkpoint)),
        )
    specs = {key: TensorSpec.of(tensor) for key, tensor in checkpoint.tensors.items()}
    used = {key for entry in entries for key in entry.sources} | set(ignored)
    ignored |= {key: OUTSIDE for key in specs if key not in used}
    ties = {key: group[0] for group in ties_of(checkpoint) for key in group[1:]}
    return WeightPlan(tuple(entries), ignored, specs=specs, ties=ties)
