"""Run a torch model in float64, including the casts and constants in its code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from mlxport.converter.torch_model.model_state import trial_run

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


@contextmanager
def float64_values(module: torch.nn.Module) -> Iterator[None]:
    """Let a model have all its floating tensors in float64 for a while, then as they were.

    Parameters, buffers, and the tensors in attributes, containers and closures. The model itself
    and not a copy, so that whatever refers to it (a hook, a dict two modules share) still does.
    """
    with trial_run(module) as state:
        for tensor in state.tensors():
            if tensor.dtype in _WIDER and type(tensor) in (torch.Tensor, torch.nn.Parameter):
                tensor.data = tensor.detach().to(_WIDER[tensor.dtype])
        yield


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
