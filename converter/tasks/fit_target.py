"""Match the tensors of a checkpoint to the parameters of an MLX model written by hand.

The model's layers say the layout. Needs torch only to read what ``torch.save`` wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.nn as nn

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import Checkpoint, printable
from mlxport.converter.checkpoint.keys.folds import Source, plain_sources
from mlxport.converter.checkpoint.keys.infer_layout import COUNTERS
from mlxport.converter.checkpoint.keys.joined import renamed_sources
from mlxport.converter.checkpoint.keys.kinds import recognised
from mlxport.converter.checkpoint.keys.loading import NO_LOADING_CODE
from mlxport.converter.checkpoint.keys.rename import ModuleNames
from mlxport.converter.errors import StateDictError
from mlxport.converter.plan.mlx_layouts import Slot, slots_of
from mlxport.converter.plan.steps import Concatenate, Split, folds
from mlxport.converter.plan.tensor import MLX_DTYPE, TensorSpec
from mlxport.converter.plan.weight_plan import Entry
from mlxport.converter.tasks.result import count_of


@dataclass(frozen=True)
class Loaded:
    """What was loaded into an MLX model, and what was not.

    Attributes:
        sources: parameter -> the keys of the checkpoint it was made from.
        by_structure: those of ``sources`` that were matched by shape, as no name fits.
        missing: parameters without a tensor; they are as they were.
        unexpected: keys without a parameter.
        misshapen: parameter -> what shape was expected and what came.
        unsettled: parameter -> why its layout or dtype is not known or not possible.
        notes: what was done on the way, one sentence each.
    """

    sources: Mapping[str, tuple[str, ...]]
    by_structure: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: Mapping[str, str] = field(default_factory=dict)
    unsettled: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        matched = f", {len(self.by_structure)} of them by structure" * bool(self.by_structure)
        loaded = count_of(len(self.sources), "parameter")
        return f"{loaded} loaded{matched}; {count_of(len(self.problems), 'problem')}"

    def __repr__(self) -> str:
        return f"<Loaded: {self}>"

    @property
    def problems(self) -> list[str]:
        """What did not fit, one line each."""
        return [
            *(f"missing     {name}" for name in self.missing),
            *(f"unexpected  {printable(key)}" for key in self.unexpected),
            *(f"misshapen   {name}: {why}" for name, why in self.misshapen.items()),
            *(f"unsettled   {name}: {why}" for name, why in self.unsettled.items()),
        ]


@dataclass(frozen=True)
class Fit:
    """How a checkpoint fits an MLX model.

    Attributes:
        result: what has its tensor and what does not.
        slots: name -> parameter of the model, in order.
        named: the name a tensor goes by -> what it is made from.
        matched: parameter -> name of its tensor, whether it fits or not.
        entries: parameter -> how it is made, of those that fit.
        hints: what is to be known of the checkpoint where it does not fit.
    """

    result: Loaded
    slots: Mapping[str, Slot]
    named: Mapping[str, Source]
    matched: Mapping[str, str]
    entries: Mapping[str, Entry]
    hints: tuple[str, ...] = ()

    def require(self, consequence: str) -> None:
        """Refuse what does not fit.

        Args:
            consequence: what became of it, for the message.

        Raises:
            StateDictError: all of it is listed.
        """
        if self.result.problems:
            raise StateDictError.listing(
                f"the checkpoint ({len(self.named)} tensors) does not fit the MLX model "
                f"({len(self.slots)} parameters):",
                self.result.problems,
                "\n".join([consequence, *self.hints, *_advice(self.result)]),
            )


def fit_target(
    model: nn.Module, checkpoint: Checkpoint, rename: ModuleNames, prefix: str | None = None
) -> Fit:
    """Match a checkpoint to an MLX model: by names, by ``rename``, then by structure."""
    slots = list(slots_of(model))
    sources, notes = _sources(checkpoint, model, slots, rename, prefix)
    matched, by_structure = _match(slots, sources)
    result = _judge(slots, sources, matched, by_structure)
    notes = [*checkpoint.notes, *notes, *_structure_notes(result), NO_LOADING_CODE]
    by_name = {slot.name: slot for slot in slots}
    result, entries = _entries(result, by_name, sources, matched)
    result = replace(result, notes=tuple(notes))
    return Fit(result, by_name, sources, matched, entries, recognised(checkpoint))


def _entries(
    result: Loaded,
    slots: Mapping[str, Slot],
    sources: Mapping[str, Source],
    matched: Mapping[str, str],
) -> tuple[Loaded, dict[str, Entry]]:
    """Return parameter -> how it is made; what is split goes to all of its parameters or none."""
    targets = {source: parameter for parameter, source in matched.items()}
    entries: dict[str, Entry] = {}
    unsettled = dict(result.unsettled)
    for name in result.sources:
        source = sources[matched[name]]
        names = tuple(targets.get(part, "") for part in source.parts) or (name,)
        layouts = {slots[one].steps or () for one in names if one in result.sources}
        others = ", ".join(part for part in source.parts if part != matched[name])
        if len(layouts) > 1:
            unsettled[name] = f"split from one tensor with {others}, in layers of other layouts"
        elif any(one not in result.sources for one in names):
            unsettled[name] = f"{', '.join(source.keys)} is split: {others} must fit, as it does"
        else:
            entries[name] = Entry(source.keys, names, (*source.steps, *layouts.pop()))
    loaded = {name: keys for name, keys in result.sources.items() if name in entries}
    return replace(result, sources=loaded, unsettled=unsettled), entries


def _sources(
    checkpoint: Checkpoint,
    model: nn.Module,
    slots: list[Slot],
    rename: ModuleNames,
    prefix: str | None,
) -> tuple[dict[str, Source], list[str]]:
    """Return the name a tensor goes by -> what it is made from."""
    dotted = f"{prefix}." if prefix and not prefix.endswith(".") else prefix or ""
    specs = {
        key: TensorSpec.of(tensor)
        for key, tensor in checkpoint.tensors.items()
        if key.startswith(dotted)
    }
    if prefix is not None and not specs:
        raise StateDictError(f"no key of the checkpoint begins with {dotted!r}")
    plain = plain_sources(specs)
    named = {name.removeprefix(dotted): source for name, source in plain.items()}
    notes = []
    if prefix is None and (common := _common_prefix(named, slots)):
        named = {name.removeprefix(common): source for name, source in named.items()}
        notes.append(f"{common!r} was taken off the names of the checkpoint")
    if rename:
        named = renamed_sources(named, rename, model, slots)
        notes += [
            f"{', '.join(source.keys)} became {name}: joined or split along axis {step.axis}"
            for name, source in named.items()
            for step in source.steps
            if isinstance(step, (Concatenate, Split))
        ]
    folded = [name for name, source in named.items() if any(map(folds, source.steps))]
    if folded:
        notes.append(f"a norm was folded into {', '.join(folded)}")
    return named, notes


def _common_prefix(named: Mapping[str, Source], slots: list[Slot]) -> str:
    """Return what stands before all names, where without it every parameter has its tensor."""
    wanted = {slot.torch for slot in slots}
    if not wanted or wanted <= named.keys():
        return ""
    longest = max(wanted, key=len)
    for name in named:
        start = name[: -len(longest)]
        fits = name.endswith(f".{longest}") and all(key.startswith(start) for key in named)
        if fits and all(start + one in named for one in wanted):
            return start
    return ""


def _match(slots: list[Slot], sources: Mapping[str, Source]) -> tuple[dict[str, str], list[str]]:
    """Return parameter -> name of its source, and which were matched by structure."""
    matched = {}
    for slot in slots:
        name = slot.name if slot.name in sources else slot.torch
        if name in sources and not slot.reason:
            matched[slot.name] = name
    taken = set(matched.values())
    open_slots = [slot for slot in slots if slot.name not in matched and not slot.reason]
    left = [name for name in sources if name not in taken and not _is_counter(name)]
    found = dict(_by_structure(open_slots, left, sources))
    return matched | found, list(found)


def _by_structure(
    slots: list[Slot], left: list[str], sources: Mapping[str, Source]
) -> Iterator[tuple[str, str]]:
    """Yield pairs of whole layers that only fit each other: same parameter names, same shapes."""
    ours: dict[str, dict[str, Any]] = {}
    theirs: dict[str, dict[str, Any]] = {}
    for slot in slots:
        last = slot.name.removeprefix(slot.group).lstrip(".")
        ours.setdefault(slot.group, {})[last] = (slot.wanted, slot.name)
    for name in left:
        group, _, last = name.rpartition(".")
        theirs.setdefault(group, {})[last] = (sources[name].spec.shape, name)

    def by_signature(groups: Mapping[str, Mapping[str, Any]]) -> dict[Any, list[Any]]:
        found: dict[Any, list[Any]] = {}
        for content in groups.values():
            signature = frozenset((last, shape) for last, (shape, _) in content.items())
            found.setdefault(signature, []).append(content)
        return found

    candidates = by_signature(theirs)
    for signature, mine in by_signature(ours).items():
        others = candidates.get(signature, [])
        if len(mine) == len(others) == 1:
            for last, (_, slot) in mine[0].items():
                yield slot, others[0][last][1]


def _judge(
    slots: list[Slot],
    sources: Mapping[str, Source],
    matched: Mapping[str, str],
    by_structure: list[str],
) -> Loaded:
    fits: dict[str, tuple[str, ...]] = {}
    misshapen, unsettled = {}, {}
    for slot in slots:
        if slot.reason:
            unsettled[slot.name] = slot.reason
        elif slot.name in matched:
            source = sources[matched[slot.name]]
            problem = _misfit(slot, source.spec.shape)
            if problem:
                misshapen[slot.name] = problem
            elif problem := _undecided(slot, source.spec):
                unsettled[slot.name] = problem
            else:
                fits[slot.name] = source.keys
    used = set(matched.values())
    missing = [s.name for s in slots if s.name not in matched and s.name not in unsettled]
    unexpected = [
        key
        for name, source in sources.items()
        if name not in used and not _is_counter(name)
        for key in source.keys
    ]
    structural = tuple(name for name in by_structure if name in fits)
    return Loaded(
        fits,
        structural,
        tuple(name for name in missing if not _is_counter(name)),
        tuple(unexpected),
        misshapen,
        unsettled,
    )


def _misfit(slot: Slot, shape: tuple[int, ...]) -> str:
    wanted = slot.wanted if slot.wanted is not None else slot.shape
    if shape == wanted:
        return ""
    hint = " (MLX's own order of axes: converted already?)" if shape == slot.shape else ""
    return f"expected {wanted}, got {shape}{hint}"


def _undecided(slot: Slot, spec: TensorSpec) -> str:
    """Return why a tensor of the right shape cannot be taken as it is; empty where it can."""
    if spec.dtype not in MLX_DTYPE and spec.dtype != "F64":
        return f"MLX has no counterpart of {spec.dtype}: cast the checkpoint first"
    sizes = [size for size in slot.shape if size > 1]
    if slot.steps is None and len(set(sizes)) < len(sizes):
        return (
            f"shape {slot.shape} fits in more than one order of axes, and the layer that holds it "
            "is none mlxport knows: make it a layer of mlx.nn or mlxport.layers, or set it by hand"
        )
    return ""


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] in COUNTERS


def _structure_notes(result: Loaded) -> Iterator[str]:
    for name in result.by_structure:
        yield f"{name} was matched by its layer's shapes to {', '.join(result.sources[name])}"


def _advice(result: Loaded) -> Iterator[str]:
    if result.missing and result.unexpected:
        yield (
            f"Layers of other names: {argument('rename', {'old.*.conv': 'new.*.0'})} maps the "
            "checkpoint's to the model's."
        )
    elif result.unexpected and not (result.missing or result.misshapen or result.unsettled):
        yield f"{argument('drop', list(result.unexpected))} leaves out what is too much."
