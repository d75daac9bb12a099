"""The nesting of a model's arguments and results (tuples, lists, dicts), as data.

Needs neither torch nor mlx.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec

from mlxport.converter.plan.json_data import ABSENT

Constant: TypeAlias = "bool | int | float | str | None"
Key: TypeAlias = "str | int"
StructureKind: TypeAlias = Literal["tensor", "number", "constant", "tuple", "list", "dict"]

_CONTAINERS: dict[str, type[Any]] = {"tuple": tuple, "list": list, "dict": dict}


class Structure(msgspec.Struct, frozen=True, rename={"finite": "value", "non_finite": "float"}):
    """A tensor, a constant, or a container of such.

    Attributes:
        kind: what it is in the MLX model; ``"number"`` is one the model computes (a size, say).
        labels: of a container: how PyTorch reads each item (``".logits"``, ``"[0]"``,
            ``'["mask"]'``).
        items: of a container.
        keys: of a dict.
        finite: of a constant: its value.
        non_finite: of a constant that is NaN or infinite, which JSON has not: its value as text.
    """

    kind: StructureKind
    labels: tuple[str, ...] = ABSENT
    items: tuple[Structure, ...] = ABSENT
    keys: tuple[Key, ...] = ABSENT
    finite: Constant = ABSENT
    non_finite: Literal["inf", "-inf", "nan"] = ABSENT

    def __post_init__(self) -> None:
        if self.kind in _CONTAINERS:
            columns = [self.labels, self.items, *([self.keys] if self.kind == "dict" else [])]
            if ABSENT in columns or len({len(column) for column in columns}) > 1:
                raise ValueError(f"a {self.kind} has as many labels and keys as items")
        if self.kind == "constant" and (self.finite is ABSENT) == (self.non_finite is ABSENT):
            raise ValueError("a constant has one value")

    @classmethod
    def constant(cls, value: Constant) -> Structure:
        """Return the structure of a constant."""
        if isinstance(value, float) and not math.isfinite(value):
            return cls("constant", non_finite=str(value))  # type: ignore[arg-type]
        return cls("constant", finite=value)

    @classmethod
    def container(
        cls,
        kind: StructureKind,
        labels: tuple[str, ...],
        items: tuple[Structure, ...],
        keys: tuple[Key, ...] = (),
    ) -> Structure:
        """Return the structure of a container; only a dict has keys."""
        return cls(kind, labels, items, keys if kind == "dict" else ABSENT)

    @property
    def value(self) -> Constant:
        """A constant's value."""
        return self.finite if self.non_finite is ABSENT else float(self.non_finite)

    def leaves(self, name: str) -> Iterator[tuple[str, Structure]]:
        """Yield all that is no container with its name, in PyTorch's pytree order.

        Args:
            name: of the whole: ``"output"`` gives ``output.logits``, ``output[1]["mask"]``.
        """
        if self.kind not in _CONTAINERS:
            yield name, self
            return
        for label, item in zip(self.labels, self.items, strict=True):
            yield from item.leaves(name + label)

    def tensors(self, name: str) -> list[str]:
        """Return the names of the tensors."""
        return [label for label, leaf in self.leaves(name) if leaf.kind == "tensor"]

    def constants(self, name: str) -> dict[str, Constant]:
        """Return the constants by name."""
        return {label: leaf.value for label, leaf in self.leaves(name) if leaf.kind == "constant"}

    def build(self, tensor: Callable[[], Any]) -> Any:
        """Return a value so nested, with what ``tensor`` gives in place of each tensor."""
        if self.kind == "tensor":
            return tensor()
        if self.kind not in _CONTAINERS:
            return self.value
        items = [item.build(tensor) for item in self.items]
        if self.kind == "dict":
            return dict(zip(self.keys, items, strict=True))
        return tuple(items) if self.kind == "tuple" else items

    def differences(self, value: Any, name: str) -> list[str]:
        """Say where a value is nested otherwise, or holds another constant, one line each."""
        if self.kind in ("tensor", "number"):
            nested = isinstance(value, (tuple, list, dict, str)) or value is None
            return [f"{name}: {_speak(value)} instead of a {self.kind}"] if nested else []
        if self.kind == "constant":
            same = type(value) is type(self.value) and _equal(value, self.value)
            return [] if same else [f"{name}: {_speak(value)} instead of {self.value!r}"]
        if not isinstance(value, _CONTAINERS[self.kind]) or len(value) != len(self.items):
            return [f"{name}: {_speak(value)} instead of a {self.kind} of {len(self.items)}"]
        if isinstance(value, dict) and tuple(value) != self.keys:
            return [f"{name}: keys {list(value)} instead of {list(self.keys)}"]
        given = value.values() if isinstance(value, dict) else value
        trios = zip(self.items, given, self.labels, strict=True)
        return [line for s, v, label in trios for line in s.differences(v, name + label)]


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives.

    Attributes:
        arguments: name of the parameter of ``forward`` -> what it was given, in the order of
            ``forward``; parameters left at their defaults are left out.
        result: what it gives.
        keywords: arguments the MLX model takes by name only, as their place in ``forward`` is
            another.
    """

    arguments: Mapping[str, Structure] = field(default_factory=dict)
    result: Structure = field(default_factory=lambda: Structure("tensor"))
    keywords: tuple[str, ...] = ()

    def depth(self) -> int:
        """Return how many containers lie within one another, at most; without recursion."""
        level, count = [*self.arguments.values(), self.result], 0
        while level := [item for one in level if one.kind in _CONTAINERS for item in one.items]:
            count += 1
        return count

    def taken(self) -> dict[str, Structure]:
        """Return the arguments that hold tensors: those of the MLX model."""
        return {name: s for name, s in self.arguments.items() if s.tensors(name)}

    def tensors(self) -> list[str]:
        """Return the names of the tensors it takes."""
        return [n for name, s in self.arguments.items() for n in s.tensors(name)]

    def constants(self) -> dict[str, Constant]:
        """Return all else it was given, by name: fixed when the model was captured."""
        every = (s.constants(name) for name, s in self.arguments.items())
        return {name: value for constants in every for name, value in constants.items()}


def _equal(a: Constant, b: Constant) -> bool:
    return a == b or (a != a and b != b)  # NaN is what it is


def _speak(value: Any) -> str:
    if isinstance(value, (tuple, list, dict)):
        return f"a {type(value).__name__} of {len(value)}"
    basic = value is None or isinstance(value, (bool, int, float, str))
    return repr(value) if basic else f"a {type(value).__name__}"
