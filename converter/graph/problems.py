"""What cannot be lowered, collected and reported at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch.fx import Node

from mlxport.converter.errors import UnsupportedError


@dataclass(frozen=True)
class Problem:
    """One node that cannot be lowered.

    Attributes:
        op: the ATen op or module class.
        module: qualified name of the module it stands in.
        line: source line of the model, ``file:line``, or empty.
        reason: why, in one line.
    """

    op: str
    module: str
    line: str
    reason: str

    @classmethod
    def at(cls, node: Node, op: str, module: str, reason: str) -> Problem:
        """Build the problem of a node, with the source line torch.export kept."""
        frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
        own = [frame for frame in frames if "/torch/nn/" not in frame[0]] or frames
        line = "{}:{}".format(*own[-1]) if own else ""
        return cls(op, module or "the model itself", line, reason)


def raise_problems(model: str, problems: Sequence[Problem]) -> None:
    """Raise one error that lists every distinct problem with its count and first place.

    Raises:
        UnsupportedError: there is any.
    """
    if not problems:
        return
    groups: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.op, problem.reason), []).append(problem)
    width = max(len(op) for op, _ in groups)
    rows = []
    for (op, reason), found in groups.items():
        line = f" ({found[0].line})" if found[0].line else ""
        rows.append(f"{op:<{width}}  x{len(found):<3} first in {found[0].module}{line}: {reason}")
    raise UnsupportedError.listing(
        f"{model}: {len(groups)} kinds of operation have no MLX counterpart yet:",
        rows,
        "`mlxport layers` lists what is supported.",
    )
