"""Let Python have the values of tensors that a ``forward`` computes of literals alone.

While torch.export traces, no tensor has values, so that whatever needs them (a mask that picks, a
number, the places of what is not zero) is data-dependent. Of tensors that come of neither inputs
nor the model's tensors the values are known: the traced ops are run once more, for real.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

from mlxport.converter.graph.ir.nodes import gives_the_same

_logger = logging.getLogger(__name__)

_LARGEST = 2**16  # elements, of a result that is put into the traced program

_MASKS = (torch.bool, torch.uint8)
_INDEXING = ("__getitem__", "__setitem__")

# Functions whose result has a size that depends on values, or is no tensor.
_NEEDS_VALUES = frozenset(
    (
        "__bool__",
        "__complex__",
        "__contains__",
        "__float__",
        "__index__",
        "__int__",
        *_INDEXING,
        "_unique2",
        "allclose",
        "argwhere",
        "bincount",
        "equal",
        "is_nonzero",
        "item",
        "masked_select",
        "nonzero",
        "repeat_interleave",
        "tolist",
        "unique",
        "unique_consecutive",
        "unique_dim",
        "where",
    )
)


class LiteralValues(TorchFunctionMode):
    """While active, answers what needs values by those that come of literals alone."""

    def __init__(self) -> None:
        super().__init__()
        self._known = _Values()

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch's, where all it is given is known by the values themselves."""
        kwargs, name = kwargs or {}, getattr(function, "__name__", "")
        if name not in _NEEDS_VALUES:
            return function(*args, **kwargs)
        if name in _INDEXING:
            known = self._values_of(args[1], masks=True)
            index = _with_places(args[0], args[1], known, writes=len(args) > 2)
            return function(args[0], index, *args[2:])
        known = self._values_of((args, kwargs))
        if known and all(value is not None for value in known.values()):
            found = self._computed(function, known, args, kwargs)
            if found is not NotImplemented:
                return found
        return function(*args, **kwargs)

    def _values_of(self, given: Any, *, masks: bool = False) -> dict[int, torch.Tensor | None]:
        """Return the values of the tensors that a function is given, by their identities."""
        tensors = [leaf for leaf in tree_leaves(given) if isinstance(leaf, torch.Tensor)]
        return {id(x): self._known.of(x) for x in tensors if not masks or x.dtype in _MASKS}

    def _computed(self, function: Any, known: Any, args: Any, kwargs: Any) -> Any:
        """Return what a function gives of values, tensors as literals of the traced program."""

        def run() -> Any:
            real = tree_map_only(torch.Tensor, lambda x: known[id(x)].clone(), (args, kwargs))
            return function(*real[0], **real[1])

        try:
            found = _for_real(run)
        except Exception:  # whatever torch says; it says it again of the tensors without values
            _logger.debug("%s is left to torch.export", function, exc_info=True)
            return NotImplemented
        tensors = [leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]
        if any(tensor.numel() > _LARGEST for tensor in tensors):
            return NotImplemented
        return tree_map_only(torch.Tensor, _literal, found)


def _with_places(x: Any, index: Any, known: Any, *, writes: bool) -> Any:
    """Return an index with the places that hold in place of the masks whose values are known.

    One that writes by a mask alone stays: where to write is chosen without places.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    if all(value is None for value in known.values()) or (writes and len(items) == 1):
        return index
    axis = 0
    found: list[list[Any]] = []
    for item in items:
        mask = known.get(id(item)) if isinstance(item, torch.Tensor) else None
        if item is None or item is Ellipsis:
            if item is Ellipsis:
                axis = x.ndim - sum(_axes_of(later) for later in items[len(found) + 1 :])
            found.append([item])
            continue
        if mask is None or not mask.ndim:
            found.append([item])
        elif tuple(x.shape[axis : axis + mask.ndim]) != tuple(mask.shape):
            return index  # torch refuses it
        else:
            places = _for_real(partial(mask.nonzero, as_tuple=True))
            found.append([_literal(place) for place in places])
        axis += _axes_of(item)
    parts = [part for item in found for part in item]
    return tuple(parts) if isinstance(index, tuple) or len(parts) != 1 else parts[0]


def _axes_of(item: Any) -> int:
    """Return how many axes of a tensor an item of an index is for."""
    if item is None or isinstance(item, bool):
        return 0
    mask = isinstance(item, torch.Tensor) and item.dtype in _MASKS
    return item.ndim if mask else 1


def _literal(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor of the traced program with these values."""
    if not value.numel():
        return torch.zeros(value.shape, dtype=value.dtype)
    return torch.tensor(_for_real(value.tolist), dtype=value.dtype)


def _for_real(run: Callable[[], Any]) -> Any:
    """Run torch as outside of torch.export."""
    with torch._C.DisableTorchFunction(), _disable_current_modes(), torch.no_grad():
        return run()


class _Values:
    """The values of the tensors of a traced program, as far as they come of literals alone."""

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._last: Node | None = None
        self._values: dict[Node, Any] = {}

    def of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Return the values of a tensor; None where they are not known."""
        mode = get_proxy_mode()
        slot = None if mode is None else get_proxy_slot(tensor, mode.tracer, None)
        node = getattr(getattr(slot, "proxy", None), "node", None)
        if mode is None or not isinstance(node, Node):
            return None
        if node.graph is not self._graph:
            self._graph, self._last, self._values = node.graph, None, {}
        for new in self._new_nodes(node.graph):
            self._run(new, mode.tracer)
        found = self._values.get(node)
        return found if isinstance(found, torch.Tensor) else None

    def _new_nodes(self, graph: Graph) -> Iterator[Node]:
        """Yield the nodes traced since this was asked last."""
        node = next(iter(graph.nodes)) if self._last is None else self._last.next
        while node.op != "root":
            yield node
            self._last, node = node, node.next

    def _run(self, node: Node, tracer: Any) -> None:
        """Run a node of literals; forget what one that is of more writes to."""
        if node.op == "get_attr":
            found = getattr(tracer.root, str(node.target), None)
            if type(found) is torch.Tensor and str(node.target).startswith("_tensor_constant"):
                self._values[node] = _for_real(found.clone)
            return
        op: Any = node.target
        if node.op != "call_function":
            return
        known = all(n in self._values for n in node.all_input_nodes)
        if not known and _writes(op):
            self._forget(node)
        elif known and (op is operator.getitem or gives_the_same(op)):
            given: Any = torch.fx.node.map_arg((node.args, node.kwargs), self._values.__getitem__)
            try:
                value = _for_real(lambda: op(*given[0], **given[1]))
            except Exception:  # its values stay unknown
                _logger.debug("%s is not run", op, exc_info=True)
                self._forget(node)
                return
            tensors = tree_leaves(value)
            if all(type(tensor) is torch.Tensor for tensor in tensors):
                self._values[node] = value

    def _forget(self, node: Node) -> None:
        """Forget the values of what an op reads, and of all that shares memory with it."""
        read = [self._values[n] for n in node.all_input_nodes if n in self._values]
        written = _memory(read)
        known = self._values.items()
        self._values = {n: value for n, value in known if written.isdisjoint(_memory(value))}


def _writes(op: Any) -> bool:
    """Whether an op may write to what it reads."""
    return not isinstance(op, torch._ops.OpOverload) or op._schema.is_mutable


def _memory(value: Any) -> set[int]:
    """Return the memory of the tensors in a value."""
    return {int(tensor.untyped_storage()._cdata) for tensor in tree_leaves(value)}
