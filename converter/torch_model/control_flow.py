"""Let torch.cond, map and scan run as plain tensor code, while a model is looked at.

PyTorch compiles their functions anew at each call, with what watches the model in them, and
torch.export keeps each as a graph of its own, with the modules it calls dissolved. Written out,
they are ops and modules like any others: of ``torch.cond`` both sides are computed and
``torch.where`` chooses, steps of a loop over an axis follow one another. That is the same where the
functions are pure, which PyTorch demands of them; `Sides` has what is to be run to see it.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch._higher_order_ops.utils as higher_order
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

# A longer loop would become as many copies of its step in the model's code.
MOST_STEPS = 64

_ENTRY = "_hop_compile_and_call"  # of all of them, with what is to be compiled

_HERE = Path(__file__)
_TORCH = Path(torch.__file__).parent

_lock = threading.RLock()  # what PyTorch calls is the whole process's


class WrittenOut:
    """Takes the place of what compiles the functions of higher-order ops.

    Attributes:
        compiled: what it takes the place of.
        thread: whose calls are written out.
        called: which ops were, by the names people call them.
        sides: how those of a condition are computed.
        chosen: line of the model's code -> which sides of its condition were chosen so far.
    """

    def __init__(self, compiled: Callable[..., Any]) -> None:
        self.compiled = compiled
        self.thread = threading.get_ident()
        self.called: set[str] = set()
        self.sides = Sides()
        self.chosen: dict[str, set[bool]] = {}

    def __call__(self, fn: Any, args: Sequence[Any], kwargs: Any = None) -> Any:
        """Run what was to be compiled: written out, or as it is."""
        name = getattr(fn, "__qualname__", "").partition(".")[0]
        ours = threading.get_ident() == self.thread and not kwargs
        result = NotImplemented
        if ours and name == "cond":
            result = self._cond(*args)
        elif ours and name in _LOOPS:
            result = _LOOPS[name](fn, *args)
        if result is NotImplemented:
            return self.compiled(fn, args, kwargs)
        self.called.add(f"torch.{name}" if name == "cond" else name)
        return result

    def _cond(
        self,
        predicate: Any,
        true_fn: Callable[..., Any],
        false_fn: Callable[..., Any],
        operands: Sequence[Any],
    ) -> Any:
        """Compute both sides, and choose each tensor; see ``torch.cond``."""
        if not isinstance(predicate, torch.Tensor):  # a size decides: one side may be impossible
            return NotImplemented
        condition = predicate.reshape(())
        condition = condition if condition.dtype == torch.bool else condition != 0
        if type(condition) is torch.Tensor and self.sides == Sides():  # no tracer's
            self.chosen.setdefault(_calling_line(), set()).add(bool(condition))
        if self.sides.negated:
            condition = ~condition
        if not self.sides.both:
            return true_fn(*operands) if condition else false_fn(*operands)
        if self.sides.last_first:
            otherwise = false_fn(*operands)
            chosen = true_fn(*operands)
        else:
            chosen = true_fn(*operands)
            otherwise = false_fn(*operands)
        (ours, like), (theirs, other) = tree_flatten(chosen), tree_flatten(otherwise)
        if like != other or not all(map(_alike, ours, theirs)):
            return NotImplemented
        values = [torch.where(condition, *pair) for pair in zip(ours, theirs, strict=True)]
        return tree_unflatten(values, like)

    def one_sided(self) -> Iterator[str]:
        """Say of which conditions one side alone was chosen."""
        for line, chosen in self.chosen.items():
            if len(chosen) == 1:
                missing = "does not hold" if True in chosen else "holds"
                yield (
                    f"torch.cond at {line}: no input took the side where the condition {missing}. "
                    "Its modules were judged; what it computes besides them was not, until you "
                    "verify with inputs that take it"
                )

    @contextmanager
    def computing(self, sides: Sides) -> Iterator[None]:
        """Compute the sides of conditions in another way for a while."""
        before, self.sides = self.sides, sides
        try:
            yield
        finally:
            self.sides = before


class Sides(NamedTuple):
    """How the sides of conditions are computed.

    Attributes:
        both: whether both are, to choose by ``torch.where``; else the one that is chosen, as
            ``torch.cond`` says of itself.
        negated: whether the other side is chosen than the condition says.
        last_first: whether the side of what is not so is computed before the other.
    """

    both: bool = True
    negated: bool = False
    last_first: bool = False


@contextmanager
def control_flow_written_out() -> Iterator[WrittenOut]:
    """Write out what this thread's calls of models choose and repeat."""
    with _lock:
        before = getattr(higher_order, _ENTRY, None)
        if before is None or isinstance(before, WrittenOut):
            yield before or WrittenOut(_never)
            return
        written_out = WrittenOut(before)
        setattr(higher_order, _ENTRY, written_out)
        try:
            yield written_out
        finally:
            setattr(higher_order, _ENTRY, before)


def _never(*_: Any) -> Any:
    raise NotImplementedError


def _calling_line() -> str:
    frame = sys._getframe(1)
    while frame.f_back is not None:
        file = Path(frame.f_code.co_filename)
        if file != _HERE and not file.is_relative_to(_TORCH):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return "an unknown line"


def _alike(one: Any, other: Any) -> bool:
    tensors = isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
    return tensors and one.shape == other.shape and one.dtype == other.dtype


def _map(
    mapped: Any, fn: Callable[..., Any], flat_xs: Sequence[Any], flat_args: Sequence[Any]
) -> Any:
    """Apply a function to each slice along the first axis; see ``torch._higher_order_ops.map``."""
    structure = inspect.getclosurevars(mapped).nonlocals
    steps = len(flat_xs[0])
    if steps > MOST_STEPS or not {"xs_spec", "args_spec"} <= structure.keys():
        return NotImplemented
    args = tree_unflatten(flat_args, structure["args_spec"])
    slices = ([x.select(0, step) for x in flat_xs] for step in range(steps))
    return _stacked([fn(tree_unflatten(x, structure["xs_spec"]), *args) for x in slices])


def _scan(_: Any, fn: Callable[..., Any], init: Sequence[Any], xs: Sequence[Any]) -> Any:
    """Take the steps one by one; see ``torch._higher_order_ops.scan``."""
    steps = len(xs[0])
    if steps > MOST_STEPS:
        return NotImplemented
    carry, like = tree_flatten(list(init))
    results = []
    for step in range(steps):
        carried, result = fn(*carry, *(x.select(0, step) for x in xs))
        carry, like = tree_flatten(carried)
        results.append(result)
    return tree_unflatten(carry, like), _stacked(results)


def _stacked(results: list[Any]) -> Any:
    return tree_map(lambda *parts: torch.stack(parts), *results)


_LOOPS: dict[str, Callable[..., Any]] = {"map": _map, "scan": _scan}
