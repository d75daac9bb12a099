"""Run a torch model in float64, including the casts and constants in its code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from mlxport.converter.parity.reference.copies import eval_copy

_WIDER = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}


def as_float64(value: Any) -> Any:
    """Return a copy of a tensor, in float64 if it is floating; anything else as it is."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().to(_WIDER.get(value.dtype, value.dtype), copy=True)


def float64_copy(module: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of a module with parameters, buffers and plain tensor attributes in float64.

    In eval mode. Tensors are widened as they are copied, so that they are in memory only once.

    Raises:
        ParityError: it cannot be copied.
    """
    plain = [p for p in module.parameters() if type(p) is torch.nn.Parameter]
    known: dict[int, Any] = {
        id(p): torch.nn.Parameter(as_float64(p), p.requires_grad and p.is_floating_point())
        for p in plain
    }
    known |= {id(b): as_float64(b) for b in module.buffers() if type(b) is torch.Tensor}
    exact = eval_copy(module, known)
    exact._apply(_wider)
    for part in exact.modules():
        attributes = {k: v for k, v in vars(part).items() if isinstance(v, torch.Tensor)}
        vars(part).update({name: _wider(value) for name, value in attributes.items()})
    return exact


def _wider(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to(_WIDER.get(tensor.dtype, tensor.dtype))


@contextmanager
def in_float64() -> Iterator[None]:
    """Let everything created or cast within be float64, whatever floating dtype it asks for."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), _Widening():  # type: ignore[no-untyped-call]
            yield
    finally:
        torch.set_default_dtype(default)


class _Widening(TorchDispatchMode):
    """Answer every request for a floating dtype with the widest: ``x.float()`` stays float64."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not torch.ops.aten.view.dtype:  # that one reads the bits as they are
            args, kwargs = tree_map(_widest, (args, dict(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _widest(value: Any) -> Any:
    return _WIDER.get(value, value) if isinstance(value, torch.dtype) else value
