"""How the size of an axis follows from that of an axis of an input, step by step."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from mlxport.converter.graph.ir.inputs import InputAxis


class SizeStep(NamedTuple):
    """What an op makes of a size ``n``: ``(n * times + added) // stride + 1``.

    Attributes:
        added: padding on both sides, less what a window reaches.
        stride: of the windows.
        times: how often each place is repeated, or how far apart a transposed convolution sets it.
    """

    added: int
    stride: int = 1
    times: int = 1

    def of(self, size: int) -> int:
        """Return what becomes of a size."""
        return (size * self.times + self.added) // self.stride + 1


SAME = SizeStep(-1)
SizeSteps: TypeAlias = "tuple[SizeStep, ...] | None"  # None where they are not known


class Reached(NamedTuple):
    """An axis of an input that a size depends on, and how.

    Attributes:
        place: the axis.
        steps: from its size to the one that depends on it.
    """

    place: InputAxis
    steps: SizeSteps = ()

    def after(self, step: SizeStep | None) -> Reached:
        """Return what it is behind one more op; None for one that is not known."""
        if step == SAME:
            return self
        known = None if step is None or self.steps is None else (*self.steps, step)
        return Reached(self.place, known)

    def least(self, needed: int, example: int) -> int:
        """Return the least size of the input of which at least some size becomes.

        Args:
            needed: the size that is needed.
            example: a size that is enough.
        """
        return next((n for n in range(1, example) if self._size(n) >= needed), example)

    def _size(self, size: int) -> int:
        for step in self.steps or ():
            size = step.of(size)
        return size


def shortest(reached: frozenset[Reached]) -> frozenset[Reached]:
    """Return one way to each axis: where several meet, their sizes agree, or the model raises."""
    ways: dict[InputAxis, Reached] = {}
    for one in sorted(reached, key=_length):
        ways.setdefault(one.place, one)
    return frozenset(ways.values())


def _length(reached: Reached) -> tuple[bool, int, SizeSteps]:
    return reached.steps is None, len(reached.steps or ()), reached.steps or ()
