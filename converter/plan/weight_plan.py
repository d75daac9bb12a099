"""The weight plan: what happens to every tensor of a checkpoint, as data.

Rules and handlers only make plans; this one engine applies them, forwards or backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlxport.converter.arguments import argument
from mlxport.converter.errors import ConversionError, PlanError, StateDictError
from mlxport.converter.expected import Expected, check_values, expectation
from mlxport.converter.plan.json_data import from_data, to_data
from mlxport.converter.plan.loading import Loading
from mlxport.converter.plan.step import BaseStep
from mlxport.converter.plan.steps import Step, folds, rearranges
from mlxport.converter.plan.tensor import Tensor, TensorSpec

# What numpy and MLX raise of an axis, a size or a number of tensors that cannot be.
_MISFITS = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError)


def _are_steps(value: Any) -> bool:
    return isinstance(value, tuple) and all(
        callable(getattr(one, "apply", None)) and callable(getattr(one, "invert", None))
        for one in value
    )


_EXPECTED = {
    "sources": expectation("tuple[str, ...]"),
    "targets": expectation("tuple[str, ...]"),
    "steps": Expected("a tuple of steps", _are_steps),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """How some source tensors become some target tensors.

    Attributes:
        sources: keys in the PyTorch state dict, in the order the first step takes them.
        targets: parameter names in the MLX model, in the order the last step gives them.
        steps: what is done in between; none means the bits are kept as they are.

    Raises:
        OptionsError: one of them is something else.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        given = {"sources": self.sources, "targets": self.targets, "steps": self.steps}
        check_values(given, _EXPECTED)

    def __str__(self) -> str:
        line = f"{', '.join(self.targets)} <- {', '.join(self.sources)}"
        return f"{line}: {', '.join(map(str, self.steps))}" if self.steps else line

    def renamed(self, source: Callable[[str], str], target: Callable[[str], str]) -> Entry:
        """Return the entry with its names mapped."""
        sources, targets = tuple(map(source, self.sources)), tuple(map(target, self.targets))
        if sources == self.sources and targets == self.targets:
            return self
        return Entry(sources, targets, self.steps)

    def apply(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run the steps forwards on the source tensors."""
        for step in self.steps:
            try:
                tensors = step.apply(tensors)
            except _MISFITS as error:
                raise self._misfit(step, tensors, error) from error
        return self._counted(tensors, self.targets)

    def invert(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run the steps backwards on the target tensors."""
        for step in reversed(self.steps):
            try:
                tensors = step.invert(tensors)
            except _MISFITS as error:
                raise self._misfit(step, tensors, error) from error
        return self._counted(tensors, self.sources)

    def _misfit(self, step: Step, tensors: tuple[Tensor, ...], error: Exception) -> PlanError:
        """Return the error that names a step which cannot be done, and its tensors."""
        given = ", ".join(map(str, tensors)) or "no tensor"
        why = " ".join(str(error).split()) or type(error).__name__
        return PlanError(
            f"the plan's step {step} for {', '.join(self.targets)} does not fit {given}: {why}"
        )

    def _counted(self, tensors: tuple[Tensor, ...], names: tuple[str, ...]) -> tuple[Tensor, ...]:
        if len(tensors) != len(names):
            raise PlanError(
                f"the plan for {', '.join(self.targets)} gives {len(tensors)} tensors "
                f"for {len(names)} names ({', '.join(names)}); the plan is damaged"
            )
        return tensors


_PARTS = ("entries", "constants", "aliases", "ties", "ignored")


@dataclass(frozen=True)
class WeightPlan:
    """What happens to every tensor: entries for those converted, reasons for those left out.

    Attributes:
        entries: in the order of the target parameters.
        ignored: source key -> why it has no target.
        aliases: source key -> the source key of the same tensor that an entry uses.
        constants: target -> why its value comes with the model and not from a checkpoint.
        specs: source key -> dtype and shape in the checkpoint the plan fits, in its order; empty
            for the plan of a single layer.
        ties: source key -> the first key of the same tensor, where entries use both: PyTorch has
            one tensor there and MLX has several.
        loading: what the model's own code does to a checkpoint before the plan's sources are what
            they are; None where it has none.
        derived: name of a tensor that the model keeps in no state dict -> the source keys it was
            computed of before the conversion: with other weights it would be another.
    """

    entries: tuple[Entry, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    specs: Mapping[str, TensorSpec] = field(default_factory=dict)
    ties: Mapping[str, str] = field(default_factory=dict)
    loading: Loading | None = None
    derived: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        parts = {name: len(getattr(self, name)) for name in _PARTS}
        return f"WeightPlan({', '.join(f'{n} {name}' for name, n in parts.items() if n)})"

    def __str__(self) -> str:
        lines = [
            *map(str, self.entries),
            *(f"{target} is a constant: {why}" for target, why in self.constants.items()),
            *(f"{key} is {other}" for key, other in (*self.aliases.items(), *self.ties.items())),
            *(f"{key} is left out: {why}" for key, why in self.ignored.items()),
            *(f"{key} is computed: {why}" for key, why in self.computed.items()),
            *(f"{name} was computed of {', '.join(of)}" for name, of in self.derived.items()),
        ]
        return "\n".join(lines)

    @property
    def computed(self) -> Mapping[str, str]:
        """Source key -> why its value is none of the checkpoint's; see `Loading`."""
        return self.loading.computed if self.loading else {}

    def contradictions(self) -> Iterator[str]:
        """Yield what no plan can say, one line each with its field as in a record."""
        sources = {key for entry in self.entries for key in entry.sources}
        targets = set(self.constants)
        for place, entry in enumerate(self.entries):
            if not entry.targets or not entry.sources:
                yield f"plan.entries[{place}]: it has no sources or no targets"
            if twice := [name for name in entry.targets if name in targets]:
                yield f"plan.entries[{place}].targets: {', '.join(twice)} stands there twice"
            targets.update(entry.targets)
            if self.specs and (unknown := [k for k in entry.sources if k not in self.specs]):
                yield f"plan.entries[{place}].sources: plan.specs has no {', '.join(unknown)}"
        for name, keys in (("aliases", self.aliases), ("ties", self.ties)):
            for key, other in keys.items():
                if other not in sources:
                    yield f"plan.{name}[{key!r}]: {other!r} is the source of no entry"

    def moves(self, entry: Entry) -> bool:
        """Tell whether an entry gives the checkpoint's values as they are, in another order."""
        computed = any(key in self.computed for key in entry.sources)
        return all(map(rearranges, entry.steps)) and not computed

    @property
    def folded(self) -> Mapping[str, str]:
        """Source key -> the target it was folded into, with others."""
        return {
            key: ", ".join(entry.targets)
            for entry in self.entries
            if any(map(folds, entry.steps))
            for key in entry.sources
        }

    def renamed(self, keys: Mapping[str, str]) -> WeightPlan:
        """Return the plan with other source keys (a model's names mapped to a checkpoint's)."""

        def rename(key: str) -> str:
            return keys.get(key, key)

        return WeightPlan(
            tuple(entry.renamed(rename, str) for entry in self.entries),
            {rename(key): reason for key, reason in self.ignored.items()},
            {rename(a): rename(key) for a, key in self.aliases.items() if rename(a) != rename(key)},
            dict(self.constants),
            {rename(key): spec for key, spec in self.specs.items()},
            {rename(a): rename(key) for a, key in self.ties.items() if rename(a) != rename(key)},
            None if self.loading is None else self.loading.renamed(rename),
            {name: tuple(map(rename, keys)) for name, keys in self.derived.items()},
        )

    def apply(self, source: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yield ``(target, tensor)`` for every target, in order, one entry at a time.

        Raises:
            StateDictError: source keys are missing or unexpected; all of them are listed.
        """
        self.check_keys(source)
        for entry in self.entries:
            converted = entry.apply(tuple(source[key] for key in entry.sources))
            yield from zip(entry.targets, converted, strict=True)

    def invert(
        self, target: Mapping[str, Tensor], *, partial: bool = False
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield ``(source key, tensor)`` for every key an entry uses and its aliases, one by one.

        Args:
            target: the MLX parameters.
            partial: leave out what cannot be run backwards, instead of raising.

        Raises:
            ConversionError: entries cannot be run backwards; all of them are listed.
        """
        lost = self.irreversible({name: TensorSpec.of(tensor) for name, tensor in target.items()})
        if lost and not partial:
            raise ConversionError.listing(
                "these PyTorch tensors cannot be restored:",
                (f"{', '.join(entry.sources)}: {why}" for entry, why in lost),
            )
        left_out = {entry.targets for entry, _ in lost}
        waiting = self.names()
        for entry in self.entries:
            if entry.targets in left_out:
                continue
            tensors = entry.invert(tuple(target[name] for name in entry.targets))
            for key, tensor in zip(entry.sources, tensors, strict=True):
                # a key that several entries use comes once
                yield from ((name, tensor) for name in waiting.pop(key, ()))

    def irreversible(self, target: Mapping[str, TensorSpec]) -> list[tuple[Entry, str]]:
        """Return the entries that cannot be run backwards, and why; looks at no values."""
        lost = []
        for entry in self.entries:
            try:
                entry.invert(tuple(target[name].outline() for name in entry.targets))
            except PlanError:
                raise
            except ConversionError as error:
                lost.append((entry, str(error)))
        return lost

    def names(self) -> dict[str, list[str]]:
        """Return used source key -> all keys of that tensor, itself first."""
        names = {key: [key] for entry in self.entries for key in entry.sources}
        for alias, key in self.aliases.items():
            names[key].append(alias)
        return names

    def target_specs(self, source: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
        """Return target -> spec of what ``apply`` will yield, in its order; reads no values."""
        specs: dict[str, TensorSpec] = {}
        known: dict[Any, tuple[TensorSpec, ...]] = {}  # many layers are alike
        for entry in self.entries:
            given = tuple(source[key] for key in entry.sources)
            is_data = all(isinstance(step, BaseStep) for step in entry.steps)
            kind = (entry.steps, given, len(entry.targets)) if is_data else entry.targets
            if kind not in known:
                outlines = tuple(spec.outline() for spec in given)
                known[kind] = tuple(map(TensorSpec.of, entry.apply(outlines)))
            specs.update(zip(entry.targets, known[kind], strict=True))
        return specs

    def check_keys(self, source: Mapping[str, Any]) -> None:
        """Check that the source has just the keys the plan speaks of."""
        used = {key for entry in self.entries for key in entry.sources}
        known = used | set(self.ignored) | set(self.aliases)
        problems = [f"missing     {key}" for key in sorted(used - set(source))]
        problems += [f"unexpected  {key}" for key in sorted(set(source) - known)]
        if problems:
            raise StateDictError.listing(
                f"the checkpoint does not fit the plan: {len(problems)} keys differ",
                problems,
                f"Convert with {argument('model')} to make a plan for this checkpoint.",
            )

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON data."""
        data: dict[str, Any] = to_data(self, without_none=("loading",))
        return data

    @classmethod
    def from_json(cls, data: Any) -> WeightPlan:
        """Build a plan from JSON data.

        Raises:
            ConversionError: it is no plan; the message names the field.
        """
        return from_data(cls, data)
