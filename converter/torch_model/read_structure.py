"""Read how the arguments and results of a torch model nest: tuples, lists, dicts, dataclasses."""

from __future__ import annotations

import dataclasses
import json
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.utils._pytree import TreeSpec, tree_flatten

from mlxport.converter.arguments import argument
from mlxport.converter.errors import CaptureError
from mlxport.converter.plan.structure import Key, Signature, Structure, StructureKind
from mlxport.converter.torch_model.caches import is_cache_class
from mlxport.converter.torch_model.calls import CallArguments, spread_arguments

TENSOR = Structure("tensor")
NUMBER = Structure("number")


def read_structure(value: Any) -> Structure:
    """Return how a value is nested.

    Raises:
        CaptureError: it holds something other than tensors, None, booleans, numbers, strings and
            containers of them.
    """
    leaves, spec = tree_flatten(value)
    return nested(spec, map(_leaf, leaves))


def signature_of(module: torch.nn.Module, given: CallArguments, result: Any) -> Signature:
    """Return what a module was given in a call (see `in_order`), and what it gave.

    Raises:
        CaptureError: as `read_structure`.
    """
    arguments = spread_arguments(module, *given)
    return Signature({n: read_structure(v) for n, v in arguments.items()}, read_structure(result))


def nested(spec: TreeSpec, leaves: Iterable[Structure]) -> Structure:
    """Return the structure of a pytree.

    Tuples (named ones too) are tuples; lists and deques lists; dicts and whatever is read by
    attribute (dataclasses, ``transformers.ModelOutput``, ``diffusers.BaseOutput``) dicts, without
    the fields PyTorch leaves out because they are None.

    Args:
        spec: how it is nested.
        leaves: what stands for each leaf, in order.

    Raises:
        CaptureError: a container of another kind.
    """
    return _nested(spec, iter(leaves))


def _leaf(value: Any) -> Structure:
    if isinstance(value, torch.Tensor):
        if value.is_nested or value.layout is not torch.strided:
            raise CaptureError("a nested or sparse tensor; MLX has dense ones only.")
        return TENSOR
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return NUMBER
    if value is None or isinstance(value, (bool, int, float, str)):
        return Structure.constant(value)
    raise CaptureError(_refusal(type(value)))


def _nested(spec: Any, leaves: Iterator[Structure]) -> Structure:
    if spec.is_leaf():
        return next(leaves)
    items = tuple(_nested(child, leaves) for child in spec.children())
    kind, labels, keys = _container(spec, len(items))
    return Structure.container(kind, labels, items, keys)


def _container(spec: Any, size: int) -> tuple[StructureKind, tuple[str, ...], tuple[Key, ...]]:
    """Return what a container becomes, how PyTorch reads its items, and its keys if it is a dict.

    Raises:
        CaptureError: a container of another kind.
    """
    # pytree files all named tuples under one type and keeps the class as the context
    cls = spec.context if spec.type.__name__ == "namedtuple" else spec.type
    if is_cache_class(cls):
        return "list", tuple(f".layers[{i}]" for i in range(size)), ()
    if isinstance(cls, type) and issubclass(cls, (tuple, list, deque)):
        fields = getattr(cls, "_fields", None)
        labels = tuple(f".{f}" for f in fields) if fields else tuple(f"[{i}]" for i in range(size))
        return ("tuple" if issubclass(cls, tuple) else "list"), labels, ()
    if cls in (dict, OrderedDict, defaultdict):
        keys = tuple(spec.context[1] if cls is defaultdict else spec.context)
        return "dict", tuple(f"[{_quoted(key)}]" for key in keys), keys
    if isinstance(cls, type) and (issubclass(cls, Mapping) or dataclasses.is_dataclass(cls)):
        keys = _fields(spec.context, size)
        return "dict", tuple(f".{key}" for key in keys), keys
    raise CaptureError(_refusal(cls))


def _fields(context: Any, size: int) -> tuple[str, ...]:
    """Return the names of the fields of a dataclass-like container.

    Raises:
        CaptureError: its pytree registration names none.
    """
    # torch.export.register_dataclass keeps [fields, fields that are None], the others the fields
    named = context[0] if context and isinstance(context[0], (list, tuple)) else context
    names = tuple(named) if isinstance(named, (list, tuple)) else ()
    if len(names) != size or not all(isinstance(name, str) for name in names):
        raise CaptureError(
            f"a container whose pytree registration does not name its fields: {context!r}. Give "
            "tuples, lists or dicts of tensors."
        )
    return names


def _quoted(key: Any) -> str:
    if isinstance(key, str):
        return json.dumps(key)
    if type(key) is int:
        return str(key)
    raise CaptureError(
        f"a dict with the key {key!r} ({type(key).__name__}); keys may be strings and integers"
    )


def _refusal(cls: type) -> str:
    if cls.__name__.endswith("Cache"):
        return (
            f"a {cls.__name__}, which holds keys and values from one call to the next. An MLX "
            "model made here keeps no such state: pass use_cache=False "
            f"({argument('kwargs', {'use_cache': False})}, or the model's config), or the past "
            "itself as a DynamicCache that holds some (in Python only), and the model gives and "
            "takes its tensors."
        )
    if dataclasses.is_dataclass(cls):
        return (
            f"the dataclass {cls.__name__}, which is not registered with PyTorch: call "
            f"torch.export.register_dataclass({cls.__name__}) first."
        )
    arrays = " Make a tensor of it: torch.from_numpy." if cls.__module__ == "numpy" else ""
    return (
        f"a {cls.__name__}, which has no counterpart in MLX.{arrays} Give and return tensors, "
        "None, booleans, numbers, strings, and tuples, lists, dicts and dataclasses of them."
    )
