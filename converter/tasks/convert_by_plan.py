"""Convert a checkpoint by the plan of another conversion: no model code, no capture.

Needs torch only to read what ``torch.save`` wrote.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.formats.in_memory import checkpoint_of
from mlxport.converter.checkpoint.keys.adapter import base_and_adapter, check_alike, open_adapter
from mlxport.converter.checkpoint.keys.bind import as_the_model_has_them, bind, recorded
from mlxport.converter.checkpoint.keys.kinds import recognised
from mlxport.converter.checkpoint.keys.loading import (
    beside_tensors,
    check_computed,
    check_derived,
    check_same,
)
from mlxport.converter.checkpoint.keys.match import match_keys
from mlxport.converter.errors import ConversionError, OptionsError, StateDictError
from mlxport.converter.exclusive import exclusive
from mlxport.converter.options.output import OutputOptions
from mlxport.converter.options.source import SourceOptions
from mlxport.converter.output.carry_along import carry_along
from mlxport.converter.output.contents import (
    WEIGHTS,
    naming_the_record,
    open_weights,
    read_conversion,
    source_of,
    write_config,
    write_json,
    write_weights,
)
from mlxport.converter.output.lineage import record_lineage
from mlxport.converter.output.live_model import live_model
from mlxport.converter.output.mlx_lm_file import MODEL_FILE, name_model_file
from mlxport.converter.output.package import write_package
from mlxport.converter.output.whole_folder import OutputFolder
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.plan.quantize_step import Quantized
from mlxport.converter.plan.record import RECORD_FILE, Conversion
from mlxport.converter.plan.steps import Cast
from mlxport.converter.plan.tensor import Tensor, is_float, same_bits, to_mlx
from mlxport.converter.plan.weight_plan import Entry, WeightPlan
from mlxport.converter.tasks.inspection import InspectedTensor, Inspection, ties_of
from mlxport.converter.tasks.result import Converted


def convert_by_plan(
    source: str | Path,
    output: str | Path,
    plan: str | Path,
    reading: SourceOptions,
    writing: OutputOptions,
    *,
    verify: Callable[[Path, Conversion], ParityReport] | None = None,
    beside: Mapping[str, Any] | None = None,
    adapter: Path | None = None,
) -> Converted:
    """Convert a checkpoint by another's plan; see ``mlxport.convert_checkpoint``.

    Args:
        source: the checkpoint.
        output: the folder to write.
        plan: the other's output folder, or the record in it.
        reading: how the checkpoint is read.
        writing: how the folder is written.
        verify: given the folder and its record, holds the model in it to PyTorch and writes the
            evidence; None to judge nothing.
        beside: name of a file -> JSON data to be written into the folder too.
        adapter: the folder of an adapter to take the place of the one in the plan.
    """
    other = Path(plan).parent if Path(plan).name == RECORD_FILE else Path(plan)
    sources = (Path(source), other)
    with (
        OutputFolder(Path(output), overwrite=writing.overwrite, sources=sources) as folder,
        naming_the_record(other),
    ):
        old = read_conversion(other)
        checkpoint, original_keys = reading.open(source)
        if adapter is None:
            _check_adapter(old, checkpoint)
        else:
            checkpoint, old = _with_adapter(old, checkpoint, adapter)
        fitted = fit(
            old.plan,
            checkpoint,
            reading.prefix,
            reading.allow_lossy_cast,
            original_keys,
            apart=() if adapter is None or old.adapter is None else old.adapter.keys,
        )
        written = write_weights(
            folder,
            fitted,
            checkpoint,
            original_keys,
            constants=_constants(old.plan, other),
            max_shard_size=writing.max_shard_size,
            stem=old.stem,
        )
        model_of = {"model": old.source["model"]} if "model" in old.source else {}
        conversion = replace(
            old,
            plan=recorded(fitted, checkpoint, original_keys),
            source=source_of(checkpoint, written.sha256, **model_of),
            digests=written.digests,
        )
        if writing.carry_along:
            carry_along(folder, Path(source))
        if old.quantized is not None:  # as those were; the costs are theirs
            unmeasured = Quantized(old.quantized.settings, old.quantized.layers, old.quantized.left)
            conversion = replace(conversion, quantized=unmeasured)
            write_config(folder, conversion)
        write_json(folder / RECORD_FILE, conversion.to_json())
        for file, data in (beside or {}).items():
            write_json(folder / file, data)
        text = _copy_model(other, folder)
        name_model_file(folder)
        if writing.package is not None:
            _check_package(text, other)
            write_package(folder, writing.package, text, old.stem)
        report = _judged(folder, conversion, verify, other)
    notes = (
        *checkpoint.notes,
        *_not_run(old.plan),
        *_constants_note(old.plan, other),
        *beside_tensors(old.plan),
        *((_unverified(other, bool(text)),) if report is None else ()),
    )
    name = conversion.source.get("model", checkpoint.path.name)
    live = partial(_loaded, Path(output).absolute(), conversion) if text else None
    return Converted(live, text, conversion, report, notes, written.warnings, name=name)


def _judged(
    folder: Path,
    conversion: Conversion,
    verify: Callable[[Path, Conversion], ParityReport] | None,
    other: Path,
) -> ParityReport | None:
    """Return the report of a model that is to be judged; None where none is.

    Raises:
        OptionsError: there is no model to judge.
    """
    if verify is None:
        return None
    if not (folder / "model.py").is_file():
        raise OptionsError(
            f"{argument('verify_with')}: there is no model.py beside the plan in {other} to run"
        )
    return verify(folder, conversion)


@exclusive
def _loaded(folder: Path, conversion: Conversion) -> Any:
    """Run the ``model.py`` that was copied, which converting does not need."""
    model = live_model(folder)
    record_lineage(model, conversion)
    return model


def inspect_by_plan(
    source: str | Path,
    plan: str | Path,
    reading: SourceOptions,
) -> Inspection:
    """Tell what another checkpoint's plan makes of each tensor; see ``mlxport.inspect``."""
    other = Path(plan).parent if Path(plan).name == RECORD_FILE else Path(plan)
    checkpoint, _ = reading.open(source)
    fitted = fit(read_conversion(other).plan, checkpoint, reading.prefix, allow_lossy_cast=True)
    with naming_the_record(other):
        rows = {row.name: row for entry in fitted.entries for row in _rows(entry, fitted)}
    for name, reason in {**fitted.ignored, **fitted.aliases}.items():
        spec = fitted.specs.get(name)
        if spec is not None:
            alias = name in fitted.aliases
            kind, why = ("tied", f"it is {reason}") if alias else ("left out", reason)
            rows[name] = InspectedTensor(
                name, (name,), spec.dtype, spec.shape, spec.nbytes, kind, None, why
            )
    ordered = tuple(rows[name] for name in fitted.specs if name in rows)
    path, ties = str(checkpoint.path), ties_of(checkpoint)
    return Inspection(path, checkpoint.key, checkpoint.notes, ordered, ties)


def _rows(entry: Entry, plan: WeightPlan) -> Iterator[InspectedTensor]:
    """Yield what becomes of the sources of an entry."""
    targets = entry.apply(tuple(plan.specs[key].outline() for key in entry.sources))
    becomes = targets[0].shape if len(targets) == 1 else None
    steps = ", ".join(step.kind.replace("_", " ") for step in entry.steps)
    target = ", ".join(entry.targets)
    for key in entry.sources:
        spec, why = plan.specs[key], steps or "the bits are kept"
        given = (key, (key,), spec.dtype, spec.shape, spec.nbytes)
        yield InspectedTensor(*given, "by the plan", becomes, why, (), target)


def convert_state_dict(
    source: str | Path | Mapping[str, Any],
    plan: str | Path | Conversion | WeightPlan,
    reading: SourceOptions,
) -> dict[str, Any]:
    """Return MLX parameter -> array; see ``mlxport.convert_state_dict``."""
    checkpoint = reading.without_dropped(checkpoint_of(source, reading.key))
    constants: Mapping[str, Tensor] = {}
    naming: AbstractContextManager[None] = nullcontext()
    if isinstance(plan, (str, Path)):
        folder = Path(plan).parent if Path(plan).name == RECORD_FILE else Path(plan)
        plan = read_conversion(folder).plan
        constants = _constants(plan, folder)
        naming = naming_the_record(folder)
    elif isinstance(plan, Conversion):
        plan = plan.plan
    check_derived(plan.derived)
    if missing := sorted(set(plan.constants) - set(constants)):
        raise ConversionError.listing(
            "the plan leaves these to the model, and a plan alone does not hold them:",
            missing,
            "Give the output folder that holds the plan.",
        )
    fitted = fit(plan, checkpoint, reading.prefix, reading.allow_lossy_cast)
    with naming:
        converted = {name: to_mlx(tensor) for name, tensor in fitted.apply(checkpoint.tensors)}
    checkpoint.check_unchanged()
    return {**converted, **{name: to_mlx(tensor) for name, tensor in constants.items()}}


def fit(
    plan: WeightPlan,
    checkpoint: Checkpoint,
    prefix: str | None,
    allow_lossy_cast: bool,
    original_keys: Mapping[str, str] | None = None,
    apart: Collection[str] = (),
) -> WeightPlan:
    """Return the plan with the keys and dtypes of a checkpoint of the same architecture.

    Args:
        plan: made for another one.
        checkpoint: the weights.
        prefix: take the checkpoint's keys under this prefix alone.
        allow_lossy_cast: round where the plan's dtypes cannot hold the values.
        original_keys: key of the checkpoint -> that in its file, where keys were renamed.
        apart: keys that stand in both as they are: those of an adapter beside its base.

    Raises:
        StateDictError: keys are missing or unexpected, shapes differ, dtypes are of another kind,
            a cast would round, tied tensors differ, or PyTorch would run code of the model that
            cannot be repeated here; all problems of a kind are listed.
    """
    if not plan.specs:
        raise StateDictError(
            "the plan does not say which tensors it expects: it was made for one layer, or by an "
            f"older mlxport. Convert with {argument('model')} to make a plan for this checkpoint."
        )
    check_derived(plan.derived)
    plan = as_the_model_has_them(plan)
    if plan.loading is not None:
        check_computed(plan.loading)
    ties = {**plan.ties, **plan.aliases}
    keys = match_keys(
        {key: spec.shape for key, spec in checkpoint.specs.items() if key not in apart},
        {key: spec.shape for key, spec in plan.specs.items() if key not in apart},
        prefix=prefix,
        ties={key: ties.get(key, key) for key in plan.specs},
        optional=set(plan.ignored),
        hints=recognised(checkpoint),
    )
    keys |= {key: key for key in apart}
    if plan.loading is not None:
        check_same(plan.loading, checkpoint, keys, original_keys or {})
    _check_ties(ties, keys, checkpoint)
    fitted = bind(plan, keys, checkpoint, prefix=prefix)
    _check_casts(fitted, allow_lossy_cast)
    return fitted


def _check_ties(ties: Mapping[str, str], keys: Mapping[str, str], checkpoint: Checkpoint) -> None:
    problems = [
        f"{keys[one]} and {keys[other]}"
        for one, other in ties.items()
        if one in keys
        and other in keys
        and checkpoint.storage[keys[one]] != checkpoint.storage[keys[other]]
        and not same_bits(checkpoint.tensors[keys[one]], checkpoint.tensors[keys[other]])
    ]
    if problems:
        raise StateDictError.listing(
            "the plan's model has one tensor where the checkpoint has two that differ:",
            problems,
            "The checkpoint belongs to a model that does not tie them: convert it with "
            f"{argument('model')}.",
        )


def _check_casts(plan: WeightPlan, allow_lossy_cast: bool) -> None:
    kinds, lossy = [], []
    for entry in plan.entries:
        for step in entry.steps:
            if not isinstance(step, Cast):
                continue
            for key, theirs, ours in zip(entry.sources, step.source, step.target, strict=True):
                line = f"{key}: {theirs} to {ours}"
                if is_float(theirs) != is_float(ours):
                    kinds.append(line)
                elif Cast((theirs,), (ours,)).rounds:
                    lossy.append(line)
    if kinds:
        raise StateDictError.listing(
            "these tensors have dtypes of another kind than the plan's:",
            kinds,
            "The checkpoint belongs to another model, or to a quantised form of it.",
        )
    if lossy and not allow_lossy_cast:
        has_float64 = any(line.partition(": ")[2].startswith("F64") for line in lossy)
        raise StateDictError.listing(
            f"{len(lossy)} tensors could be rounded when cast to the plan's dtypes:",
            lossy,
            f"Pass {argument('allow_lossy_cast', True)}, or convert with {argument('model')} to "
            "keep their dtypes."
            + f" MLX has no float64: there, {argument('dtype', 'float32')}."
            * has_float64,
        )


def _constants(plan: WeightPlan, folder: Path) -> dict[str, Tensor]:
    """Return the arrays that come with the model, from the weights beside its plan."""
    if not plan.constants:
        return {}
    try:
        weights = open_weights(folder).tensors
        return {name: weights[name] for name in plan.constants}
    except (ConversionError, KeyError) as error:
        raise ConversionError.listing(
            f"{folder}: the plan leaves these to the model, and its weights do not hold them:",
            plan.constants,
            f"Keep {WEIGHTS} beside {RECORD_FILE} ({error}).",
        ) from error


def _copy_model(other: Path, folder: Path) -> str:
    """Copy ``model.py``, ``layers/`` and the file for mlx-lm, and return the first's text, if any.

    Raises:
        ConversionError: among them are links: what they lead to is not part of the folder.
    """
    if not (other / "model.py").is_file():
        return ""
    package = other / "__init__.py"
    alone = other / MODEL_FILE
    paths = [other / "model.py", package, alone, other / "layers", *(other / "layers").rglob("*")]
    if links := [str(path) for path in paths if path.is_symlink()]:
        raise ConversionError.listing(
            f"{other}: these are links, and an output folder holds none:",
            links,
            "Put the files there that they lead to, if you trust them.",
        )
    shutil.copyfile(other / "model.py", folder / "model.py")
    if package.is_file():  # older versions wrote none
        shutil.copyfile(package, folder / "__init__.py")
    if alone.is_file():
        shutil.copyfile(alone, folder / MODEL_FILE)
    if (other / "layers").is_dir():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(other / "layers", folder / "layers", ignore=ignored)
    return (folder / "model.py").read_text(encoding="utf-8")


def _check_package(source: str, other: Path) -> None:
    """Refuse to make a package of what is none.

    Raises:
        ConversionError: there is no model, or its imports are those of no package.
    """
    if not source:
        raise ConversionError(f"there is no model.py beside the plan in {other}, so no package")
    if "\nfrom layers." in source:
        raise ConversionError(
            f"{other / 'model.py'} is of an older mlxport and cannot be part of a package: convert "
            f"with {argument('model')} again"
        )


def _with_adapter(
    old: Conversion, checkpoint: Checkpoint, adapter: Path
) -> tuple[Checkpoint, Conversion]:
    """Return the checkpoint with an adapter's tensors beside it, and the record that names it."""
    if old.adapter is None:
        raise OptionsError(
            f"{argument('plan')} is one of a base without an adapter: to add one, convert with "
            f"{argument('model')} and {argument('adapter')}"
        )
    opened = open_adapter(adapter)
    check_alike(old.adapter.config, {key: old.plan.specs[key] for key in old.adapter.keys}, opened)
    record = replace(old.adapter, config=opened.config_text)
    return base_and_adapter(checkpoint, opened.checkpoint), replace(old, adapter=record)


def _check_adapter(old: Conversion, checkpoint: Checkpoint) -> None:
    """Refuse a plan that makes weights of a base and an adapter, where there is no adapter."""
    if old.adapter is None or any(key in checkpoint.tensors for key in old.adapter.keys):
        return
    raise OptionsError(
        f"{argument('plan')} is one of a base with an adapter, and {checkpoint.path} has none: "
        f"give it by {argument('adapter')}"
    )


def _not_run(plan: WeightPlan) -> Iterator[str]:
    """Say which code of the model PyTorch would run on the checkpoint."""
    if plan.loading is not None:
        yield (
            f"not run on this checkpoint: {', '.join(plan.loading.code)}. On the plan's own "
            "checkpoint it changed no values"
        )


def _constants_note(plan: WeightPlan, other: Path) -> Iterator[str]:
    """Say what no checkpoint holds, as nobody can tell whether it depends on weights."""
    if plan.constants:
        yield (
            f"taken from the weights in {other}, as they are in no checkpoint: "
            f"{', '.join(plan.constants)}. They are wrong here if the model computes them of its "
            "weights"
        )


def _unverified(other: Path, runs: bool) -> str:
    if not runs:
        return f"there is no model.py beside the plan in {other}: weights alone were converted"
    return (
        f"parity was not judged, and there is no reference to verify by later: that in {other} is "
        f"of other weights. {argument('verify_with', 'pkg.mod:factory')} and "
        f"{argument('inputs', ['1,3,64,64'])} hold these to PyTorch and keep one"
    )
