"""Unpickle a checkpoint without running anything of it.

``torch.load(weights_only=True)`` refuses a whole file for one numpy scalar beside the weights. The
tensors need none of that: here they are rebuilt, standard containers too, and every other global
becomes a placeholder that holds what it is given and does nothing.

No object that pickle opcodes could change for others (a class, a function, a module) is ever
handed out, and none is looked up by a name from the file.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch.serialization import StorageType
from torch.storage import TypedStorage

from mlxport.converter.checkpoint.formats.pickle_opcodes import check_opcodes

_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class Placeholder:
    """Stands for an object of a class that was not loaded.

    Attributes:
        source: ``module.name`` of what it stands for.
        state: what the pickle would have set on it; nothing was.
        items: what the pickle put into it as into a dict.
    """

    source: ClassVar[str] = ""

    state: Any
    items: dict[Any, Any]

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Placeholder:
        """Take whatever arguments the pickle gives, and drop them."""
        placeholder = super().__new__(cls)
        placeholder.state, placeholder.items = None, {}
        return placeholder

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __call__(self, *_args: Any, **_kwargs: Any) -> Placeholder:
        """Stand for the result of a call, too."""
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, _item: Any) -> None:
        """Take what pickle's APPEND gives, and drop it."""

    extend = add = append


class _Dict(dict[Any, Any]):
    """A dict that takes no attribute but one: stands for OrderedDict, Counter and defaultdict.

    Attributes:
        _metadata: what ``state_dict()`` notes of each module, where the pickle sets it.
    """

    __slots__ = ("_metadata",)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict) and "_metadata" in state:
            self._metadata = state["_metadata"]


class _Call:
    """A function the unpickler may call and the pickle may not change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, _state: Any) -> None:
        raise pickle.UnpicklingError("the pickle sets attributes on a function")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_gradient: Any) -> Any:
    """``torch._utils._rebuild_tensor``, within the bounds of the storage."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, TypedStorage) or len(size) != len(stride):
        raise pickle.UnpicklingError("a tensor without a storage, or without a stride for an axis")
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise pickle.UnpicklingError(f"a tensor of size {size!r}, stride {stride!r} at {offset!r}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= len(storage):
        raise pickle.UnpicklingError(f"a tensor ends at {last}, its storage at {len(storage)}")
    empty = torch.empty((0,), dtype=storage.dtype)
    return empty.set_(storage._untyped_storage, offset, tuple(size), tuple(stride))


def _tensor_v2(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Any:
    """``_rebuild_tensor_v2``: a seventh argument says whether to conjugate or negate."""
    return _marked(_tensor(storage, offset, size, stride), rest[2:])


def _tensor_v3(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Any:
    """``_rebuild_tensor_v3``: an untyped storage, and the dtype as the seventh argument."""
    dtype = rest[2] if len(rest) > 2 else None
    if not isinstance(dtype, torch.dtype) or not isinstance(storage, TypedStorage):
        raise pickle.UnpicklingError("a tensor without a dtype or a storage")
    typed = TypedStorage(wrap_storage=storage._untyped_storage, dtype=dtype, _internal=True)
    return _marked(_tensor(typed, offset, size, stride), rest[3:])


def _marked(tensor: torch.Tensor, metadata: tuple[Any, ...]) -> torch.Tensor:
    marks = metadata[0] if metadata else None
    if isinstance(marks, dict) and set(marks) <= {"conj", "neg"}:
        torch._utils.set_tensor_metadata(tensor, {k: bool(v) for k, v in marks.items()})
    return tensor


def _of_type(rebuild: Any, _type: Any, args: Any, *_state: Any) -> Any:
    """``torch._tensor._rebuild_from_type_v2``: a tensor with attributes, here without them."""
    return rebuild(*args)


_ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": _Call(_Dict),
    "collections.Counter": _Call(_Dict),
    "collections.defaultdict": _Call(lambda *_factory: _Dict()),
    "builtins.set": _Call(set),
    "builtins.frozenset": _Call(frozenset),
    "builtins.complex": _Call(complex),
    "torch.Size": _Call(tuple),
    "torch.nn.parameter.Parameter": _Call(lambda data, *_requires_grad: data),
    "torch._utils._rebuild_parameter": _Call(lambda data, *_gradient: data),
    "torch._utils._rebuild_parameter_with_state": _Call(lambda data, *_gradient: data),
    "torch._utils._rebuild_tensor": _Call(_tensor),
    "torch._utils._rebuild_tensor_v2": _Call(_tensor_v2),
    "torch._utils._rebuild_tensor_v3": _Call(_tensor_v3),
    "torch._tensor._rebuild_from_type_v2": _Call(_of_type),
}
_ALLOWED.update({f"torch.{k}": v for k, v in vars(torch).items() if isinstance(v, torch.dtype)})

# Python 2 called it so.
_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
# Globals that only carry the parts of others: naming them would tell nobody anything.
_PARTS = {"_codecs.encode", "copyreg._reconstructor", "numpy.dtype"}
_PARTS |= {f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "object", "str")}


class InertPickle:
    """What ``torch.load(pickle_module=…)`` takes, for one file.

    Attributes:
        records: key of each storage -> its bytes, where torch would take the pickle's word for it.
        placeholders: the global a placeholder stood for -> its class.
        Unpickler: the class ``torch.load`` derives its unpickler from.
    """

    __name__ = "mlxport_inert_pickle"

    def __init__(self, records: Mapping[str, int] | None = None) -> None:
        self.records = records
        self.placeholders: dict[str, type[Placeholder]] = {}
        self.Unpickler = type("Unpickler", (_InertUnpickler,), {"module": self})

    def load(self, file: Any, **options: Any) -> Any:
        """Unpickle one object."""
        return self.Unpickler(file, **options).load()

    def left_out(self) -> list[str]:
        """Return the globals that placeholders stood for."""
        return sorted(set(self.placeholders) - _PARTS)

    def resolve(self, module: str, name: str) -> Any:
        """Return what stands for a global of the pickle."""
        source = f"{_MODULES.get(module, module)}.{name}"
        if source == "torch.storage._load_from_bytes":
            return _Call(self._storage_from_bytes)
        if source == "torch.storage.UntypedStorage":
            return StorageType("ByteStorage")
        if source in _ALLOWED:
            return _ALLOWED[source]
        if source not in self.placeholders:
            cls = type("Placeholder", (Placeholder,), {"source": source})
            self.placeholders[source] = cls
        return self.placeholders[source]

    def _storage_from_bytes(self, data: Any) -> Any:
        """Read a storage as plain ``pickle`` writes it: as the bytes of a legacy torch file."""
        if not isinstance(data, bytes) or not data.startswith(_LEGACY_MAGIC):
            raise pickle.UnpicklingError("a storage that torch did not write")
        return load_inert(io.BytesIO(data), self, mmap=False)


class _InertUnpickler(pickle.Unpickler):
    module: InertPickle

    def __init__(self, file: Any, **options: Any) -> None:
        super().__init__(file, **options)
        self._file = file

    def load(self) -> Any:
        check_opcodes(self._file)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        return self.module.resolve(module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # torch.load hands over its loader of storages; what it gets to see is checked first.
        super().__setattr__("_load_storage" if name == "persistent_load" else name, value)

    def persistent_load(self, pid: Any) -> Any:
        kind = pid[0] if isinstance(pid, tuple) and len(pid) > 1 else None
        if kind in ("module", b"module"):  # a class and its source, which torch would compare
            return pid[1]
        if kind not in ("storage", b"storage") or not hasattr(self, "_load_storage"):
            raise pickle.UnpicklingError(f"a reference to something outside the pickle: {kind!r}")
        if not isinstance(pid[1], StorageType):
            raise pickle.UnpicklingError("a storage of no type")
        if self.module.records is not None:
            key, count = pid[2], pid[4]
            if count * pid[1].dtype.itemsize != self.module.records.get(key):
                raise pickle.UnpicklingError(
                    f"storage {key!r} has not the {count} values it claims"
                )
        return self._load_storage(pid)


def load_inert(source: Any, module: InertPickle, *, mmap: bool) -> Any:
    """Run ``torch.load`` with placeholders for all it does not need.

    Args:
        source: a path, or a binary file of the legacy format.
        module: collects what placeholders stood for.
        mmap: leave the data on disk until looked at (zip format only).

    Raises:
        Exception: whatever torch and pickle raise on a damaged file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(
            source,
            map_location="cpu",
            pickle_module=module,
            weights_only=False,
            mmap=mmap,
            errors="surrogateescape",  # text of Python 2 may be anything
        )
