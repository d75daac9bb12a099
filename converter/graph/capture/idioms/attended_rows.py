"""Which attention masks leave every query a key, read off how the mask is computed.

PyTorch gives zeros for a query whose keys are all masked; ``mx.fast.scaled_dot_product_attention``
does not, so a mask is tested for such rows when the model runs. Causal masks and sliding windows
have none: what a program computes of counted positions, ``j <= i + offset``, holds on a band of
``d = j - i``, and each row of it has a column as long as the band meets the columns there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch.export import ExportedProgram
from torch.fx import Node

from mlxport.converter.graph.ir.nodes import ATTENDED, gives_the_same

_ATTENTION = "aten.scaled_dot_product_attention.default"
_AND = ("aten.logical_and.default", "aten.bitwise_and.Tensor")
_OR = ("aten.logical_or.default", "aten.bitwise_or.Tensor")
_SAME = ("aten.alias.default", "aten.clone.default")
_CASTS = ("aten._to_copy.default", "aten.to.dtype")
_POSITIONS = frozenset({torch.int32, torch.int64})  # which hold every position there is
_VIEWS = ("aten.unsqueeze.default", "aten.view.default", "aten.expand.default")
_LARGEST = 2**22  # elements of a constant that is computed here
_COMPARISONS = {  # op -> the least and the most of d, beside the difference of the firsts
    "aten.le.Tensor": (None, 0),
    "aten.lt.Tensor": (None, -1),
    "aten.ge.Tensor": (0, None),
    "aten.gt.Tensor": (1, None),
}


@dataclass(frozen=True)
class _Counted:
    """Numbers that count by one along one axis, and are the same along all others.

    Attributes:
        axis: counted from the last, as -1.
        first: the first of them.
    """

    axis: int
    first: sympy.Expr


@dataclass(frozen=True)
class _Band:
    """A mask that is true where ``least <= j - i <= most``, of its last two axes ``(i, j)``."""

    least: sympy.Expr = -sympy.oo
    most: sympy.Expr = sympy.oo

    def within(self, other: _Band) -> _Band:
        """Return where both are true."""
        return _Band(sympy.Max(self.least, other.least), sympy.Min(self.most, other.most))

    def meets_every_row(self, rows: sympy.Expr, columns: sympy.Expr) -> bool:
        """Whether each of some rows has a true value in some columns, of which there are any."""
        if not (_never_negative(columns - 1) or _never_negative(columns - rows)):
            return False
        nonnegative = (self.most, columns - rows - self.least, self.most - self.least)
        return all(_never_negative(value) for value in nonnegative)


def note_attended_rows(program: ExportedProgram) -> None:
    """Note on each attention of a program whether its mask leaves every query a key.

    Args:
        program: decomposed, not taken apart into modules; the metadata of its nodes is changed.
    """
    for node in program.graph.nodes:
        if str(node.target) == _ATTENTION:
            mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
            if isinstance(mask, Node) and _leaves_a_key(mask):
                node.meta[ATTENDED] = True


def _leaves_a_key(mask: Node) -> bool:
    """Whether every row along the last axis of a mask of truth values has a true one."""
    mask, shape = _unchanged(mask), _shape(mask)
    if _tensor(mask).dtype != torch.bool or len(shape) < 2:
        return False
    if (band := _band(mask)) is not None:
        return band.meets_every_row(*shape[-2:])
    if (value := _constant(mask)) is not None:
        return bool(value.any(-1).all())
    op = str(mask.target)
    if op in _VIEWS and _keeps_last_axes(mask):
        return _leaves_a_key(mask.all_input_nodes[0])
    return op in _OR and any(
        _shape(one)[-2:] == shape[-2:] and _leaves_a_key(one) for one in mask.all_input_nodes
    )


def _constant(node: Node) -> torch.Tensor | None:
    """Return the values of a tensor that is computed of nothing but literals, if it is."""
    computed: dict[Node, torch.Tensor] = {}
    pending = [node]
    while pending:
        one = pending[-1]
        if one in computed:
            pending.pop()
            continue
        if one.op != "call_function" or not gives_the_same(one.target) or not _is_small(one):
            return None
        missing = [given for given in one.all_input_nodes if given not in computed]
        pending += missing
        if not missing:
            target: Any = one.target
            given = torch.fx.node.map_arg((one.args, one.kwargs), computed.__getitem__)
            computed[one] = target(*given[0], **given[1])
    return computed[node]


def _is_small(node: Node) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or any(not isinstance(n, int) for n in value.shape):
        return False
    return value.numel() <= _LARGEST


def _band(mask: Node) -> _Band | None:
    """Return the band on which a mask is true; None where it is no band, or not known."""
    mask = _unchanged(mask)
    op = str(mask.target)
    if op in _VIEWS:
        band = _band(mask.all_input_nodes[0])
        return band if band == _Band() or _keeps_last_axes(mask) else None
    if op == "aten.ge.Scalar":
        known, least = _counted(mask.args[0]), _integer(mask.args[1])
        always = known and least is not None and _never_negative(known.first - least)
        return _Band() if always else None
    if op in ("aten.full.default", "aten.new_ones.default", "aten.ones.default"):
        return _Band() if "ones" in op or mask.args[1] is True else None
    if op in _AND:
        bands = [_band(one) if isinstance(one, Node) else None for one in mask.args]
        return bands[0].within(bands[1]) if bands[0] and bands[1] else None
    if op in _COMPARISONS and len(mask.args) == 2:
        x, y = mask.args
        return _compared(_counted(x), _counted(y), *_COMPARISONS[op])
    return None


def _compared(
    x: _Counted | None, y: _Counted | None, least: int | None, most: int | None
) -> _Band | None:
    """Return where ``x op y``, of which one counts the columns and the other the rows."""
    if x is None or y is None or {x.axis, y.axis} != {-1, -2}:
        return None
    if x.axis == -2:  # x.first + i op y.first + j is j + y.first op' i + x.first, turned round
        least, most = _negated(most), _negated(least)
        x, y = y, x
    apart = y.first - x.first
    return _Band(
        -sympy.oo if least is None else apart + least, sympy.oo if most is None else apart + most
    )


def _negated(bound: int | None) -> int | None:
    return None if bound is None else -bound


def _counted(node: Any) -> _Counted | None:
    """Return how the numbers of an array of integers count, if they do."""
    if not isinstance(node, Node) or not isinstance(node.meta.get("val"), torch.Tensor):
        return None
    if _tensor(node).dtype not in _POSITIONS:
        return None
    node = _unchanged(node)
    op = str(node.target)
    if op.startswith("aten.arange."):
        first, step = _arange(node)
        return _Counted(-1, first) if step == 1 else None
    if op in _VIEWS:
        return _viewed(_counted(node.args[0]), node)
    if op in ("aten.add.Tensor", "aten.sub.Tensor") and not node.kwargs:
        known, number = _counted(node.args[0]), _integer(node.args[1])
        if known is None or number is None:
            return None
        return _Counted(known.axis, known.first + (number if "add" in op else -number))
    return None


def _arange(node: Node) -> tuple[Any, Any]:
    """Return the first number of an ``arange`` and its step."""
    if str(node.target) == "aten.arange.default":
        return sympy.Integer(0), 1
    step = node.args[2] if len(node.args) > 2 else 1
    return _integer(node.args[0]), step if _integer(node.args[0]) is not None else None


def _viewed(known: _Counted | None, node: Node) -> _Counted | None:
    """Return how the numbers of a view count that has all axes but one of length one, or more."""
    if known is None:
        return None
    before, after = _shape(node.args[0]), _shape(node)
    if str(node.target) == "aten.expand.default":
        return known if after[known.axis] == before[known.axis] else None
    long = [axis - len(after) for axis, size in enumerate(after) if size != 1]
    alone = [size for size in before if size != 1] == [before[known.axis]]
    return _Counted(long[0], known.first) if alone and len(long) == 1 else None


def _unchanged(node: Node) -> Node:
    """Return the node whose values a node has: it casts positions, copies, or slices the whole."""
    while _is_unchanged(node):
        node = node.all_input_nodes[0]
    return node


def _is_unchanged(node: Node) -> bool:
    op = str(node.target)
    if op in _CASTS:
        dtypes = {_tensor(node.all_input_nodes[0]).dtype, _tensor(node).dtype}
        return len(dtypes) == 1 or dtypes <= _POSITIONS
    return op in _SAME or (
        op == "aten.slice.Tensor" and _shape(node) == _shape(node.all_input_nodes[0])
    )


def _keeps_last_axes(node: Node) -> bool:
    """Whether a view has the last two axes of what it views, axes of length one in front aside."""
    before, after = _shape(node.all_input_nodes[0]), _shape(node)
    if str(node.target) == "aten.expand.default":
        return len(before) >= 2 and before[-2:] == after[-2:]
    kept = [size for size in after if size != 1]
    return len(before) >= 2 and before[-2:] == after[-2:] and kept == [n for n in before if n != 1]


def _shape(node: Any) -> tuple[sympy.Expr, ...]:
    return tuple(map(_expression, _tensor(node).shape))


def _tensor(node: Any) -> torch.Tensor:
    value = node.meta["val"]
    assert isinstance(value, torch.Tensor)
    return value


def _integer(value: Any) -> sympy.Expr | None:
    """Return an integer, or a size that the program computes; None for anything else."""
    given = value.meta.get("val") if isinstance(value, Node) else value
    if isinstance(given, bool) or not isinstance(given, (int, torch.SymInt)):
        return None
    return _expression(given)


def _expression(size: Any) -> sympy.Expr:
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)


def _never_negative(value: sympy.Expr) -> bool:
    # torch.export takes sizes for at least one or two; a cache may be empty all the same
    sizes = {
        symbol: sympy.Symbol(symbol.name, integer=True, nonnegative=True)
        for symbol in value.free_symbols
    }
    return value == sympy.oo or bool(sympy.expand(value.xreplace(sizes)).is_nonnegative)
