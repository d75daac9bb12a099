"""Refuse results written into tensors of another shape, which torch.export takes to be resized.

``torch.arange(6, out=b)`` fills a ``b`` of shape (2, 3) in its order; the captured graph has it as
a new tensor of shape (6,) in the place of ``b``, and loses what ``b`` is a view of.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from mlxport.converter.errors import CaptureError


def check_out_arguments(model: str, program: ExportedProgram) -> None:
    """Raise where a result is written into a tensor of another shape.

    Args:
        model: name of the model's class.
        program: as captured, before it is decomposed.

    Raises:
        CaptureError: there are such writes; all are listed.
    """
    if problems := list(_reshaped(program)):
        raise CaptureError.listing(
            f"{model} cannot be captured: it writes results into tensors of another shape (out=), "
            "which torch.export takes to be resized:",
            problems,
            "Write into a tensor of the result's shape, or use the result itself.",
        )


def _reshaped(program: ExportedProgram) -> Iterator[str]:
    for node in program.graph.nodes:
        out = node.kwargs.get("out") if node.op == "call_function" else None
        if not isinstance(out, Node):
            continue
        before, result = out.meta.get("val"), node.meta.get("val")
        if not isinstance(before, torch.Tensor) or not isinstance(result, torch.Tensor):
            continue
        # an empty tensor is resized by PyTorch too
        if before.shape != result.shape and before.numel() != 0:
            yield f"{node.target}: {tuple(result.shape)} into {tuple(before.shape)}"
