"""Conditions that keep positions along a dynamic size within a table of a fixed number of rows.

PyTorch raises where an index is beyond the table; MLX reads whatever is there. No guard of
torch.export's says so, as to it an index is data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.export import ExportedProgram
from torch.fx import Node

from mlxport.converter.graph.ir.sizes import Size, shape_of, size_text, symbolic

_SAME_VALUES = frozenset(
    f"aten.{name}"
    for name in (
        "_to_copy.default",
        "alias.default",
        "clone.default",
        "contiguous.default",
        "expand.default",
        "flatten.using_ints",
        "permute.default",
        "repeat.default",
        "reshape.default",
        "slice.Tensor",
        "squeeze.dim",
        "to.device",
        "to.dtype",
        "to.dtype_layout",
        "transpose.int",
        "unsqueeze.default",
        "view.default",
    )
)


def table_conditions(program: ExportedProgram, names: Mapping[str, str]) -> list[str]:
    """Return what must be true of the sizes so that every counted position is within its table.

    Args:
        program: what torch.export captured, not decomposed.
        names: torch's symbol -> what to call it.
    """
    found: dict[str, None] = {}
    for node in program.graph.nodes:
        for table, axis, places in _looked_up(node):
            rows, last = shape_of(table.meta["val"])[axis], _largest(places)
            if isinstance(rows, int) and isinstance(last, Size):
                found[f"{size_text(last + 1, names)} <= {rows}"] = None
    return list(found)


def _looked_up(node: Node) -> Iterator[tuple[Any, int, Any]]:
    """Yield tables, the axis along which a node looks something up in them, and the places."""
    target = str(node.target)
    if target == "aten.embedding.default":
        yield node.args[0], 0, node.args[1]
    elif target == "aten.index_select.default":
        yield node.args[0], node.args[1], node.args[2]  # type: ignore[misc]
    elif target == "aten.index.Tensor":
        for axis, places in enumerate(node.args[1]):  # type: ignore[arg-type]
            yield node.args[0], axis, places


def _largest(value: Any) -> Any:
    """Return the largest number among some positions, as far as that is known."""
    if not isinstance(value, Node):
        return value if isinstance(value, int) else None
    number = symbolic(value.meta.get("val"))
    if isinstance(number, (int, Size)):
        return number
    target = str(value.target)
    if target.startswith("aten.arange.") and len(value.args) < 3:
        return _plus(_largest(value.args[-1]), -1)
    if target in _SAME_VALUES:
        return _largest(value.args[0])
    if target in ("aten.add.Tensor", "aten.add.Scalar") and not value.kwargs:
        return _plus(_largest(value.args[0]), _largest(value.args[1]))
    return None


def _plus(a: Any, b: Any) -> Any:
    return None if a is None or b is None else a + b
