"""Let no exception but a ConversionError leave a public call: say whose fault any other is.

What is raised in code of the user's own, a model's or a factory's, is named as that. What the
system refuses is named as that. Anything else is a fault in mlxport, and the message says so.
"""

from __future__ import annotations

import inspect
import linecache
import logging
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from mlxport.converter.api.display import notebook_line
from mlxport.converter.errors import (
    CheckpointError,
    ConversionError,
    InternalError,
    UserCodeError,
)
from mlxport.converter.expected import check_call
from mlxport.converter.torch_model.caches import caches_as_tensors

_P = ParamSpec("_P")
_Result = TypeVar("_Result")

_logger = logging.getLogger(__name__)

_OURS = Path(__file__).parents[1]
_PYTHON = Path(sysconfig.get_path("stdlib"))
_PACKAGES = Path(sysconfig.get_path("purelib"))
# packages that mlxport itself computes with; a model's code is in any other
_LIBRARIES = ("torch", "mlx", "numpy", "sympy", "safetensors", "click", "huggingface_hub")


# what watches the ops of a model and calls each: whatever they raise is not its fault
_PASSED_THROUGH = ("__torch_dispatch__", "__torch_function__")


def public(function: Callable[_P, _Result]) -> Callable[_P, _Result]:
    """Decorate a public function so that it raises nothing but `ConversionError`.

    Arguments of other kinds than its annotations say are refused before it runs. Those that its
    signature has not are Python's ``TypeError``, and warnings that the user made exceptions stay
    warnings.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _Result:
        given = signature.bind(*args, **kwargs)
        try:
            check_call(signature, given)
            passed = list(given.arguments.values())
            with (
                _random_state_of_mlx(),
                caches_as_tensors(passed),
                notebook_line(function.__name__),
            ):
                # in a context of its own: torch leaves variables in the one that it is called in
                return copy_context().run(function, *args, **kwargs)
        except (ConversionError, Warning):
            raise
        except Exception as error:  # the boundary: whatever it is
            _logger.info("%s failed", function.__name__, exc_info=True)
            raise explained(function.__name__, error) from error

    return called


@contextmanager
def _random_state_of_mlx() -> Iterator[None]:
    """Leave MLX's random state as it is: building layers draws their first weights."""
    if "mlx.core" not in sys.modules:  # it has no state yet that anybody could have set
        yield
        return
    import mlx.core as mx

    state: Any = mx.random.state
    high, low = (int(word) for word in np.array(state[0]))
    try:
        yield
    finally:
        mx.random.seed(high << 32 | low)  # the key of a seed is its two halves


def explained(call: str, error: Exception) -> ConversionError:
    """Return the ConversionError that says whose fault an exception is, and where it was raised.

    Args:
        call: the public function that it would have left.
        error: the exception.
    """
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return ConversionError(f"{call} needs more memory than there is: {said}")
    frames = traceback.StackSummary.from_list(
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.name not in _PASSED_THROUGH
    )
    ours = _last(frames, lambda path: path.is_relative_to(_OURS))
    users = _last(frames, _is_users)
    if users > ours:
        return UserCodeError(f"your own code raises, {_at(frames[users])}: {said}")
    if isinstance(error, OSError):
        return CheckpointError(f"the system refuses what {call} asks of it: {said}")
    at = f", {_at(frames[ours])}" if ours >= 0 else ""
    return InternalError(
        f"{call} fails in mlxport's own code, where nobody foresaw it{at}: {said}\nWhere its "
        "arguments are of the types that its docstring names, that is a fault in mlxport: please "
        "report it with the traceback, which is the cause of this error and is logged (-v)."
    )


def _last(frames: traceback.StackSummary, belongs: Callable[[Path], bool]) -> int:
    """Return the place of the innermost frame of some code; -1 if there is none."""
    found = [i for i, frame in enumerate(frames) if belongs(Path(frame.filename))]
    return found[-1] if found else -1


def _is_users(path: Path) -> bool:
    if not path.is_file() or path.is_relative_to(_OURS.parent / "layers"):
        return False
    if path.is_relative_to(_PACKAGES):
        return path.relative_to(_PACKAGES).parts[0] not in _LIBRARIES
    return not path.is_relative_to(_OURS) and not path.is_relative_to(_PYTHON)


def _at(frame: traceback.FrameSummary) -> str:
    source = linecache.getline(frame.filename, frame.lineno or 0).strip()
    quoted = f" (`{source}`)" if source else ""
    return f"at {frame.filename}:{frame.lineno}{quoted}"
