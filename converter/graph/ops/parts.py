"""Choose the axis order of an array that is split along an axis: queries, keys and values, say.

Where consumers want the parts in another order, one transpose of the whole array serves all.
"""

from __future__ import annotations

from dataclasses import replace

from mlxport.converter.graph.ir.context import Context
from mlxport.converter.graph.ir.provenance import Provenance, ProvenanceKind
from mlxport.converter.graph.ir.value import Value, inherit


def to_split(cx: Context, x: Value, dim: int) -> Value:
    """Return an array in the axis order that most of the parts it is split into are wanted in.

    Args:
        cx: the lowering context; ``x`` is the first operand of its node.
        x: the array.
        dim: the logical axis along which it is split.
    """
    if not x.has_fixed_order or cx.node.operand is None:
        return x
    provenance = Provenance(ProvenanceKind.SPLIT, cx.node.operand, dim)
    preferred = cx.model.preferences.get(provenance)
    if preferred is not None:
        x = cx.arrange(x, (dim, *(axis for axis in preferred if axis != dim)))
    return replace(x, provenance=provenance, lineage=None)


def part_of(part: Value, whole: Value, dim: int) -> Value:
    """Return a part with the provenance of the whole."""
    rest = tuple((axis,) for axis in range(whole.ndim) if axis != dim)
    return inherit(part, whole, rest)
