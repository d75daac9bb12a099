"""Restore the PyTorch checkpoint of an output folder: its weight plan, applied backwards.

Needs no torch to write ``.safetensors``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.formats.index import open_index
from mlxport.converter.checkpoint.formats.mapped import read_anew, released
from mlxport.converter.checkpoint.formats.safetensors import open_safetensors
from mlxport.converter.checkpoint.keys.adapter import ADAPTER_CONFIG, ADAPTER_MODEL
from mlxport.converter.checkpoint.writing.digest import digest_of
from mlxport.converter.checkpoint.writing.safetensors import write_safetensors
from mlxport.converter.errors import ConversionError, OptionsError, PlanError, StateDictError
from mlxport.converter.output.contents import (
    LEFT_OUT,
    WEIGHTS,
    naming_the_record,
    open_weights,
    read_conversion,
)
from mlxport.converter.output.whole_folder import OutputFolder
from mlxport.converter.plan.quantize_step import Quantize
from mlxport.converter.plan.record import RECORD_FILE, Conversion, Digests
from mlxport.converter.plan.steps import Cast, Step
from mlxport.converter.plan.tensor import Tensor, TensorSpec, holds, same_bits
from mlxport.converter.plan.weight_plan import Entry, WeightPlan
from mlxport.converter.progress import counted
from mlxport.converter.tasks.folded import Folded
from mlxport.converter.tasks.restored import Restored, by_reason

_TORCH_ENDINGS = (".pt", ".pth", ".bin", ".ckpt")


def restore(
    source: str | Path,
    output: str | Path,
    *,
    weights: str | Path | None = None,
    from_live: Any = None,
    adapter: bool = False,
    partial: bool = False,
    overwrite: bool = False,
) -> Restored:
    """Write the checkpoint that an output folder was made from; see ``mlxport.restore``."""
    folder = Path(source).parent if Path(source).name == RECORD_FILE else Path(source)
    if not adapter:
        path = _checked(Path(output), overwrite)
        conversion = read_conversion(folder)
        with naming_the_record(folder), _trained(folder, weights, from_live) as opened:
            return _restored(folder, conversion, opened, path, partial=partial)
    conversion = read_conversion(folder)
    if conversion.adapter is None:
        raise OptionsError(
            f"{folder} was converted without an adapter: leave {argument('adapter', True)} out"
        )
    with (
        naming_the_record(folder),
        _trained(folder, weights, from_live) as opened,
        OutputFolder(Path(output), overwrite=overwrite, sources=(folder,)) as to,
    ):
        path = to / ADAPTER_MODEL
        restored = _restored(folder, conversion, opened, path, partial=partial, of_adapter=True)
        (to / ADAPTER_CONFIG).write_text(conversion.adapter.config, encoding="utf-8")
    trained = tuple(_trained_base(conversion, opened))
    return replace(restored, path=Path(output), trained_base=trained)


@contextmanager
def _trained(folder: Path, weights: str | Path | None, from_live: Any) -> Iterator[Checkpoint]:
    """Open the MLX weights that are to go back: the folder's own, or others of the same model.

    Raises:
        OptionsError: both kinds of others are given.
    """
    if weights is not None and from_live is not None:
        raise OptionsError(
            f"{argument('weights')} and {argument('from_live')} both say which weights go back"
        )
    if from_live is not None:
        with TemporaryDirectory() as temporary:
            file = Path(temporary) / WEIGHTS
            from_live.save_weights(str(file))
            yield open_safetensors(file)
    else:
        yield open_weights(folder) if weights is None else _opened(Path(weights))


def _opened(path: Path) -> Checkpoint:
    if path.is_dir():
        return open_weights(path)
    return open_index(path, open_safetensors) if path.suffix == ".json" else open_safetensors(path)


def _restored(
    folder: Path,
    conversion: Conversion,
    weights: Checkpoint,
    path: Path,
    *,
    partial: bool,
    of_adapter: bool = False,
) -> Restored:
    """Write the tensors of the checkpoint, or those of the adapter that was converted with it."""
    plan, kept = conversion.plan, _kept(folder)
    ours = set() if conversion.adapter is None else {*conversion.adapter.keys}
    found = {name: TensorSpec.of(tensor) for name, tensor in weights.tensors.items()}
    specs = _restored_specs(plan, found, folder)
    # state and constants are in the folder's weights, and in no entry
    added = sorted({*found} - {*open_weights(folder).tensors})
    if added and not partial:
        raise StateDictError.listing(
            f"{folder}: these weights came to the model after it was converted:",
            (f"unexpected  {name}" for name in added),
            f"The checkpoint has no place for them: {argument('partial', True)} writes the others.",
        )
    trained = _trained_since(conversion, weights)
    folded = Folded.of(plan, kept, lambda entry: any(_others(entry, conversion, weights)))
    given_back = {*plan.computed, *folded.unchanged, *folded.keys}
    lost = _lost(plan, found, kept)
    lost = {key: why for key, why in lost.items() if key not in given_back} | trained | folded.lost
    untied = {*lost, *given_back}
    lost = {key: why for key, why in lost.items() if (key in ours) == of_adapter}
    needed = {key: why for key, why in lost.items() if key not in plan.ignored}
    if needed and not partial:
        raise ConversionError.listing(
            "these tensors cannot be given back:",
            (f"{', '.join(keys)}: {why}" for why, keys in by_reason(needed).items()),
            f"{argument('partial', True)} writes the others.",
        )
    _check_ties(plan, weights.tensors, untied)
    changed = {*trained, *folded.keys, *folded.lost}
    kept = folded.under_all_names({k: tensor for k, tensor in kept.items() if k not in changed})
    specs = {key: spec for key, spec in specs.items() if key not in plan.computed}
    specs |= {key: TensorSpec.of(tensor) for key, tensor in kept.items()} | folded.specs()
    order = [key for key in plan.specs if key in specs]
    wanted = (key for key in dict.fromkeys([*order, *specs]) if (key in ours) == of_adapter)
    specs = {key: specs[key] for key in wanted}
    instead = {*kept, *folded.keys}
    others = chain(kept.items(), folded.tensors(weights.tensors, kept))
    _write(path, plan, weights, others, specs, instead)
    rounded = _changed(plan, lambda step: isinstance(step, Cast) and step.rounds)
    quantized = _changed(plan, lambda step: isinstance(step, Quantize))

    def inexact(keys: Iterable[str]) -> tuple[str, ...]:
        return tuple(key for key in keys if key in specs and key not in kept)

    equivalent, unmerged = (
        tuple(key for key in keys if key in specs) for keys in (folded.normed, folded.unmerged)
    )
    return Restored(
        path,
        tuple(specs),
        lost,
        inexact(rounded),
        inexact(quantized),
        equivalent,
        unmerged,
        narrowed=inexact(_narrowed(conversion, weights)),
        added=tuple(added),
    )


def _checked(path: Path, overwrite: bool) -> Path:
    if path.suffix not in (".safetensors", *_TORCH_ENDINGS):
        endings = ", ".join((".safetensors", *_TORCH_ENDINGS))
        raise OptionsError(f"{path}: the ending says what is to be written: one of {endings}")
    if path.exists() and (not overwrite or path.is_dir()):
        raise OptionsError(
            f"{path} exists already. Name another file, or pass {argument('overwrite', True)} to "
            "replace it."
        )
    if not path.parent.is_dir():
        raise OptionsError(f"{path.parent}: there is no such folder")
    return path


def _kept(folder: Path) -> Mapping[str, Tensor]:
    path = folder / LEFT_OUT
    return open_safetensors(path).tensors if path.exists() else {}


def _restored_specs(
    plan: WeightPlan, found: Mapping[str, TensorSpec], folder: Path
) -> dict[str, TensorSpec]:
    """Return key -> spec of what the plan gives back of these MLX tensors; reads no values.

    Raises:
        StateDictError: the weights are not those the plan gives; all problems are listed.
    """
    problems = []
    specs: dict[str, TensorSpec] = {}
    aliases = plan.names()
    for entry in plan.entries:
        if missing := [name for name in entry.targets if name not in found]:
            problems += [f"missing     {name}" for name in missing]
            continue
        try:
            tensors = entry.invert(tuple(found[name].outline() for name in entry.targets))
        except ConversionError as error:
            if isinstance(error, PlanError):
                problems.append(f"misshapen   {', '.join(entry.targets)}: {error}")
            continue
        for key, tensor in zip(entry.sources, tensors, strict=True):
            got, expected = TensorSpec.of(tensor), plan.specs.get(key)
            if expected not in (None, got):
                names = ", ".join(entry.targets)
                problems.append(f"misshapen   {names}: gives {got} for {key}, not {expected}")
            specs |= dict.fromkeys(aliases[key], got)
    if problems:
        raise StateDictError.listing(
            f"{folder}: the weights do not fit the plan in {RECORD_FILE}:",
            problems,
            "Weights trained further keep their names, shapes and dtypes; these are others.",
        )
    return specs


def _trained_since(conversion: Conversion, weights: Checkpoint) -> dict[str, str]:
    """Return the keys that the model's own code computed and whose weights changed since, and why.

    Of what it computed the file's tensors are kept beside the weights. They are given back only as
    long as the weights are those that were made of them.
    """
    plan = conversion.plan
    return {
        key: f"computed, and trained since: {plan.computed[key]}"
        for entry in plan.entries
        for key in entry.sources
        if key in plan.computed
        and any(_differs(name, weights, conversion.digests) for name in entry.targets)
    }


def _trained_base(conversion: Conversion, weights: Checkpoint) -> Iterator[str]:
    """Yield the parameters of an adapter's base that are others than those that were written."""
    ours = set() if conversion.adapter is None else {*conversion.adapter.keys}
    for entry in conversion.plan.entries:
        if not ours.issuperset(entry.sources):
            yield from _others(entry, conversion, weights)


def _others(entry: Entry, conversion: Conversion, weights: Checkpoint) -> Iterator[str]:
    """Yield the targets of an entry that are others than those that were written."""
    digests = conversion.digests
    if not conversion.plan.moves(entry):
        yield from (name for name in entry.targets if _differs(name, weights, digests))
        return
    tensors = entry.invert(tuple(weights.tensors[name] for name in entry.targets))
    for key, tensor, name in zip(entry.sources, tensors, entry.targets, strict=True):
        found = digest_of(tensor)
        if digests.sources.get(key, found) != found:
            yield name


def _differs(name: str, weights: Checkpoint, digests: Digests) -> bool:
    """Tell whether a tensor is another than the one that was written, as far as is known."""
    expected = digests.targets.get(name)
    return expected is not None and digest_of(weights.tensors[name]) != expected


def _lost(
    plan: WeightPlan, found: Mapping[str, TensorSpec], kept: Mapping[str, Tensor]
) -> dict[str, str]:
    aliases = plan.names()
    lost = {
        name: why
        for entry, why in plan.irreversible(found)
        for key in entry.sources
        for name in aliases[key]
    }
    lost |= {
        key: f"it was left out ({why})"
        for key, why in plan.ignored.items()
        if key in plan.specs and key not in kept
    }
    read = plan.loading.read if plan.loading else {}
    return lost | {
        key: "it is no tensor, and the output folder holds tensors alone; the checkpoint has it"
        for key in read
        if key not in kept
    }


def _check_ties(plan: WeightPlan, weights: Mapping[str, Tensor], lost: Container[str]) -> None:
    """Check that what is one tensor in PyTorch and several in MLX still has one value."""
    uses = Counter(plan.ties.get(key, key) for entry in plan.entries for key in entry.sources)
    shared = {key for key, count in uses.items() if count > 1}
    found: dict[str, Tensor] = {}
    apart = []
    for entry in plan.entries:
        for position, key in enumerate(entry.sources):
            first = plan.ties.get(key, key)
            if key in lost or first not in shared:
                continue
            value = entry.invert(tuple(weights[name] for name in entry.targets))[position]
            if not same_bits(found.setdefault(first, value), value):
                apart.append(f"{first}: {', '.join(entry.targets)} differs")
    if apart:
        raise StateDictError.listing(
            "these are one tensor in PyTorch and several in MLX, which differ by now:",
            apart,
            "They were trained apart, so no value of the one tensor stands for both.",
        )


def _changed(plan: WeightPlan, changes: Callable[[Step], bool]) -> Iterator[str]:
    """Yield the keys whose values a step of a kind changed."""
    aliases = plan.names()
    for entry in plan.entries:
        if any(map(changes, entry.steps)):
            yield from (name for key in entry.sources for name in aliases[key])


def _narrowed(conversion: Conversion, weights: Checkpoint) -> Iterator[str]:
    """Yield the keys whose values were trained in a wider dtype than the checkpoint's."""
    names = conversion.plan.names()
    for entry in conversion.plan.entries:
        first = entry.steps[0] if entry.steps else None
        if not isinstance(first, Cast):
            continue
        dtypes = zip(entry.sources, first.source, first.target, strict=True)
        keys = [key for key, source, target in dtypes if not holds(source, target)]
        if keys and any(_others(entry, conversion, weights)):
            yield from (name for key in keys for name in names[key])


def _write(
    path: Path,
    plan: WeightPlan,
    weights: Checkpoint,
    others: Iterable[tuple[str, Tensor]],
    specs: Mapping[str, TensorSpec],
    instead: Container[str],
) -> None:
    """Write what the plan gives back of the weights, and other tensors besides or instead."""
    # what torch.save writes is in memory until the end, mapped or not
    reads = read_anew if path.suffix == ".safetensors" else released
    moved = reads(plan.invert(weights.tensors, partial=True), weights.mapped)
    theirs = (pair for pair in moved if pair[0] not in plan.computed and pair[0] not in instead)
    given = (pair for pair in chain(theirs, others) if pair[0] in specs)
    pairs = counted(_all_unchanged(given, weights), {k: spec.nbytes for k, spec in specs.items()})
    if path.suffix == ".safetensors":
        check = weights.check_whole
        write_safetensors(path, pairs, {"format": "pt"}, specs=specs, check=check)
        return
    from mlxport.converter.checkpoint.writing.torch_file import write_torch

    ties = {**plan.ties, **plan.aliases}
    ties = {key: other for key, other in ties.items() if key in specs}
    write_torch(path, pairs, ties, specs)


def _all_unchanged(
    pairs: Iterable[tuple[str, Tensor]], weights: Checkpoint
) -> Iterator[tuple[str, Tensor]]:
    """Yield named tensors, and fail at the end if their files were written to meanwhile."""
    yield from pairs
    weights.check_unchanged()
