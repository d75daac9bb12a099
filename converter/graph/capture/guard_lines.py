"""Where in the model's code torch.export decides by a size, or fixes it."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import sympy
import torch
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from mlxport.converter.graph.capture.explain_failure import Place, running_line

_logger = logging.getLogger(__name__)

_TORCH = f"{Path(torch.__file__).parent}/"


@dataclass
class GuardLines:
    """The lines that ran when torch.export made its guards.

    Attributes:
        lines: torch's symbol -> the lines whose guards speak of it, in order.
        axes: torch's symbol -> the input and the axis it was made for.
        above_one: torch's symbols of sizes that the model's own code tells from one. torch takes
            every dynamic size for more than one, so that it makes no guard of this.
    """

    lines: dict[str, list[Place]] = field(default_factory=dict)
    axes: dict[str, tuple[str, int]] = field(default_factory=dict)
    above_one: list[str] = field(default_factory=list)

    @classmethod
    @contextmanager
    def watched(cls) -> Iterator[GuardLines]:
        """Note the lines while a program is captured."""
        found = cls()
        known = getattr(ShapeEnv, "_log_guard", None)
        if known is None:  # another version of torch: messages go without lines
            _logger.debug("torch %s does not tell of its guards", torch.__version__)
            yield found
            return

        def noting(env: Any, prefix: str, guard: Any, *args: Any, **kwargs: Any) -> None:
            if "suppressed" not in prefix:
                found.note(guard)
                found.axes.update(_axes(env))
            known(env, prefix, guard, *args, **kwargs)

        decide: Callable[[Any], bool] = torch.SymBool.__bool__

        def deciding(given: torch.SymBool) -> bool:
            decided = decide(given)
            frame: Any = sys._getframe(1)
            while frame.f_code.co_name == "__bool__":  # of a size, whether it is zero
                frame = frame.f_back
            if not frame.f_code.co_filename.startswith(_TORCH):
                found.note_decision(given, decided)
            return decided

        with (
            patch.object(ShapeEnv, "_log_guard", noting),
            patch.object(torch.SymBool, "__bool__", deciding),
        ):
            yield found

    def note(self, guard: sympy.Basic) -> None:
        """Note the line of the model that runs, for each symbol of a guard."""
        place = running_line()
        for symbol in map(str, getattr(guard, "free_symbols", ())):
            known = self.lines.setdefault(symbol, [])
            if place is not None and place not in known:
                known.append(place)

    def note_decision(self, given: torch.SymBool, decided: bool) -> None:
        """Note the sizes at which a comparison would be decided otherwise, were they one."""
        expression, env = given.node.expr, given.node.shape_env
        for symbol in getattr(expression, "free_symbols", ()):
            others = {
                s: env.size_hint(s, allow_none=True) for s in expression.free_symbols - {symbol}
            }
            if None in others.values():  # of a size that depends on the data torch makes a guard
                continue
            if expression.subs({symbol: 1, **others}) == sympy.S(not decided):
                self.above_one.append(str(symbol))

    def of_axis(self, axis: int) -> list[Place]:
        """Return the lines that speak of an axis, of whichever input."""
        return self.of(symbol for symbol, (_, place) in self.axes.items() if place == axis)

    def of(self, symbols: Iterable[str]) -> list[Place]:
        """Return the lines that speak of some of torch's symbols."""
        return list(dict.fromkeys(p for symbol in symbols for p in self.lines.get(symbol, ())))


def _axes(env: Any) -> Iterator[tuple[str, tuple[str, int]]]:
    """Yield torch's symbols with the input and the axis each was made for."""
    for symbol, sources in getattr(env, "var_to_sources", {}).items():
        for source in sources[:1]:
            name = source.name if isinstance(source.name, str) else source.name()
            match = re.fullmatch(r"(.*)\.size\(\)\[(\d+)\]", name)
            if match:
                yield str(symbol), (match[1], int(match[2]))
