"""Let a cache of transformers be read as the tensors it holds, while a model is looked at.

A ``DynamicCache`` holds the keys and values of every attention layer and grows by what each call
adds. To ``torch.utils._pytree``, and so to torch.export, it is then a list of layers, each a named
tuple of keys and values. transformers registers it with PyTorch when it exports; but a cache that
it builds anew of tensors concatenates each with an empty one, which the captured program then holds
as a constant. What was registered before is put back.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mlxport.converter.arguments import argument
from mlxport.converter.errors import CaptureError

if TYPE_CHECKING:
    import torch

_logger = logging.getLogger(__name__)

_MODULE = "transformers.cache_utils"

_lock = threading.RLock()  # what PyTorch knows of a class is the whole process's


class LayerCache(NamedTuple):
    """What a cache holds of one layer.

    Attributes:
        keys: ``(batch, heads, length, head size)``.
        values: the same.
    """

    keys: Any
    values: Any


@dataclass(frozen=True)
class FilledCache:
    """An example cache, which the model that it is for fills itself.

    Attributes:
        batch: how many texts it is of.
        length: how many tokens of each it holds.
        words: the largest number of a token.
    """

    batch: int
    length: int
    words: int

    def of(self, model: torch.nn.Module, generator: torch.Generator) -> Any:
        """Return a ``DynamicCache`` with what a model of transformers keeps of random tokens.

        Args:
            model: takes ``input_ids`` and ``past_key_values``; is left as it was.
            generator: of random numbers.

        Raises:
            CaptureError: the model raises when it is called so.
        """
        import torch

        from mlxport.converter.torch_model.model_state import eval_mode, trial_run

        ids = torch.randint(self.words + 1, (self.batch, self.length), generator=generator)
        try:
            cache = sys.modules[_MODULE].DynamicCache(config=model.config)
            with torch.no_grad(), eval_mode(model), trial_run(model):
                model(input_ids=ids, past_key_values=cache, use_cache=True)
        except Exception as error:  # whatever the code of a model raises
            _logger.info("no cache of %s can be filled", type(model).__name__, exc_info=True)
            reason = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
            raise CaptureError(
                f"{type(model).__name__} cannot be called on {self.length} tokens with an empty "
                f"cache: {reason}"
            ) from error
        return cache


def is_cache_class(cls: Any) -> bool:
    """Tell whether a class is the ``DynamicCache`` of transformers, which is read as a list."""
    module = sys.modules.get(_MODULE)
    return module is not None and cls is getattr(module, "DynamicCache", ())


def caches_in(value: Any) -> Iterator[Any]:
    """Yield the caches in nested tuples, lists and dicts."""
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from caches_in(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from caches_in(item)
    elif is_cache_class(type(value)):
        yield value


@contextmanager
def caches_as_tensors(arguments: Any) -> Iterator[None]:
    """Let caches be nested containers of tensors to PyTorch, where a call is given one.

    Args:
        arguments: of the call, nested.

    Raises:
        CaptureError: a cache that is empty, or has layers of other kinds.
    """
    caches = list(caches_in(arguments)) if _MODULE in sys.modules else []
    if not caches:
        yield
        return
    _check(caches)
    cls = type(caches[0])
    with _lock:
        before = _register(cls)
        try:
            yield
        finally:
            _put_back(cls, before)


def _check(caches: list[Any]) -> None:
    plain = sys.modules[_MODULE].DynamicLayer
    problems = []
    for cache in caches:
        for i, layer in enumerate(cache.layers):
            if type(layer) is not plain:
                problems.append(f"layer {i}: a {type(layer).__name__}")
            elif not layer.is_initialized or layer.keys.ndim != 4:
                problems.append(f"layer {i}: empty")
        if not cache.layers:
            problems.append("no layers")
    if problems:
        raise CaptureError.listing(
            f"the cache given ({argument('example_inputs')}) cannot be taken:",
            list(dict.fromkeys(problems)),
            "A DynamicCache passes whose layers all are of the class DynamicLayer, without a "
            "window, and hold keys and values: call the model on two tokens with it first.",
        )


def _tables() -> list[dict[Any, Any]]:
    """Return where PyTorch keeps what it knows of a class, by the class."""
    import torch.fx._pytree as of_graphs
    import torch.utils._pytree as pytree

    return [
        pytree.SUPPORTED_NODES,
        pytree.SUPPORTED_SERIALIZED_TYPES,
        of_graphs.SUPPORTED_NODES,
        of_graphs.SUPPORTED_NODES_EXACT_MATCH,
    ]


def _register(cls: type) -> list[Any]:
    """Let PyTorch read a class as a list of its layers; return what it knew of it before."""
    import torch.fx._pytree as of_graphs
    import torch.utils._pytree as pytree

    before = [table.pop(cls, None) for table in _tables()]
    node = pytree.NodeDef(cls, _layers, _cache, _layers_by_key)
    pytree.SUPPORTED_NODES[cls] = node
    of_graphs.SUPPORTED_NODES[cls] = lambda cache, spec: _layers(cache)[0]
    of_graphs.SUPPORTED_NODES_EXACT_MATCH[cls] = None
    return before


def _put_back(cls: type, before: list[Any]) -> None:
    for table, known in zip(_tables(), before, strict=True):
        table.pop(cls, None)
        if known is not None:
            table[cls] = known


def _layers(cache: Any) -> tuple[list[LayerCache], None]:
    return [LayerCache(layer.keys, layer.values) for layer in cache.layers], None


def _layers_by_key(cache: Any) -> tuple[list[tuple[Any, LayerCache]], None]:
    from torch.utils._pytree import SequenceKey

    return [(SequenceKey(i), layer) for i, layer in enumerate(_layers(cache)[0])], None


def _cache(layers: Any, context: None) -> Any:
    module = sys.modules[_MODULE]
    cache = module.DynamicCache()
    for keys, values in layers:
        layer = module.DynamicLayer()
        layer.keys, layer.values, layer.is_initialized = keys, values, True
        layer.dtype, layer.device = getattr(keys, "dtype", None), getattr(keys, "device", None)
        cache.layers.append(layer)
    return cache
