"""Let torch capture a model, decompose and unflatten it, and say truly which of them failed.

No failure is laid on torch.export before plain torch.export has failed on a copy of the model, too.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO, TypeVar

import torch
from torch.export import ExportedProgram, export, unflatten
from torch.utils._pytree import tree_leaves

from mlxport.converter.errors import CaptureError, ConversionError, InternalError
from mlxport.converter.graph.capture.explain_failure import (
    higher_order_refusal,
    reason,
    uncapturable,
    undecomposable,
)
from mlxport.converter.torch_model.calls import (
    bound_arguments,
    every_module_called,
    parameters_of,
)
from mlxport.converter.torch_model.model_state import left_as_it_was

_logger = logging.getLogger(__name__)

T = TypeVar("T")

# the module, whose name torch.export gives to a function of it
_unflatten: Any = import_module("torch.export.unflatten")

_TORCH = Path(torch.__file__).parent

# what PyTorch says of a write into chunks of what has a gradient
_WRITES_INTO_GRADIENTS = "is being modified inplace|requires grad.*in-?place"


def export_program(
    model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], shapes: Any
) -> ExportedProgram:
    """Return what torch.export captures; as the model runs without gradients, where it must.

    Args:
        model: the torch module, in eval mode.
        args: positional inputs.
        kwargs: keyword inputs.
        shapes: torch.export's ``dynamic_shapes``.
    """
    with _keywords_named(model, args, kwargs, shapes) as named:
        options: Any = {"strict": False, "dynamic_shapes": named}
        try:
            return export(model, tuple(args), dict(kwargs), **options)
        except RuntimeError as error:
            if not re.search(_WRITES_INTO_GRADIENTS, str(error)):
                raise
        with torch.no_grad():
            return export(model, tuple(args), dict(kwargs), **options)


@contextmanager
def _keywords_named(
    model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], shapes: Any
) -> Iterator[Any]:
    """Let ``forward`` have by name what its ``**kwargs`` takes; give the dynamic shapes so.

    torch.export takes no dynamic shapes of ``**kwargs``: it looks for them in two places at once.
    """
    parameters = parameters_of(model)
    extra = next((p.name for p in parameters.values() if p.kind is p.VAR_KEYWORD), None)
    taken = bound_arguments(model, args, kwargs).get(extra, {}) if extra else {}
    if not taken or not isinstance(shapes, Mapping):
        yield shapes
        return
    forward = model.forward

    def by_name(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    named = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in taken]
    known = [p for p in parameters.values() if p.name != extra]
    by_name.__signature__ = inspect.Signature([*known, *named])  # type: ignore[attr-defined]
    before = model.__dict__.get("forward")
    model.__dict__["forward"] = by_name
    rest = {name: given for name, given in shapes.items() if name != extra}
    try:
        yield rest | dict(shapes.get(extra) or {})
    finally:
        model.__dict__.pop("forward")
        if before is not None:
            model.__dict__["forward"] = before


def export_failure(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    shapes: Any,
    error: Exception,
) -> ConversionError:
    """Return whose fault it is that a model was not captured: torch.export's, mlxport's or none.

    Args:
        model: the torch module, in eval mode, without hooks of ours.
        args: positional inputs.
        kwargs: keyword inputs.
        shapes: torch.export's ``dynamic_shapes``.
        error: what was raised when mlxport captured it.
    """
    name = type(model).__name__
    if isinstance(error, OSError) and "temporary directory" in str(error):
        return ConversionError(
            f"no temporary directory can be written, which torch.export wants: {error.strerror}. "
            "Set TMPDIR to a folder with space."
        )
    if why := higher_order_refusal(name, error):
        return CaptureError(why)  # which of them torch.export captures differs by release
    try:
        with quiet(), left_as_it_was(model), every_module_called():
            export_program(_fresh(model), args, kwargs, shapes)
    except Exception:  # whatever torch or the model raises: it is not for us that it fails
        _logger.debug("torch.export alone does not capture %s", name, exc_info=True)
        return CaptureError(uncapturable(name, error))
    return InternalError(
        f"a fault in mlxport, not in {name}: torch.export captures it, but not while mlxport "
        f"watches what its modules take: {reason(error)}. Please report it, with the model."
    )


def torch_step(model: torch.nn.Module, step: str, run: Callable[[], T]) -> T:
    """Return what a step of torch's gives, on a program that torch.export captured.

    Raises:
        CaptureError: torch cannot do it.
    """
    try:
        with quiet():
            return run()
    except ConversionError:
        raise
    except Exception as error:  # torch's passes raise whatever they meet
        raise CaptureError(undecomposable(type(model).__name__, step, error)) from error


def unflattened(program: ExportedProgram) -> torch.nn.Module:
    """Return a program with its module hierarchy, with a graph for each call in other shapes.

    torch gives two calls of a module one graph where their ops and arguments agree. What it knows
    of the shapes in it is then the first call's.
    """
    same_ops = _unflatten._check_graph_equivalence

    def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
        return same_ops(one, other) and _shapes(one) == _shapes(other)

    _unflatten._check_graph_equivalence = same
    try:
        return unflatten(program)
    finally:
        _unflatten._check_graph_equivalence = same_ops


def _shapes(module: torch.nn.Module) -> list[str]:
    graph: Any = module.graph
    values = [leaf for node in graph.nodes for leaf in tree_leaves(node.meta.get("val"))]
    return [f"{v.shape} {v.dtype}" for v in values if isinstance(v, torch.Tensor)]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what torch prints and logs of a graph that it fails on from the terminal.

    What the model's own code prints goes through.
    """
    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "torch"]
    handlers = [h for name in ["torch", *names] for h in logging.getLogger(name).handlers]
    for handler in handlers:
        handler.addFilter(_nothing)
    out, err = _WithoutTorch(sys.stdout), _WithoutTorch(sys.stderr)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(_nothing)


def _nothing(_: logging.LogRecord) -> bool:
    return False


class _WithoutTorch(io.TextIOBase):
    """A stream that takes nothing from torch.

    Args:
        stream: what takes all the rest.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if Path(sys._getframe(1).f_code.co_filename).is_relative_to(_TORCH):
            return len(text)
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _fresh(model: torch.nn.Module) -> torch.nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception:  # models hold locks, files, tensors with a gradient
        _logger.debug("%s cannot be copied", type(model).__name__, exc_info=True)
        return model
