"""The sizes at which a captured program is valid: torch.export's guards as readable conditions.

The capture took the branches that the example takes. The guards say at which sizes the torch model
takes the same ones; at others the converted model would compute something else without a word. So
the emitted model raises there.
"""

from __future__ import annotations

import ast
import logging
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from mlxport.converter.errors import CaptureError
from mlxport.converter.graph.capture.dynamic import Sizes, input_shapes, numbers_at, symbol_ranges
from mlxport.converter.graph.ir.code import to_source
from mlxport.converter.graph.ir.sizes import size_tree, tidy
from mlxport.converter.torch_model.calls import bound_arguments

_logger = logging.getLogger(__name__)

FARTHEST = 130  # sizes are tried one by one up to this, or up to twice the example's
LONGEST_PERIOD = 64
JOINT = 60  # so many combinations of sizes are tried


class Guards:
    """The guards of a captured program, asked at sizes of one's choice.

    Attributes:
        names: torch's symbol -> what to call it.
    """

    def __init__(
        self,
        program: ExportedProgram,
        model: torch.nn.Module,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        names: Mapping[str, str],
    ) -> None:
        found = getattr(program.module(), "_guards_fn", None)
        if found is None:
            raise CaptureError(
                f"torch {torch.__version__} does not tell at which sizes a captured model holds. "
                "Convert without dynamic sizes."
            )
        self._check = found
        self._shapes = input_shapes(program)
        self._leaves = tree_leaves((tuple(args), dict(kwargs)))
        self._arguments = bound_arguments(model, args, kwargs)
        self.names = names

    def failing(self, sizes: Sizes) -> str | None:
        """Return the first guard that fails at some sizes, in torch's words.

        Empty where a guard cannot even be computed there.
        """
        shapes = [numbers_at(shape, sizes) for shape in self._shapes]
        if any(number < 0 for shape in shapes for number in shape):
            return ""  # a size that is what another leaves
        pairs = zip(self._leaves, shapes, strict=True)
        try:
            self._check(*(_on_meta(leaf, shape) for leaf, shape in pairs))
        except AssertionError as error:
            return str(error).removeprefix("Guard failed: ")
        except ZeroDivisionError:
            _logger.debug("a guard divides by zero at %s", sizes, exc_info=True)
            return ""
        return None

    def named(self, guard: str) -> str:
        """Return a guard in the names of the sizes: ``h % 4 == 0``."""
        tree = _Named(self._size).visit(ast.parse(guard, mode="eval").body)
        return to_source(tidy(tree))

    def _size(self, path: ast.expr, axis: int) -> ast.expr:
        tensor = eval(ast.unparse(path), {}, self._arguments)  # torch's own text, not the user's
        place = next(i for i, leaf in enumerate(self._leaves) if leaf is tensor)
        return size_tree(self._shapes[place][axis], self.names)


class _Named(ast.NodeTransformer):
    """Puts names in place of ``x.size()[0]``."""

    def __init__(self, size: Any) -> None:
        self.size = size

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        called = node.value
        if (
            isinstance(called, ast.Call)
            and isinstance(called.func, ast.Attribute)
            and isinstance(node.slice, ast.Constant)
        ):
            named: ast.expr = self.size(called.func.value, node.slice.value)
            return named
        return node


def conditions(guards: Guards, example: Sizes, program: ExportedProgram) -> list[str]:
    """Return the conditions on the sizes, in their names, beyond that there is something.

    Args:
        guards: the guards, which are tried at many sizes.
        example: the sizes of the example, which satisfy them.
        program: what torch.export captured.
    """
    found_all: dict[str, None] = {}
    accepted: dict[str, Sequence[int]] = {}
    for symbol, size in example.items():
        last = max(FARTHEST, 2 * size)
        failures = {n: guards.failing({**example, symbol: n}) for n in range(1, last + 1)}
        accepted[symbol] = [n for n, failure in failures.items() if failure is None]
        rule = pattern_of(accepted[symbol], size, last)
        if rule is None:
            found: Iterable[str] = (
                guards.named(failure) for failure in failures.values() if failure
            )
        else:
            accepted[symbol], found = rule.sizes(), rule.conditions(guards.names[symbol])
        found_all.update(dict.fromkeys(found))
    for symbol, _, high in symbol_ranges(program):
        if symbol in example and high is not None and high >= max(FARTHEST, 2 * example[symbol]):
            found_all[f"{guards.names[symbol]} <= {high}"] = None
    found_all.update(dict.fromkeys(_joint(guards, accepted)))
    return list(found_all)


@dataclass(frozen=True)
class SizePattern:
    """Sizes from ``first`` to ``final`` whose remainder by ``period`` is one of some.

    Attributes:
        final: the largest; ``last`` where there is none.
        last: the largest that was tried.
    """

    first: int
    final: int
    last: int
    period: int
    remainders: tuple[int, ...]

    def sizes(self) -> list[int]:
        """Return the sizes among those that were tried."""
        sizes = range(self.first, self.final + 1)
        return [size for size in sizes if size % self.period in self.remainders]

    def conditions(self, name: str) -> Iterator[str]:
        """Yield what must be true of a size that goes by a name."""
        if len(self.sizes()) == 1:
            yield f"{name} == {self.sizes()[0]}"
            return
        if self.period > 1:
            one = f"== {self.remainders[0]}" if len(self.remainders) == 1 else None
            yield f"{name} % {self.period} {one or f'in {self.remainders}'}"
        if any(size % self.period in self.remainders for size in range(1, self.first)):
            yield f"{name} >= {self.sizes()[0]}"
        if self.final < self.last:
            yield f"{name} <= {self.final}"


def pattern_of(accepted: Sequence[int], example: int, last: int) -> SizePattern | None:
    """Return the rule that the sizes around the example follow; None where they follow none.

    Small sizes that would spoil it are left out: torch takes a size of one, or what a small size
    makes of one further on, for a special case.
    """
    known = frozenset(accepted)
    for period in range(1, LONGEST_PERIOD + 1):
        final = last if accepted[-1] + period > last else accepted[-1]
        remainders = {size % period for size in accepted if example <= size < example + period}
        fits = [(n in known) == (n % period in remainders) for n in range(1, final + 1)]
        if all(fits[example - 1 :]):
            first = next((n + 1 for n in range(example - 1, 0, -1) if not fits[n - 1]), 1)
            return SizePattern(first, final, last, period, tuple(sorted(remainders)))
    return None


def satisfied(conditions: Sequence[str], sizes: Mapping[str, int]) -> bool:
    """Whether conditions are true of some sizes, by name."""
    known = dict(sizes)
    return all(eval(condition, {"__builtins__": {}}, known) for condition in conditions)


def _joint(guards: Guards, accepted: Mapping[str, Sequence[int]]) -> Iterator[str]:
    """Yield the guards that fail where each size alone would do."""
    generator = random.Random(0)
    for _ in range(JOINT if len(accepted) > 1 else 0):
        sizes = {symbol: generator.choice(numbers) for symbol, numbers in accepted.items()}
        failure = guards.failing(sizes)
        if failure:
            yield guards.named(failure)


def _on_meta(leaf: Any, shape: Sequence[int]) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    return torch.empty(shape, dtype=leaf.dtype, device="meta")
