"""What restoring a checkpoint gave back, and what of it is other than it was. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlxport.converter.arguments import argument
from mlxport.converter.tasks.result import count_of


@dataclass(frozen=True)
class Restored:
    """A PyTorch checkpoint written from an MLX model's weights.

    Attributes:
        path: the file that was written.
        keys: the keys in it.
        lost: key -> why it could not be given back.
        rounded: keys whose values a cast had rounded: original dtype, rounded values.
        quantized: keys whose values had been quantised: those the quantised ones stand for.
        equivalent: keys of magnitudes and directions that were folded into weights, and are others
            now, which fold into the weights there are.
        unmerged: keys of trained weights from which an adapter that was merged into them was
            taken away again.
        narrowed: keys whose values were trained in a wider dtype than the checkpoint has, and are
            rounded to that.
        added: MLX parameters that came to the model since, which the checkpoint has no place for.
        trained_base: of an adapter: MLX parameters of its base that are others now.
    """

    path: Path
    keys: tuple[str, ...]
    lost: Mapping[str, str] = field(default_factory=dict)
    rounded: tuple[str, ...] = ()
    quantized: tuple[str, ...] = ()
    equivalent: tuple[str, ...] = ()
    unmerged: tuple[str, ...] = ()
    trained_base: tuple[str, ...] = ()
    narrowed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = {"lost": self.lost, "rounded": self.rounded, "quantized": self.quantized}
        found = [f"{len(keys)} {name}" for name, keys in counts.items() if keys]
        return f"{self.path}: {', '.join([count_of(len(self.keys), 'tensor'), *found])}"

    def __repr__(self) -> str:
        return f"<Restored: {self}>"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the file lacks of the checkpoint that was converted, one sentence each."""
        lost = by_reason(self.lost)
        found = [f"{', '.join(keys)} could not be given back: {why}" for why, keys in lost.items()]
        if self.added:
            found.append(
                f"{len(self.added)} parameters came to the model since it was converted and are "
                f"left out: {', '.join(self.added)}"
            )
        if self.rounded:
            found.append(
                f"{len(self.rounded)} tensors were rounded when they were converted and have "
                f"their dtype back, but not those values: {', '.join(self.rounded)}"
            )
        if self.quantized:
            found.append(
                f"{len(self.quantized)} tensors were quantized when they were converted and hold "
                f"what is left of their values: {', '.join(self.quantized)}"
            )
        if self.equivalent:
            found.append(
                f"{len(self.equivalent)} tensors were folded into weights; what is written folds "
                f"into the weights there are: {', '.join(self.equivalent)}"
            )
        if self.unmerged:
            found.append(
                f"an adapter was merged into {len(self.unmerged)} tensors, which were trained "
                "since: what is written is the weights there are without it, to be used with it: "
                f"{', '.join(self.unmerged)}"
            )
        if self.narrowed:
            found.append(
                f"{len(self.narrowed)} tensors were trained in a wider dtype and are rounded to "
                f"the checkpoint's: {', '.join(self.narrowed)}"
            )
        if self.trained_base:
            found.append(
                f"{len(self.trained_base)} tensors of the base are others than it was converted "
                f"with, so the adapter alone is not the model; without {argument('adapter', True)} "
                f"the base is written: {', '.join(self.trained_base)}"
            )
        return tuple(found)


def by_reason(lost: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the keys that share each reason: a fold takes many tensors for one."""
    reasons: dict[str, list[str]] = {}
    for key, why in lost.items():
        reasons.setdefault(why, []).append(key)
    return reasons
