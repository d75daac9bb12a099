"""What cannot be lowered, collected and reported at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch.fx import Node

from mlxport.converter.errors import UnsupportedError

THE_MODEL = "the model itself"


@dataclass(frozen=True)
class Problem:
    """One node that cannot be lowered.

    Attributes:
        op: the ATen op or module class.
        module: qualified name of the module it is in.
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
        plain = [frame for frame in frames if not frame[0].startswith("<")] or frames
        users = [frame for frame in plain if not _is_torchs(frame[0])] or plain
        line = "{}:{}".format(*users[-1]) if users else ""
        return cls(op, module or THE_MODEL, line, reason)


def _is_torchs(file: str) -> bool:
    return any(part in file for part in ("/torch/nn/", "/torch/_higher_order_ops/"))


@dataclass(frozen=True)
class Gap:
    """An op or module without MLX counterpart, with all places where it occurs.

    Attributes:
        op: the ATen op or module class.
        reason: why, in one line.
        count: in how many places it occurs.
        module: qualified name of the module where it occurs first.
        line: source line of that place, ``file:line``, or empty.
    """

    op: str
    reason: str
    count: int
    module: str
    line: str

    def to_text(self, width: int = 0) -> str:
        """Return it in one line, the op's name padded to ``width``."""
        at = f" ({self.line})" if self.line else ""
        return f"{self.op:<{width}}  x{self.count:<3} first in {self.module}{at}: {self.reason}"


@dataclass
class Tally:
    """What a pass of the lowering met on its way.

    Attributes:
        problems: node -> why it cannot be lowered.
        ops: node -> the op, of all that were lowered one by one.
        walked: paths of the modules whose graphs were walked.
        refusals: path -> why the rule of its class does not serve a module, lowered op by op.
    """

    problems: dict[Node, Problem] = field(default_factory=dict)
    ops: dict[Node, str] = field(default_factory=dict)
    walked: set[str] = field(default_factory=set)
    refusals: dict[str, str] = field(default_factory=dict)

    def gaps(self) -> list[Gap]:
        """Return the problems, those of one op and one reason together."""
        groups: dict[tuple[str, str], list[Problem]] = {}
        for problem in self.problems.values():
            groups.setdefault((problem.op, problem.reason), []).append(problem)
        return [
            Gap(op, reason, len(found), found[0].module, found[0].line)
            for (op, reason), found in groups.items()
        ]


def raise_gaps(model: str, gaps: Sequence[Gap]) -> None:
    """Raise one error that lists all gaps.

    Raises:
        UnsupportedError: there is any.
    """
    if gaps:
        width = max(len(gap.op) for gap in gaps)
        raise UnsupportedError.listing(
            f"{model}: {len(gaps)} kinds of operation have no MLX counterpart yet:",
            [gap.to_text(width) for gap in gaps],
            "`mlxport layers` lists what is supported, docs/extending.md says how to add to it.",
        )
