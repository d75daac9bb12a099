"""Let a model be as its first call leaves it, where it fills caches or replaces buffers then."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import ExportedProgram, export
from torch.utils._pytree import tree_map_only

from mlxport.converter.errors import CaptureError
from mlxport.converter.graph.capture.trial_runs import copied, seeded
from mlxport.converter.torch_model.calls import every_module_called
from mlxport.converter.torch_model.model_state import ModelState, left_as_it_was
from mlxport.converter.torch_model.tensor_state import bitwise_equal

_logger = logging.getLogger(__name__)


def call_once(
    model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], error: CaptureError
) -> None:
    """Call a model once, and leave what that changes in it; whoever called puts it back.

    What it keeps then may depend on the sizes of its inputs, but not on values: those of the
    example would be part of the converted model. So it is also called on other inputs with other
    parameters, and has to keep the same.

    Args:
        model: the torch module, as it was before its first call.
        args: positional inputs.
        kwargs: keyword inputs.
        error: why it cannot be captured as it was.

    Raises:
        CaptureError: the error, where calling the model first is no remedy.
    """
    _logger.debug("%s is captured as its first call leaves it", type(model).__name__)
    try:
        with left_as_it_was(model):
            other = _others(model, args, kwargs)
        state = ModelState(model)
        with state.watching():
            _call(model, *copied(args, kwargs))
        kept = _exported(model, args, kwargs)
    except Exception as failure:  # the model's code and torch.export, whatever they raise
        _logger.debug("nor as its first call leaves it", exc_info=True)
        raise error from failure
    parameters = {id(parameter) for parameter in model.parameters()}
    if _read(kept).keys() != _read(other).keys() or any(
        not bitwise_equal(tensor, _read(other)[name])
        for name, tensor in _read(kept).items()
        if id(tensor) not in parameters
    ):
        state.restore()
        raise error


def _others(
    model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> ExportedProgram:
    """Return the program after a first call with other parameters and on other inputs."""
    before = {parameter: parameter.data for parameter in model.parameters()}
    for parameter, data in before.items():
        parameter.data = _moved(data)
    given = tree_map_only(torch.Tensor, _moved, copied(args, kwargs))
    _call(model, *given)
    for parameter, data in before.items():
        parameter.data = data
    return _exported(model, args, kwargs)


def _moved(tensor: torch.Tensor) -> torch.Tensor:
    """Return other values that a model takes as well."""
    if tensor.is_floating_point() or tensor.is_complex():
        return tensor * 0.75 + tensor.abs().mean() / 8
    return tensor.flip(tuple(range(tensor.ndim)))


def _call(model: torch.nn.Module, args: Any, kwargs: Any) -> None:
    with torch.no_grad(), every_module_called(), seeded():
        model(*args, **kwargs)


def _exported(model: torch.nn.Module, args: Any, kwargs: Any) -> ExportedProgram:
    with left_as_it_was(model), every_module_called():
        return export(model, *copied(args, kwargs), strict=False)


def _read(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Return the tensors a program reads besides its inputs."""
    tensors = {**program.state_dict, **program.constants}
    return {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
