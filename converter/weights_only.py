"""Inspect a checkpoint, and convert its weights, without the model they belong to.

Needs torch only to read what ``torch.save`` wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mlxport.converter.checkpoint.bind import OUTSIDE, cast_floats, left_out
from mlxport.converter.checkpoint.checkpoint import Checkpoint, described, printable
from mlxport.converter.checkpoint.folds import Source, plain_sources
from mlxport.converter.checkpoint.output import MARK, OutputFolder
from mlxport.converter.checkpoint.read import open_checkpoint
from mlxport.converter.checkpoint.readings import Reading, parse_layers, read_tensors
from mlxport.converter.checkpoint.rename import Patterns, renamed
from mlxport.converter.checkpoint.stream import stream_weights
from mlxport.converter.converted import Converted
from mlxport.converter.errors import SeveralStateDictsError, StateDictError
from mlxport.converter.folder import write_json, write_left_out
from mlxport.converter.plan import Entry, WeightPlan
from mlxport.converter.record import Conversion
from mlxport.converter.tensor import TensorSpec

_NO_MODEL = "weights alone were converted: give --model and --input for a model that runs"


@dataclass(frozen=True)
class Row:
    """One tensor of a checkpoint, as the plain module would hold it.

    Attributes:
        name: the key, or the name of the weight that several keys make.
        keys: of the checkpoint.
        dtype: safetensors name.
        shape: PyTorch's.
        nbytes: of its values.
        kind: class of torch.nn, ``"as it is"``, ``"counter"`` or ``"open"``.
        becomes: the shape in MLX; None where it is open or left out.
        evidence: why it is taken for that.
        options: where it is open, what ``--layer`` may say of it.
    """

    name: str
    keys: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    kind: str
    becomes: tuple[int, ...] | None
    evidence: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What is in a checkpoint and what would happen to each tensor.

    Attributes:
        path: what was opened.
        key: where in it the state dict was found; None where the format has no nesting.
        notes: what was left out and why.
        tensors: in the checkpoint's order; none where it holds several state dicts.
        ties: groups of keys that are one tensor.
        choices: where it holds several state dicts, what ``--key`` may say -> the names in it.
    """

    path: str
    key: str | None
    notes: tuple[str, ...]
    tensors: tuple[Row, ...]
    ties: tuple[tuple[str, ...], ...] = ()
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON data."""
        return asdict(self)

    def to_text(self) -> str:
        """Return it as a table, and what is open after it."""
        if self.choices:
            listed = [f"  --key {described(key, names)}" for key, names in self.choices.items()]
            heading = f"{len(listed)} state dicts are in {self.path}. Each is shown by its key:"
            return "\n".join([heading, *listed])
        cells = [
            (
                printable(row.name),
                f"{row.dtype} {row.shape}",
                _size(row.nbytes),
                row.kind,
                "" if row.becomes in (None, row.shape) else str(row.becomes),
                row.evidence,
            )
            for row in self.tensors
        ]
        heads = ("tensor", "PyTorch", "size", "taken for", "in MLX", "because")
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (heads, *cells)
        ]
        total = sum(row.nbytes for row in self.tensors)
        lines += ["", f"{len(self.tensors)} tensors, {_size(total)}"]
        lines += [f"one tensor: {', '.join(map(printable, group))}" for group in self.ties]
        if open_rows := [row for row in self.tensors if row.kind == "open"]:
            lines += ["", f"{len(open_rows)} are open. --model settles them all, or --layer each:"]
            lines += [f"  {_said(row.name, row.options)}" for row in open_rows]
        return "\n".join(lines)


def inspect(
    source: str | Path,
    *,
    key: str | None = None,
    prefix: str | None = None,
    rename: Patterns | None = None,
    layers: Sequence[str] = (),
) -> Inspection:
    """Tell what is in a checkpoint; see ``mlxport.inspect``."""
    try:
        opened = open_checkpoint(source, key)
    except SeveralStateDictsError as several:
        return Inspection(str(source), None, (), (), choices=several.choices)
    checkpoint, _ = renamed(opened, rename or {})
    sources = _sources(checkpoint, prefix)
    readings = read_tensors(sources, parse_layers(layers))
    rows = [_row(name, sources[name], reading) for name, reading in readings.items()]
    return Inspection(
        str(checkpoint.path), checkpoint.key, checkpoint.notes, tuple(rows), _ties(checkpoint)
    )


def convert_weights(
    source: str | Path,
    output: str | Path,
    *,
    layers: Sequence[str] = (),
    key: str | None = None,
    prefix: str | None = None,
    rename: Patterns | None = None,
    dtype: str | None = None,
    max_shard_size: int | str | None = None,
    overwrite: bool = False,
) -> Converted:
    """Convert weights alone, by evidence and ``--layer``; see ``mlxport.convert_checkpoint``.

    Raises:
        StateDictError: what some tensors are is open; all are listed with what would settle them.
    """
    choices = parse_layers(layers)
    with OutputFolder(Path(output), overwrite=overwrite, sources=(Path(source),)) as folder:
        checkpoint, own = renamed(open_checkpoint(source, key), rename or {})
        sources = _sources(checkpoint, prefix)
        plan = _plan(checkpoint, sources, read_tensors(sources, choices))
        plan = plan if dtype is None else cast_floats(plan, dtype)
        record = {"path": checkpoint.path.name, "sha256": checkpoint.digest()}
        conversion = Conversion(plan.renamed(own), (), (), source=record)
        if checkpoint.key:
            conversion = replace(conversion, source={**record, "key": checkpoint.key})
        not_finite = stream_weights(folder, plan, checkpoint, max_shard_size=max_shard_size)
        write_left_out(folder, left_out(plan, checkpoint, own))
        write_json(folder / MARK, conversion.to_json())
    warnings = (f"these weights hold NaN or infinity: {', '.join(not_finite)}",) * bool(not_finite)
    return Converted(None, "", conversion, None, (*checkpoint.notes, _NO_MODEL), warnings)


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


def _row(name: str, source: Source, reading: Reading) -> Row:
    becomes = None
    if reading.steps is not None:
        entry = Entry((name,), (name,), reading.steps)
        becomes = entry.apply((source.spec.outline(),))[0].shape
    spec = source.spec
    folded = "; its norm is folded" if source.steps else ""
    return Row(
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
            said = ("--layer " if reading.options else "") + _said(name, reading.options)
            problems.append(f"{said}  {source.spec.shape}: {reading.evidence}")
        else:
            entries.append(Entry(source.keys, (name,), (*source.steps, *reading.steps)))
    if problems:
        raise StateDictError.listing(
            f"what {len(problems)} tensors are is open:",
            problems,
            "Say --layer (layers=[…]) for each, '*=Conv' for most and the others after it, or "
            "convert with --model, which knows. `mlxport inspect` shows all tensors.",
        )
    specs = {key: TensorSpec.of(tensor) for key, tensor in checkpoint.tensors.items()}
    used = {key for entry in entries for key in entry.sources} | set(ignored)
    ignored |= {key: OUTSIDE for key in specs if key not in used}
    ties = {key: group[0] for group in _ties(checkpoint) for key in group[1:]}
    return WeightPlan(tuple(entries), ignored, specs=specs, ties=ties)


def _ties(checkpoint: Checkpoint) -> tuple[tuple[str, ...], ...]:
    groups: dict[Any, list[str]] = {}
    for key, identity in checkpoint.storage.items():
        groups.setdefault(identity, []).append(key)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _said(name: str, options: Sequence[str]) -> str:
    """Return ``name=Conv3d | ConvTranspose3d`` of options for one tensor."""
    if not options:
        return f"{printable(name)}: only --model settles it"
    name, _, first = options[0].rpartition("=")
    kinds = " | ".join([first, *(option.rpartition("=")[2] for option in options[1:])])
    return f"{printable(name)}={kinds}"


def _size(nbytes: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024 or unit == "GiB":
            return f"{nbytes:.4g} {unit}"
        nbytes /= 1024  # type: ignore[assignment]
    raise AssertionError
