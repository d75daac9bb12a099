"""Notice which sizes Python code reads while a model is captured.

A size that the model's own code reads becomes a number of the captured program, or decides which
ops are in it; the program does not tell which. What torch.nn's own layers read does not matter, as
long as such a layer is converted as a whole.

Each read is marked on the node of the tensor it is a size of, as torch.export traces it.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
from torch.overrides import TorchFunctionMode

from mlxport.converter.graph.capture.sizes.watched_shape import WatchedShape

_TORCH = f"{Path(torch.__file__).parent}/"
# where torch's code stands for a model's: its layers, and what runs a GraphModule node by node
_LIBRARY = (
    f"{_TORCH}nn/",
    f"{_TORCH}functional.py",
    f"{_TORCH}_tensor.py",
    f"{_TORCH}fx/interpreter.py",
)
# These read sizes of weights alone.
_OF_WEIGHTS = tuple(
    f"{_TORCH}nn/utils/{name}.py"
    for name in ("parametrizations", "parametrize", "spectral_norm", "weight_norm")
)
_CONVERTER = f"{Path(__file__).parents[3]}/"
_READING = frozenset(
    (
        "__len__",
        "_shape_as_tensor",
        "is_same_size",
        "nbytes",
        "nelement",
        "numel",
        "shape",
        "size",
        "storage",
        "stride",
        "sym_numel",
        "sym_size",
        "sym_stride",
        "untyped_storage",
    )
)
_INTERPRETER = f"{_TORCH}fx/interpreter.py"
_MARKS, _INDEXED = "mlxport_size_reads", "mlxport_indexed"  # keys of a node's meta
_SHAPE = frozenset(("shape", "size", "sym_size"))
# They refuse sizes, or fill in a size that is not given, which the op they call shows.
_CHECKING = frozenset(
    (
        "_list_with_default",
        "_verify_batch_size",
        "_verify_spatial_size",
        "batch_norm",
        "group_norm",
        "instance_norm",
    )
)

_CHECKING_FILES = (f"{_TORCH}nn/modules/batchnorm.py", f"{_TORCH}nn/modules/instancenorm.py")


@dataclass(frozen=True)
class SizeRead:
    """A look at some sizes of a tensor.

    Attributes:
        mark: by which the node of the tensor is found; None where it has none.
        axes: whose sizes were read.
        shape: of the tensor.
        modules: those whose ``forward`` was running, the innermost first.
    """

    mark: int | None
    axes: frozenset[int]
    shape: tuple[Any, ...]
    modules: tuple[torch.nn.Module, ...]


@dataclass(eq=False)
class SizeWatch(TorchFunctionMode):
    """While active, notes what sizes of which tensors the Python of a ``forward`` reads.

    Args:
        by_axis: whether ``.shape`` gives what tells its axes apart; otherwise it is a read of all.

    Attributes:
        reads: in order.
    """

    by_axis: bool = True
    reads: list[SizeRead] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._active = False
        self._marks = 0

    def __enter__(self) -> SizeWatch:
        """Begin to note reads."""
        self._active = True
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        """Note no more, of shapes either that outlive the capture."""
        self._active = False
        super().__exit__(*raised)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch's; note it where it tells a size."""
        name = _name(function)
        args = tuple(arg.read() if type(arg) is WatchedShape else arg for arg in args)
        kwargs = {
            key: arg.read() if type(arg) is WatchedShape else arg
            for key, arg in (kwargs or {}).items()
        }
        result = function(*args, **kwargs)
        if name in _READING:
            return self._note_result(name, args, kwargs, result)
        if name in ("__getitem__", "__setitem__"):
            self._note_bounds(args[0], args[1])
        if name == "__getitem__" and (node := _node(result)) is not None:
            node.meta[_INDEXED] = True
        return result

    def outside(self, leaves: Collection[torch.nn.Module]) -> list[SizeRead]:
        """Return the reads elsewhere than within some modules."""
        known = set(map(id, leaves))
        return [read for read in self.reads if not known & set(map(id, read.modules))]

    def _note_result(self, name: str, args: Any, kwargs: Any, result: Any) -> Any:
        """Note what the call of a function told; return its result."""
        frame = _reader()
        if frame is None:
            return result
        tensors = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, torch.Tensor)]
        place = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if name in _SHAPE and isinstance(result, torch.Size):
            mark, code = self._mark(tensors[0]), frame.f_code.co_filename
            if self.by_axis and not (code.startswith(_TORCH) and code != _INTERPRETER):
                return WatchedShape(result, lambda axes: self._note(mark, axes, result))
            self._note(mark, range(len(result)), result)
        elif name in _SHAPE and isinstance(place, int):
            self._note_read(tensors[0], [place % tensors[0].ndim])
        else:
            for tensor in tensors:
                self._note_read(tensor, range(1 if name == "__len__" else tensor.ndim))
        return result

    def _note_bounds(self, tensor: Any, index: Any) -> None:
        """Note bounds of an index: where they are the example's own, the program lacks them."""
        if isinstance(tensor, torch.Tensor) and (axes := _bounded_axes(index, tensor.ndim)):
            self._note_read(tensor, axes)

    def _note_read(self, tensor: torch.Tensor, axes: Iterable[int]) -> None:
        self._note(self._mark(tensor), axes, tensor.shape)

    def _note(self, mark: int | None, axes: Iterable[int], shape: torch.Size) -> None:
        if self._active and (read := frozenset(axes)):
            modules = tuple(_running(sys._getframe(1)))
            self.reads.append(SizeRead(mark, read, tuple(shape), modules))

    def _mark(self, tensor: torch.Tensor) -> int | None:
        """Mark the node that gave a tensor, if torch.export traces it."""
        node = _node(tensor)
        if node is None:
            return None
        self._marks += 1
        node.meta.setdefault(_MARKS, []).append(self._marks)
        return self._marks


def marks(node: Node) -> Iterable[int]:
    """Return the marks of the reads of a node's sizes."""
    given: list[int] = node.meta.get(_MARKS, [])
    return given


def is_indexed(node: Node) -> bool:
    """Whether a node is the result of an index, the bounds of which are noted."""
    return _INDEXED in node.meta


def _node(tensor: Any) -> Node | None:
    """Return the node that gave a tensor; None where torch.export does not trace it."""
    mode = get_proxy_mode()
    slot = None if mode is None else get_proxy_slot(tensor, mode.tracer, None)
    node = getattr(getattr(slot, "proxy", None), "node", None)
    return node if isinstance(node, Node) else None


def _bounded_axes(index: Any, ndim: int) -> Iterable[int]:
    """Return the axes of a tensor that an index bounds, but for single places.

    All of them where the index holds more than slices and places.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    axis, found = 0, set()
    for number, item in enumerate(items):
        if item is None:
            continue
        if item is Ellipsis:
            axis = ndim - sum(1 for later in items[number + 1 :] if later is not None)
            continue
        if isinstance(item, slice):
            if (item.start, item.stop, item.step).count(None) < 3:
                found.add(axis)
        elif isinstance(item, bool) or not isinstance(item, int):
            return range(ndim)
        axis += 1
    return found


def _reader() -> Any:
    """Return the frame of the code that reads a size; None where it does not matter there."""
    frame: Any = sys._getframe(2)
    while _passes_on(frame.f_code):
        frame = frame.f_back
    path, name = frame.f_code.co_filename, frame.f_code.co_name
    if path.startswith(_TORCH) and (not path.startswith(_LIBRARY) or name in _CHECKING):
        return None  # torch's own machinery
    if path.startswith(_CONVERTER) or path in _CHECKING_FILES or path in _OF_WEIGHTS:
        return None
    return frame


def _passes_on(code: Any) -> bool:
    """Whether a frame only hands a call on: this watch's, or that of a mode of the capture."""
    return bool(code.co_name == "__torch_function__" or code.co_filename == f"{_TORCH}overrides.py")


def _name(function: Any) -> str:
    """Return what is called: of a property's getter, the property."""
    name: str = getattr(function, "__name__", "")
    if name == "__get__":
        name = getattr(getattr(function, "__self__", None), "__name__", "")
    return name.partition(".")[0]  # sym_size.int


def _running(frame: Any) -> Iterable[torch.nn.Module]:
    """Yield the modules whose ``forward`` a frame lies in."""
    while frame is not None:
        if frame.f_code.co_name == "forward":
            module = frame.f_locals.get("self")
            if isinstance(module, torch.nn.Module):
                yield module
        frame = frame.f_back
