"""Fit a weight plan to one checkpoint: its keys, its dtypes, and the tensors left out.

Needs no torch.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace

from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.plan.steps import Cast, Reshape
from mlxport.converter.plan.tensor import Tensor, TensorSpec, is_float
from mlxport.converter.plan.weight_plan import Entry, WeightPlan

# dtypes the user may ask for -> safetensors name
FLOATS = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
OUTSIDE = "not under the prefix that was asked for"
_DROPPED = "dropped, as was asked"
_SURPLUS = "the model has no such tensor and needs none"


def bind(
    plan: WeightPlan,
    keys: Mapping[str, str],
    checkpoint: Checkpoint,
    *,
    prefix: str | None = None,
    computed: Container[str] = (),
) -> WeightPlan:
    """Return the plan that makes the same MLX parameters of a checkpoint's tensors.

    Where the checkpoint's dtype is not the one the plan computes with, the entry begins with a
    cast. What has one axis of one value there, and none in the plan, loses it. Keys the plan does
    not speak of are ignored, with the reason.

    Args:
        plan: its ``specs`` give the dtypes of its sources.
        keys: source key of the plan -> key of the checkpoint.
        checkpoint: the weights.
        prefix: the part of the checkpoint's keys that was asked for.
        computed: keys whose value is none of the checkpoint's, but as ``plan`` expects it.
    """
    bound = plan.renamed(keys)
    specs = dict(checkpoint.specs)
    specs |= {key: spec for key, spec in bound.specs.items() if key in computed}
    known = set(bound.names()) | set(bound.ignored) | set(bound.aliases)
    surplus = {
        key: _SURPLUS if key.startswith(prefix or "") else OUTSIDE
        for key in specs
        if key not in known
    }
    numbers = {key for old, key in keys.items() if _is_number(plan.specs.get(old), specs.get(key))}
    return replace(
        bound,
        entries=tuple(
            _cast(old, _without_axis(new, numbers), plan.specs, specs)
            for old, new in zip(plan.entries, bound.entries, strict=True)
        ),
        ignored={**bound.ignored, **surplus},
        specs=specs,
    )


def _is_number(expected: TensorSpec | None, given: TensorSpec | None) -> bool:
    return expected is not None and given is not None and (expected.shape, given.shape) == _AXIS


_AXIS: tuple[tuple[int, ...], tuple[int, ...]] = ((), (1,))
_WITHOUT_AXIS = Reshape((1,), ())


def _without_axis(entry: Entry, numbers: Container[str]) -> Entry:
    if not any(key in numbers for key in entry.sources):
        return entry
    if len(entry.sources) > 1:
        raise AssertionError(f"an entry of several tensors takes a number: {entry}")
    cast = [step for step in entry.steps[:1] if isinstance(step, Cast)]
    return replace(entry, steps=(*cast, _WITHOUT_AXIS, *entry.steps[len(cast) :]))


def as_the_model_has_them(plan: WeightPlan) -> WeightPlan:
    """Return a plan that expects numbers without axes where a checkpoint had them with one.

    What is left out may be such a number too, or really have one axis: either form will do.

    Args:
        plan: as it was recorded for that checkpoint.
    """
    numbers = {
        key for entry in plan.entries if _WITHOUT_AXIS in entry.steps for key in entry.sources
    }
    numbers |= {alias for alias, key in {**plan.aliases, **plan.ties}.items() if key in numbers}
    numbers |= {key for key in plan.ignored if key in plan.specs and plan.specs[key].shape == (1,)}
    entries = (
        replace(entry, steps=tuple(step for step in entry.steps if step != _WITHOUT_AXIS))
        if _WITHOUT_AXIS in entry.steps
        else entry
        for entry in plan.entries
    )
    specs = {k: spec._replace(shape=()) if k in numbers else spec for k, spec in plan.specs.items()}
    return replace(plan, entries=tuple(entries), specs=specs)


def left_out(
    plan: WeightPlan, checkpoint: Checkpoint, original_keys: Mapping[str, str] | None = None
) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint that no target holds, but for those not asked for.

    That is those of which no target is made, and those that are folded into one.

    Args:
        plan: says which.
        checkpoint: the weights.
        original_keys: key -> the name they are to have, where it is another.
    """
    ignored = {
        (original_keys or {}).get(key, key): checkpoint.tensors[key]
        for key, reason in {**plan.ignored, **plan.folded, **plan.computed}.items()
        if reason != OUTSIDE and key in checkpoint.tensors
    }
    return {**ignored, **checkpoint.dropped}


def recorded(
    plan: WeightPlan, checkpoint: Checkpoint, original_keys: Mapping[str, str]
) -> WeightPlan:
    """Return a plan as it is recorded: by the keys in the file, with those that were dropped.

    Args:
        plan: bound to the checkpoint.
        checkpoint: the weights.
        original_keys: key of ``checkpoint`` -> that in the file, where keys were renamed.
    """
    plan = plan.renamed(original_keys)
    if not checkpoint.dropped:
        return plan
    specs = {**plan.specs, **{k: TensorSpec.of(t) for k, t in checkpoint.dropped.items()}}
    ordered = {key: specs[key] for key in checkpoint.order if key in specs}
    ignored = {**plan.ignored, **dict.fromkeys(checkpoint.dropped, _DROPPED)}
    return replace(plan, ignored=ignored, specs={**ordered, **specs})


def cast_floats(plan: WeightPlan, dtype: str) -> WeightPlan:
    """Return the plan with all floating-point sources cast before anything else is done.

    Args:
        plan: its ``specs`` give the dtypes of its sources.
        dtype: ``"float16"``, ``"bfloat16"`` or ``"float32"``.
    """

    def recast(entry: Entry) -> Entry:
        source = tuple(plan.specs[key].dtype for key in entry.sources)
        target = tuple(FLOATS[dtype] if is_float(one) else one for one in source)
        return entry if source == target else _preceded(entry, Cast(source, target))

    return replace(plan, entries=tuple(map(recast, plan.entries)))


def decode_float8(plan: WeightPlan) -> tuple[WeightPlan, list[str]]:
    """Return the plan with float8 sources decoded to bfloat16, which holds all their values.

    MLX has no float8 dtypes; its loaders would take the bits for integers.

    Args:
        plan: its ``specs`` give the dtypes of its sources.

    Returns:
        The plan, and the sources that are decoded; those it casts already are not among them.
    """
    decoded: list[str] = []

    def decode(entry: Entry) -> Entry:
        source = computed_dtypes(entry, plan.specs)
        target = tuple("BF16" if one.startswith("F8") else one for one in source)
        if source == target:
            return entry
        decoded.extend(
            key for key, one in zip(entry.sources, source, strict=True) if one[:2] == "F8"
        )
        return _preceded(entry, Cast(source, target))

    return replace(plan, entries=tuple(map(decode, plan.entries))), decoded


def computed_dtypes(entry: Entry, specs: Mapping[str, TensorSpec]) -> tuple[str, ...]:
    """Return the dtypes in which an entry's steps take its sources, after any cast."""
    first = entry.steps[0] if entry.steps else None
    if isinstance(first, Cast):
        return first.target
    return tuple(specs[key].dtype if key in specs else "" for key in entry.sources)


def _cast(
    old: Entry,
    new: Entry,
    expected: Mapping[str, TensorSpec],
    given: Mapping[str, TensorSpec],
) -> Entry:
    target = computed_dtypes(old, expected)
    source = tuple(
        given[key].dtype if key in given and dtype else dtype
        for key, dtype in zip(new.sources, target, strict=True)
    )
    plain = _preceded(new)
    return plain if source == target else _preceded(plain, Cast(source, target))


def _preceded(entry: Entry, *first: Cast) -> Entry:
    """Return the entry with another cast, or none, before its steps."""
    steps = entry.steps[1:] if entry.steps and isinstance(entry.steps[0], Cast) else entry.steps
    steps = (*first, *steps)
    return entry if steps == entry.steps else replace(entry, steps=steps)
