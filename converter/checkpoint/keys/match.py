"""Match the keys of a checkpoint to the keys of a model: whole, or not at all.

Needs no torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlxport.converter.arguments import argument
from mlxport.converter.checkpoint.checkpoint import printable
from mlxport.converter.errors import ConversionError, StateDictError

Shapes = Mapping[str, tuple[int, ...]]

# Segments torch puts into names when it wraps a module, anywhere in them.
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# Counters that inference never reads: of BatchNorm, and of torch.optim.swa_utils.AveragedModel.
_COUNTERS = {"num_batches_tracked", "n_averaged"}
# torch's name for a weight norm's parts (weight_g, weight_v) since it is a parametrisation.
_WEIGHT_NORM = re.compile(r"(.*\.)?parametrizations\.(\w+)\.original([01])")
_MOST_PREFIXES = 8


@dataclass(frozen=True)
class _Sides:
    """Both sides' names without wrappers.

    Attributes:
        checkpoint: checkpoint key -> shape.
        model: model key -> shape.
        theirs: name -> checkpoint key.
        ours: name -> model key.
        ties: model key -> identity of its tensor.
        optional: model keys that may be missing.
    """

    checkpoint: Shapes
    model: Shapes
    theirs: dict[str, str]
    ours: dict[str, str]
    ties: Mapping[str, Hashable]
    optional: Container[str]


@dataclass(frozen=True)
class _Attempt:
    """How far the keys fit when ``strip`` is taken off the checkpoint's and ``add`` put on.

    Attributes:
        found: model key -> checkpoint key, of whatever shape.
        missing: model keys without one.
        unexpected: checkpoint keys left over.
        misshapen: model keys whose checkpoint key has another shape.
    """

    strip: str
    add: str
    found: dict[str, str]
    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]

    @property
    def problems(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.misshapen)


def match_keys(
    checkpoint: Shapes,
    model: Shapes,
    *,
    prefix: str | None = None,
    ties: Mapping[str, Hashable] | None = None,
    optional: Container[str] = (),
    hints: Sequence[str] = (),
) -> dict[str, str]:
    """Return model key -> checkpoint key.

    Keys fit as they are, or after one prefix is taken off all of them (``module.``, ``model.net.``;
    any that makes them fit), or put on. ``_orig_mod`` and the like, which torch adds, do not count.
    ``num_batches_tracked`` may be missing or left over; a missing one is not in the result. Shapes
    are those of `shape_fits`.

    Args:
        checkpoint: checkpoint key -> shape.
        model: model key -> shape.
        prefix: take the keys under this prefix alone and leave the others out.
        ties: model key -> identity of its tensor; of keys with the same one, one is enough.
        optional: model keys that may be missing.
        hints: what to say of the checkpoint where it does not fit.

    Raises:
        StateDictError: keys are missing or unexpected or shapes differ; all of them are listed.
    """
    dotted = f"{prefix}." if prefix and not prefix.endswith(".") else prefix or ""
    under = {key: shape for key, shape in checkpoint.items() if key.startswith(dotted)}
    theirs = _without_wrappers(under, dotted)
    sides = _Sides(under, model, theirs, _without_wrappers(model), ties or {}, optional)
    pairs = [("", "")] if prefix is not None else [("", ""), *_prefixes(sides)]
    attempts = [_attempt(sides, strip, add) for strip, add in pairs]
    for attempt in attempts:
        if not attempt.problems:
            return attempt.found
    raise _misfit(sides, attempts, hints)


def loads_as(shape: tuple[int, ...], given: tuple[int, ...]) -> bool:
    """Tell whether PyTorch loads a tensor of one shape into one of another.

    Before 0.4 it had no tensors without axes: a number had one axis, and is still taken so.

    Args:
        shape: the model's.
        given: the checkpoint's.
    """
    return shape == given or (shape, given) == ((), (1,))


def prefix_pairs(checkpoint: Collection[str], model: Collection[str]) -> list[tuple[str, str]]:
    """Return what may have to be taken off all keys of a checkpoint, or put on: the likely first.

    Args:
        checkpoint: the keys of a checkpoint.
        model: those of a model, of which some may have other names in the checkpoint.

    Returns:
        Pairs of a prefix to take off and one to put on, one of them empty.
    """
    fits: Counter[tuple[str, str]] = Counter()
    for longer, shorter, strips in ((checkpoint, model, True), (model, checkpoint, False)):
        for key in longer:
            dots = (place + 1 for place, letter in enumerate(key) if letter == ".")
            prefixes = (key[:end] for end in dots if key[end:] in shorter)
            fits.update((prefix, "") if strips else ("", prefix) for prefix in prefixes)
    return [pair for pair, _ in fits.most_common(_MOST_PREFIXES)]


def _without_wrappers(keys: Iterable[str], prefix: str = "") -> dict[str, str]:
    """Return name -> key; the keys themselves are the names where the short ones would clash."""
    full = {key[len(prefix) :]: key for key in keys}
    short = {}
    for name, key in full.items():
        *modules, last = name.split(".")
        short[".".join([*(part for part in modules if part not in _WRAPPERS), last])] = key
    return short if len(short) == len(full) else full


def _prefixes(sides: _Sides) -> list[tuple[str, str]]:
    """Return the prefixes worth an attempt, as (to strip, to add), the most promising first."""
    fits: Counter[tuple[str, str]] = Counter()
    for longer, shorter, strips in (
        (sides.theirs, sides.ours, True),
        (sides.ours, sides.theirs, False),
    ):
        names = [name for name in shorter if not is_counter(name)]
        # The longest name ends as few names of the other side as can be.
        ending = max(names, key=len, default="")
        for prefix in (k[: -len(ending)] for k in longer if ending and k.endswith(f".{ending}")):
            pair = (prefix, "") if strips else ("", prefix)
            fits[pair] = sum(prefix + name in longer for name in names)
    return [pair for pair, _ in fits.most_common(_MOST_PREFIXES)]


def _attempt(sides: _Sides, strip: str, add: str) -> _Attempt:
    theirs = {
        add + name.removeprefix(strip): key
        for name, key in sides.theirs.items()
        if name.startswith(strip)
    }
    direct = {key: _source(name, theirs) for name, key in sides.ours.items()}
    tied = {sides.ties[k]: source for k, source in direct.items() if source and k in sides.ties}
    sources = {k: source or tied.get(sides.ties.get(k)) for k, source in direct.items()}
    found = {k: source for k, source in sources.items() if source is not None}
    used = set(found.values())
    return _Attempt(
        strip,
        add,
        found,
        missing=[
            k for k in sources if k not in found and not is_counter(k) and k not in sides.optional
        ],
        unexpected=[k for k in sides.checkpoint if k not in used and not is_counter(k)],
        misshapen=[
            k
            for k, source in found.items()
            if not loads_as(sides.model[k], sides.checkpoint[source])
        ],
    )


def _source(name: str, theirs: Mapping[str, str]) -> str | None:
    """Return the checkpoint key for a model's name, or for the name it had before."""
    if name not in theirs and (part := _WEIGHT_NORM.fullmatch(name)):
        name = f"{part[1] or ''}{part[2]}_{'gv'[int(part[3])]}"
    return theirs.get(name)


def is_counter(key: str) -> bool:
    """Tell whether a key is that of a counter that inference never reads."""
    return key.rpartition(".")[2] in _COUNTERS


def _misfit(sides: _Sides, attempts: list[_Attempt], said: Sequence[str]) -> ConversionError:
    best = min(attempts, key=lambda a: (a.problems - len(a.found), a.strip, a.add))
    theirs, ours = sides.checkpoint, sides.model
    lines = [f"missing     {printable(k)} {ours[k]}" for k in best.missing]
    lines += [f"unexpected  {printable(k)} {theirs[k]}" for k in best.unexpected]
    lines += [
        f"misshapen   {printable(k)}: expected {ours[k]}, got {theirs[best.found[k]]}"
        for k in best.misshapen
    ]
    heading = (
        f"the checkpoint ({len(theirs)} keys) does not fit the model ({len(ours)} keys): "
        f"{len(best.missing)} missing, {len(best.unexpected)} unexpected, "
        f"{len(best.misshapen)} misshapen"
    )
    if best.strip or best.add:
        done = f"{best.strip!r} is taken off" if best.strip else f"{best.add!r} is put on"
        heading += f", when {done} the checkpoint's keys"
    hints = [*said, *_prefix_hints(attempts), *_drop_hint(best), *_rename_hint(best, sides)]
    if any(sorted(ours[k]) == sorted(theirs[best.found[k]]) for k in best.misshapen):
        hints.append("Some shapes differ in the order of axes alone: converted already?")
    return StateDictError.listing(heading, lines, "\n".join(hints))


def _prefix_hints(attempts: list[_Attempt]) -> list[str]:
    return [
        f"All keys of the model are there under {a.strip!r}: {argument('prefix', a.strip)} leaves "
        f"the {len(a.unexpected)} other keys out."
        for a in attempts
        if a.strip and not a.missing and not a.misshapen
    ]


def _drop_hint(best: _Attempt) -> list[str]:
    """Say how to leave out what is too much, where nothing else is wrong."""
    if not all(best.unexpected) or best.missing or best.misshapen or not best.unexpected:
        return []
    firsts = {key.partition(".")[0] for key in best.unexpected}
    kept = {key.partition(".")[0] for key in best.found.values()}
    names = best.unexpected if firsts & kept or len(best.unexpected) == 1 else sorted(firsts)
    them = "it" if len(best.unexpected) == 1 else "them"
    return [f"{argument('drop', list(names))} leaves {them} out."]


def _rename_hint(best: _Attempt, sides: _Sides) -> list[str]:
    """Name a missing and an unexpected key that could be one: same last part, same shape."""

    def by_kind(keys: list[str], shapes: Shapes) -> dict[tuple[str, tuple[int, ...]], list[str]]:
        kinds: dict[tuple[str, tuple[int, ...]], list[str]] = {}
        for key in keys:
            kinds.setdefault((key.rpartition(".")[2], shapes[key]), []).append(key)
        return kinds

    missing = by_kind(best.missing, sides.model)
    unexpected = by_kind(best.unexpected, sides.checkpoint)
    for kind, keys in missing.items():
        if len(keys) == len(unexpected.get(kind, [])) == 1:
            old, new = printable(unexpected[kind][0]), printable(keys[0])
            return [f"Renamed, perhaps: {old} has the shape that {new} should have."]
    return []
