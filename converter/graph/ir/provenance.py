"""Provenance: which array a value's elements come from, where that one's axis order may be chosen.

An input of the model, a parameter or zeros can be stored in any order, and its consumers may well
agree on one. So a value remembers where it comes from, and how its axes come of that array's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ProvenanceKind(Enum):
    """What kind of array it is whose axis order the lowering may choose."""

    INPUT = "input"  # of the model
    ARRAY = "array"  # a parameter, buffer or constant
    RESULT = "result"  # of a node that gives it in any order at no cost: zeros, a random draw
    SPLIT = "split"  # split into parts; another order costs one transpose, for all of its parts
    COLUMNS = "columns"  # of the weight of a linear layer, which follow a flattened array


@dataclass(frozen=True)
class NodeName:
    """Identifies a node among all of a model; the same for every call of a module.

    Attributes:
        module: path of the torch module whose graph it is in.
        node: its name in that graph.
    """

    module: str
    node: str

    def __str__(self) -> str:
        return f"{self.node} in {self.module or 'the model'}"


@dataclass(frozen=True)
class Provenance:
    """An array whose axis order the lowering may choose, as its consumers demand it.

    Attributes:
        kind: what kind of array it is.
        name: an input's label, the path of a parameter or of a linear layer, or a node.
        axis: the logical axis an array is split along.
    """

    kind: ProvenanceKind
    name: str | NodeName
    axis: int | None = None

    def __str__(self) -> str:
        along = "" if self.axis is None else f" along axis {self.axis}"
        return f"{self.kind.value} {self.name}{along}"


@dataclass(frozen=True)
class Lineage:
    """How the axes of a value come of those of its provenance.

    Attributes:
        axes: of each logical axis, the axes of the provenance it is made of, in sequence.
        ndim: number of axes of the provenance.
    """

    axes: tuple[tuple[int, ...], ...]
    ndim: int

    @classmethod
    def unchanged(cls, ndim: int) -> Lineage:
        """Return the lineage of the provenance itself."""
        return cls(tuple((axis,) for axis in range(ndim)), ndim)
