"""Watch which primitives Python code calls in MLX, with their dtypes, streams and places.

The functions of ``mx`` are replaced as long as it lasts. Each call does what it did; then its
primitives are read off ``mx.export_function``, run on arrays of the same shapes: once for every
kind of call. Calls that name a CPU stream are left out, and those of ``mx.fast``, which MLX takes
apart where there is no GPU, count under their names.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import Any

import mlx.core as mx

from mlxport.converter.parity.run.metal_table import ArrayType, PrimitiveCall

_logger = logging.getLogger(__name__)

# Functions that take a stream and are no part of a model's graph.
_NOT_WATCHED = ("load", "precompiled_cuda_kernel", "set_default_stream", "synchronize")
_TAKES_STREAM = "stream: "
_ARRAY = "mlx.core.array"
_UPDATES = ("add", "subtract", "multiply", "divide", "maximum", "minimum")

_Observe = Callable[[PrimitiveCall, FrameType], None]
# Signature of a call -> its primitives; None where MLX does not tell.
_Known = dict[Any, tuple[PrimitiveCall, ...] | None]
_known_by_rank: _Known = {}


@contextmanager
def watching(
    observe: _Observe,
    unknown: Callable[[str], None],
    *,
    shapes: bool = True,
    compiling: bool = False,
) -> Iterator[None]:
    """Watch the calls of MLX in this thread, and restore its functions at the end.

    Args:
        observe: called with every primitive that would run on the default device, and the frame
            that called.
        unknown: called with the names of functions whose primitives MLX does not tell.
        shapes: whether calls of other shapes are looked at anew; otherwise those of other ranks.
        compiling: whether MLX may compile: a compiled function calls nothing of ``mx`` a second
            time, so that what it does may not be seen.
    """
    global _active
    replaced = _replacements()
    present = {(owner, name): vars(owner)[name] for owner, name in replaced}
    before, switched = _active, not compiling and _compiles()
    functions = {
        key: before.functions[key] if before and function is replaced[key] else function
        for key, function in present.items()
    }
    _active = _Watch(observe, unknown, shapes, functions)
    if switched:
        mx.disable_compile()
    try:
        for (owner, name), function in replaced.items():
            setattr(owner, name, function)
        yield
    finally:
        for (owner, name), function in present.items():
            setattr(owner, name, function)
        _active = before
        if switched:
            mx.enable_compile()


def _compiles() -> bool:
    """Whether MLX compiles: whether a compiled function is called once only."""
    calls = []

    def counted(x: mx.array) -> mx.array:
        calls.append(x)
        return x

    compiled, x = mx.compile(counted), mx.array(0)
    compiled(x)
    compiled(x)
    return len(calls) == 1


class _Watch:
    """What is asked of every call.

    Attributes:
        functions: owner and name of what is watched -> what it does.
        known: what calls are made of; kept for the next watch where shapes do not matter.
        thread: the one that is watched.
        inside: whether a call is being looked at, whose inner calls are no calls of the model's.
        on_cpu: how many ``mx.stream`` contexts of the CPU are open.
    """

    def __init__(
        self,
        observe: _Observe,
        unknown: Callable[[str], None],
        shapes: bool,
        functions: Mapping[tuple[Any, str], Any],
    ) -> None:
        self.observe, self.unknown, self.shapes = observe, unknown, shapes
        self.functions = functions
        self.known: _Known = {} if shapes else _known_by_rank
        self.thread = threading.get_ident()
        self.inside = False
        self.on_cpu = 0

    def call(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        """Call a function of MLX, and report its primitives."""
        if self.inside or threading.get_ident() != self.thread:
            return function(*args, **kwargs)
        self.inside = True
        try:
            if self.on_cpu or _is_cpu(kwargs.get("stream")):
                return function(*args, **kwargs)
            operands = (args, kwargs)
            signature = (name, self.signature(operands))
            if signature not in self.known:  # before the call, which may write into its operands
                self.known[signature] = _primitives(name, function, operands)
            result = function(*args, **kwargs)
        finally:
            self.inside = False
        self.report(name, self.known[signature])
        return result

    def signature(self, value: Any) -> Any:
        """Return what operands of calls of one kind have in common."""
        if isinstance(value, mx.array):
            return value.dtype, tuple(value.shape) if self.shapes else value.ndim
        if isinstance(value, (tuple, list)):
            return tuple(map(self.signature, value))
        if isinstance(value, dict):
            return tuple((key, self.signature(item)) for key, item in value.items())
        if not self.shapes and type(value) in (int, float):
            return type(value)
        return repr(value)

    def report(self, name: str, calls: tuple[PrimitiveCall, ...] | None) -> None:
        """Report what a call is made of."""
        if calls is None:
            self.unknown(name)
            return
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back
        for call in calls:
            self.observe(call, frame)


_active: _Watch | None = None


@cache
def _replacements() -> dict[tuple[Any, str], Any]:
    """Return owner and name of what is watched -> what stands there meanwhile."""
    replaced: dict[tuple[Any, str], Any] = {}
    modules = {"": mx, "linalg.": mx.linalg, "fft.": mx.fft, "random.": mx.random, "fast.": mx.fast}
    for prefix, module in modules.items():
        for name, function in vars(module).items():
            computes = callable(function) and _TAKES_STREAM in (function.__doc__ or "")
            if computes and name not in _NOT_WATCHED:
                replaced[module, name] = _watched(module, name, prefix + name)
    for name, method in vars(mx.array).items():
        if callable(method) and _computes(name, method):
            replaced[mx.array, name] = _watched(mx.array, name, f"array.{name}")
    replaced[mx.array, "at"] = property(_At)
    replaced[mx, "stream"] = _stream
    return replaced


def _computes(name: str, method: Any) -> bool:
    """Whether a method of arrays is a computation: it gives arrays, by what it says of itself."""
    text = method.__doc__ or ""
    gives = f"-> {_ARRAY}" in text or f"-> list[{_ARRAY}]" in text
    return gives or name in ("__getitem__", "__setitem__")


def _watched(owner: Any, name: str, called: str) -> Any:
    """Return a function that does what stood at a place, and is watched."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if _active is None:  # somebody kept it
            return getattr(owner, name)(*args, **kwargs)
        return _active.call(called, _active.functions[owner, name], args, kwargs)

    return call


@contextmanager
def _stream(s: Any) -> Iterator[None]:
    watch = _active
    if watch is None:  # somebody kept it
        with mx.stream(s):
            yield
        return
    watch.on_cpu += _is_cpu(s)
    try:
        with watch.functions[mx, "stream"](s):
            yield
    finally:
        watch.on_cpu -= _is_cpu(s)


class _At:
    """``x.at`` and ``x.at[…]``, watched."""

    def __init__(self, array: mx.array, place: Any = None) -> None:
        self._array, self._place = array, place

    def __getitem__(self, place: Any) -> _At:
        return _At(self._array, place)

    def __getattr__(self, name: str) -> Any:
        if name not in _UPDATES or _active is None:
            raise AttributeError(name)
        watch, at = _active, _active.functions[mx.array, "at"]

        def update(array: mx.array, place: Any, value: Any) -> Any:
            return getattr(at.fget(array)[place], name)(value)

        operands = (self._array, self._place)
        return lambda value: watch.call(f"array.at.{name}", update, (*operands, value), {})


def _is_cpu(stream: Any) -> bool:
    device = getattr(stream, "device", stream)
    return device is not None and device == mx.Device(mx.cpu)


def _primitives(name: str, function: Any, operands: Any) -> tuple[PrimitiveCall, ...] | None:
    """Return the primitives of a call, by exporting it with other arrays of the same shapes."""
    given = [*_arrays(operands)]
    if name.startswith("fast."):
        types = tuple(ArrayType(_dtype_name(x.dtype), tuple(x.shape)) for x in given)
        return (PrimitiveCall(name, types, types[:1]),)

    def run(*arrays: mx.array) -> Any:
        args, kwargs = _filled(operands, iter(arrays))
        result = function(*args, **kwargs)
        written = args[0] if name == "array.__setitem__" else result
        return [*_arrays(written)]

    found: list[dict[str, Any]] = []
    try:
        mx.export_function(found.append, run, *[mx.zeros(x.shape, x.dtype) for x in given])
    except Exception:  # what MLX cannot export, it says in many ways
        _logger.debug("MLX does not tell the primitives of %s", name, exc_info=True)
        return None
    return tuple(
        PrimitiveCall(
            entry["name"],
            tuple(map(_described, entry["inputs"])),
            tuple(map(_described, entry["outputs"])),
            tuple(entry["arguments"]),
        )
        for entry in found
        if entry["type"] == "primitive"
    )


def _filled(value: Any, arrays: Iterator[mx.array]) -> Any:
    """Return nested operands with other arrays in place of theirs, in their order."""
    if isinstance(value, mx.array):
        return next(arrays)
    if isinstance(value, (tuple, list)):
        items = [_filled(item, arrays) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {key: _filled(item, arrays) for key, item in value.items()}
    return value


def _arrays(value: Any) -> Iterator[mx.array]:
    if isinstance(value, mx.array):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _arrays(item)
    elif isinstance(value, dict):
        yield from _arrays(tuple(value.values()))


def _described(described: Any) -> ArrayType:
    _, shape, dtype = described
    return ArrayType(_dtype_name(dtype), tuple(shape))


def _dtype_name(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]
