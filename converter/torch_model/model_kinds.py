"""Take a model for what it is: a module with values, or say what was given and what to do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch._dynamo.eval_frame import OptimizedModule
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.nn.parameter import is_lazy

from mlxport.converter.errors import CaptureError, ConversionError, OptionsError

_SHOWN = 8


def as_torch_module(model: Any) -> torch.nn.Module:
    """Return the module to capture: of a compiled module the original, of a program its module.

    Args:
        model: what a user calls a model.

    Raises:
        OptionsError: it is something else, or TorchScript.
        CaptureError: it has no values yet, or TorchScript or quantised modules inside.
    """
    if isinstance(model, ExportedProgram):
        model = model.module()
    if isinstance(model, OptimizedModule):
        model = model._orig_mod
    module = checked_module(model)
    if isinstance(module, torch.jit.ScriptModule):
        raise OptionsError(
            f"the model is TorchScript ({type(module).__name__}), a compiled program without the "
            "classes it was made from. Give the module that was scripted or traced; if only the "
            "file is left, build the Python model and load "
            "torch.jit.load(file).state_dict() into it."
        )
    for heading, advice, belongs in _OBSTACLES:
        if found := [*_named(module, belongs)]:
            listed = found[:_SHOWN]
            if len(found) > _SHOWN:
                listed.append(f"and {len(found) - _SHOWN} more")
            raise CaptureError.listing(f"{type(module).__name__} {heading}:", listed, advice)
    return module


def checked_module(model: Any) -> torch.nn.Module:
    """Return a module; refuse what is none, and say what to give instead.

    Raises:
        OptionsError: it is none.
    """
    if not isinstance(model, torch.nn.Module):
        raise _no_module(model)
    return model


def _no_module(model: Any) -> ConversionError:
    expected = "expected a torch.nn.Module"
    if isinstance(model, type) and issubclass(model, torch.nn.Module):
        return OptionsError(
            f"{expected}, got the class {model.__name__}: give an instance, {model.__name__}(…)."
        )
    if inspect.isroutine(model):
        name = getattr(model, "__qualname__", type(model).__name__)
        return OptionsError(
            f"{expected}, got the function {name}. Write a torch.nn.Module whose forward() does "
            "what it does; the modules and parameters it uses have to be attributes of it."
        )
    if isinstance(model, Mapping):
        return OptionsError(
            f"{expected}, got a {type(model).__name__} (a state dict?). Build the model, load this "
            "into it by load_state_dict, and give the model."
        )
    return OptionsError(f"{expected}, got {type(model).__name__}.")


def _named(model: torch.nn.Module, belongs: Callable[[Any], bool]) -> Iterator[str]:
    """Yield modules and tensors of a model of one kind, with what they are."""
    for path, module in model.named_modules():
        if belongs(module):
            cls = type(module)
            yield f"{path or 'the model itself'} ({cls.__module__}.{cls.__name__})"
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and belongs(tensor):
                    yield f"{path}.{name}" if path else name


def _is_valueless(value: Any) -> bool:
    tensor = isinstance(value, torch.Tensor) and not is_lazy(value)
    return tensor and (value.is_meta or isinstance(value, FakeTensor))


def _is_quantized(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return not is_lazy(value) and value.is_quantized
    module = type(value).__module__
    return module.startswith("torch.ao.nn.") and ".quantized" in module


_OBSTACLES: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    (
        "has modules that are TorchScript, which torch.export cannot look into",
        "Put the modules they were scripted or traced from in their place.",
        lambda value: isinstance(value, torch.jit.ScriptModule),
    ),
    (
        "has modules that torch.ao has quantized, whose weights are packed for PyTorch's kernels",
        "Convert the model as it was before, in float; mlxport quantizes it itself.",
        _is_quantized,
    ),
    (
        "has parameters that are not initialised: their shapes come with the first call",
        "Call the model once, and load its weights, before you convert it.",
        lambda value: isinstance(value, torch.Tensor) and is_lazy(value),
    ),
    (
        "has tensors without values, on the meta device or faked",
        "Make them by to_empty(device='cpu') and load a state dict, or build the model outside of "
        "torch.device('meta'), before you convert it.",
        _is_valueless,
    ),
)
