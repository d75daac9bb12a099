"""Give back what a conversion folded: as it was, or as what folds into the trained weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from mlxport.converter.plan.fold_steps import FoldWeightNorm
from mlxport.converter.plan.steps import folds
from mlxport.converter.plan.tensor import Tensor, TensorSpec
from mlxport.converter.plan.weight_plan import Entry, WeightPlan


@dataclass
class Folded:
    """What becomes of the tensors that a plan folds, when it is run backwards.

    Attributes:
        plan: the plan.
        unchanged: keys whose tensors were kept and whose weights are as they were folded.
        equivalent: entries whose weight was trained, or whose tensors were not kept, and which a
            magnitude and a direction of that weight stand for.
        lost: key -> why neither can be.
    """

    plan: WeightPlan
    unchanged: set[str] = field(default_factory=set)
    equivalent: list[Entry] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, plan: WeightPlan, kept: Mapping[str, Tensor], changed: Callable[[str], bool]
    ) -> Folded:
        """Sort the entries of a plan that fold.

        Args:
            plan: the plan.
            kept: the tensors that were kept of the checkpoint.
            changed: whether a target is another than the one that was written.
        """
        found = cls(plan)
        names = plan.names()
        for entry in plan.entries:
            if not any(map(folds, entry.steps)):
                continue
            computed = any(key in plan.computed for key in entry.sources)
            whole = all(key in kept for key in entry.sources)
            if whole and not any(map(changed, entry.targets)):
                found.unchanged.update(name for key in entry.sources for name in names[key])
            elif (
                isinstance(entry.steps[0], FoldWeightNorm)
                and entry.sources[0] in plan.specs
                and not computed
            ):
                found.equivalent.append(entry)
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

    def specs(self) -> dict[str, TensorSpec]:
        """Return key -> spec of the equivalents, under all their names."""
        names = self.plan.names()
        keys = dict.fromkeys(key for entry in self.equivalent for key in entry.sources)
        return {name: self.plan.specs[key] for key in keys for name in names[key]}

    def under_all_names(self, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors of a checkpoint with those that have several names under each."""
        names = self.plan.names()
        return {name: tensor for key, tensor in kept.items() for name in names.get(key, [key])}

    def tensors(self, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yield the equivalents, under all their names.

        Args:
            weights: the MLX parameters.
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
