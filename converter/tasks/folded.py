"""Give back what a conversion folded: as it was, or as what folds into the trained weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mlxport.converter.plan.fold_steps import AddScaled, FoldWeightNorm, MergeLowRank
from mlxport.converter.plan.steps import Cast, Step, folds
from mlxport.converter.plan.tensor import Tensor, TensorSpec, cast
from mlxport.converter.plan.weight_plan import Entry, WeightPlan


@dataclass
class Folded:
    """What becomes of the tensors that a plan folds, when it is run backwards.

    Attributes:
        plan: the plan.
        unchanged: keys whose tensors were kept and whose weights are as they were folded.
        equivalent: entries whose weight was trained, or whose tensors were not kept, and which a
            magnitude and a direction of that weight stand for.
        merged: entries whose weight was trained and that an adapter was merged into, which was
            kept: the weight without it stands for its base.
        lost: key -> why neither can be.
    """

    plan: WeightPlan
    unchanged: set[str] = field(default_factory=set)
    equivalent: list[Entry] = field(default_factory=list)
    merged: list[Entry] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, plan: WeightPlan, kept: Mapping[str, Tensor], changed: Callable[[Entry], bool]
    ) -> Folded:
        """Sort the entries of a plan that fold.

        Args:
            plan: the plan.
            kept: the tensors that were kept of the checkpoint.
            changed: whether the targets of an entry are others than those that were written.
        """
        found = cls(plan)
        names = plan.names()
        for entry in plan.entries:
            if not any(map(folds, entry.steps)):
                continue
            computed = any(key in plan.computed for key in entry.sources)
            whole = all(key in kept for key in entry.sources)
            others = found._sharing(entry)
            if whole and not any(map(changed, (entry, *others))):
                found.unchanged.update(name for key in entry.sources for name in names[key])
            elif (
                isinstance(entry.steps[0], FoldWeightNorm)
                and entry.sources[0] in plan.specs
                and not computed
            ):
                found.equivalent.append(entry)
            elif whole and not computed and not others and _is_merged_alone(entry):
                found.merged.append(entry)
                found.unchanged.update(n for key in entry.sources[1:] for n in names[key])
            else:
                why = "which was trained since" if whole else "and not kept"
                why = f"folded into {', '.join(entry.targets)}, {why}"
                found.lost |= {name: why for key in entry.sources for name in names[key]}
        found.lost = {key: why for key, why in found.lost.items() if key not in plan.computed}
        found.unchanged -= {*found.keys, *found.lost}
        return found

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that equivalents are given for, under all their names."""
        return tuple(self.specs())

    @property
    def normed(self) -> tuple[str, ...]:
        """Those of them that are magnitudes and directions."""
        return self._all_names(key for entry in self.equivalent for key in entry.sources)

    @property
    def unmerged(self) -> tuple[str, ...]:
        """Those of them that are bases of a merged adapter."""
        return self._all_names(entry.sources[0] for entry in self.merged)

    def _sharing(self, entry: Entry) -> list[Entry]:
        """Return the other entries that use a tensor of an entry, under any name."""
        ties = self.plan.ties

        def first_names(one: Entry) -> set[str]:
            return {ties.get(key, key) for key in one.sources}

        names = first_names(entry)
        return [one for one in self.plan.entries if one is not entry and names & first_names(one)]

    def _all_names(self, keys: Iterable[str]) -> tuple[str, ...]:
        names = self.plan.names()
        return tuple(name for key in dict.fromkeys(keys) for name in names[key])

    def specs(self) -> dict[str, TensorSpec]:
        """Return key -> spec of the equivalents, under all their names."""
        first = {name: key for key, names in self.plan.names().items() for name in names}
        return {name: self.plan.specs[first[name]] for name in (*self.normed, *self.unmerged)}

    def under_all_names(self, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors of a checkpoint with those that have several names under each."""
        names = self.plan.names()
        return {name: tensor for key, tensor in kept.items() for name in names.get(key, [key])}

    def tensors(
        self, weights: Mapping[str, Tensor], kept: Mapping[str, Tensor]
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the equivalents, under all their names.

        Args:
            weights: the MLX parameters.
            kept: the tensors that were kept of the checkpoint and the adapter.
        """
        waiting = self.plan.names()
        for entry in self.equivalent:
            fold, *rest = entry.steps
            tensors = tuple(weights[name] for name in entry.targets)
            for step in reversed(rest):
                tensors = step.invert(tensors)
            assert isinstance(fold, FoldWeightNorm)
            pair = fold.equivalent(tensors[0], self.plan.specs[entry.sources[0]])
            for key, tensor in zip(entry.sources, pair, strict=True):
                yield from ((name, tensor) for name in waiting.pop(key, ()))
        for entry in self.merged:
            base, *adapter = entry.sources
            value = _without_adapter(
                entry,
                tuple(weights[name] for name in entry.targets),
                [kept[key] for key in adapter],
                self.plan.specs[base],
            )
            yield from ((name, value) for name in waiting.pop(base, ()))


def _merge_of(entry: Entry) -> tuple[Cast | None, Step, tuple[Step, ...]]:
    """Return the cast before an entry's first step, if there is one, that step, and the others."""
    first, *rest = entry.steps
    if isinstance(first, Cast) and rest:
        return first, rest[0], tuple(rest[1:])
    return None, first, tuple(rest)


def _is_merged_alone(entry: Entry) -> bool:
    """Tell whether an adapter was merged into a tensor, and nothing folded into it afterwards."""
    _, merge, rest = _merge_of(entry)
    return isinstance(merge, (MergeLowRank, AddScaled)) and not any(map(folds, rest))


def _without_adapter(
    entry: Entry, tensors: tuple[Tensor, ...], adapter: Sequence[Tensor], base: TensorSpec
) -> Tensor:
    """Return the base that an adapter makes the trained tensor of."""
    before, merge, rest = _merge_of(entry)
    assert isinstance(merge, (MergeLowRank, AddScaled))
    for step in reversed(rest):
        tensors = step.invert(tensors)
    if before is not None:
        adapter = [cast(t, d) for t, d in zip(adapter, before.target[1:], strict=True)]
    return merge.without((tensors[0], *adapter), base.dtype)
