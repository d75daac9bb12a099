"""Islands of float64 in a model of another dtype, which MLX computes in float32.

No GPU of MLX's has float64. Where such values come and go within a module, float32 may do as well,
which parity judges. Not where integers or truth values are decided by them, as one example may not
show that rounding decides otherwise; nor where they leave the module, of whose values PyTorch gives
the dtype.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.utils._pytree import tree_leaves, tree_map

from mlxport.converter.graph.ir.context import Unsupported
from mlxport.converter.graph.ir.dtypes import is_inexact, mlx_dtype, narrower
from mlxport.converter.graph.ir.nodes import tensors_of

_FLOAT32 = torch.finfo(torch.float32)


def is_wide(node: Node) -> bool:
    """Whether PyTorch computes an op in float64 or complex128.

    A tensor without axes beside others of floats does not make it so: it takes their dtype.
    """
    read = [tensor for operand in node.all_input_nodes for tensor in tensors_of(operand)]
    others = any(tensor.ndim and is_inexact(tensor.dtype) for tensor in read)
    given = tensors_of(node)
    wide = [tensor for tensor in read if _has_narrower(tensor) and (tensor.ndim or not others)]
    return bool(given and wide) or any(map(_has_narrower, given))


def check_narrowing(node: Node) -> None:
    """Refuse an op in float64 that float32 could give something else for, unseen by parity.

    Raises:
        Unsupported: it draws, reads bits, decides integers, or has a number beyond float32.
    """
    op: Any = node.target
    wide = [*tensors_of(node), *(t for n in node.all_input_nodes for t in tensors_of(n))]
    dtype = next(tensor.dtype for tensor in wide if _has_narrower(tensor))
    name = str(dtype).removeprefix("torch.")
    if torch.Tag.nondeterministic_seeded in op.tags or op is torch.ops.aten.view.dtype:
        raise Unsupported(_reason(dtype))
    if not all(is_inexact(tensor.dtype) for tensor in tensors_of(node)):
        raise Unsupported(
            f"{name} values decide integers or truth values, which rounding to float32 could "
            "decide otherwise. Decide them in float32, or by integers"
        )
    for number in tree_leaves((node.args, node.kwargs)):
        plain = not isinstance(number, float) or not number or not math.isfinite(number)
        if not plain and not _FLOAT32.tiny <= abs(number) <= _FLOAT32.max:
            raise Unsupported(f"{number} is beyond float32, in which MLX computes {name} values")


def in_narrower_dtypes(arguments: Any) -> Any:
    """Return the arguments of an op with the dtypes that MLX computes in."""
    return tree_map(lambda x: narrower(x) if isinstance(x, torch.dtype) else x, arguments)


def wide_boundary(graph: Graph) -> Iterator[tuple[Node, str]]:
    """Yield where float64 values come into a module or leave it, and what is to say of that."""
    for node in graph.nodes:
        taken = node.op == "placeholder" and node.users
        for end in [node] if taken else node.all_input_nodes if node.op == "output" else []:
            dtype = next((t.dtype for t in tensors_of(end) if _has_narrower(t)), None)
            if dtype is not None:
                yield node, _reason(dtype)
                break


def _reason(dtype: torch.dtype) -> str:
    try:
        mlx_dtype(dtype)
    except Unsupported as reason:
        return str(reason)
    raise AssertionError(f"MLX has {dtype}")


def _has_narrower(tensor: torch.Tensor) -> bool:
    return narrower(tensor.dtype) != tensor.dtype
