"""Keep what a tensor of any kind is, find whether it changed, and put it back."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_logger = logging.getLogger(__name__)


class TensorState:
    """What a tensor is now: its memory, its layout there, its values and its gradient flag.

    Dense, sparse, nested, quantised and non-leaf tensors are compared bit for bit. A fake tensor
    (which a capture may have left behind) and one on the meta device have no values to keep.

    Args:
        tensor: the tensor.
        keep_values: copy its values at once; otherwise `save_values` has to be called before they
            are written to.
    """

    def __init__(self, tensor: torch.Tensor, keep_values: bool = True) -> None:
        self.tensor = tensor
        self.requires_grad, self._is_leaf = tensor.requires_grad, tensor.is_leaf
        self._version = _version(tensor)
        self._alias = _alias(tensor)
        self._values: torch.Tensor | None = None
        if keep_values:
            self.save_values()

    @property
    def memory(self) -> int | None:
        """Identity of the tensor's storage; None where it has none."""
        return None if self._alias is None else _memory(self._alias)

    def save_values(self) -> None:
        """Copy the values, if that was not done before."""
        if self._values is None and self._alias is not None:
            self._values = _dense_part(self._alias).clone()

    def changes(self, label: str) -> Iterator[str]:
        """Yield the name of the tensor, if it is not where and what it was."""
        if not self._is_unchanged():
            yield label

    def _is_unchanged(self) -> bool:
        if self._alias is None:
            return _version(self.tensor) == self._version
        now = _alias(self.tensor)
        return now is not None and _same_layout(now, self._alias) and self._has_values()

    def restore(self) -> None:
        """Make the tensor what it was."""
        if self._alias is None:
            return
        if self._is_leaf and not self.tensor.is_leaf:
            self.tensor.detach_()  # an in-place op gave it a history
        now = _alias(self.tensor)
        if now is None or not _same_layout(now, self._alias):
            self.tensor.data = self._alias
        if not self._has_values():
            assert self._values is not None
            with torch.no_grad(), torch.inference_mode(self._alias.is_inference()):
                self._written(self._alias).copy_(self._values)
        if self.tensor.is_leaf and self.tensor.requires_grad != self.requires_grad:
            self.tensor.requires_grad_(self.requires_grad)

    def _has_values(self) -> bool:
        return (
            self._values is None
            or self._alias is None
            or bitwise_equal(self._written(self._alias), self._values)
        )

    def _written(self, alias: torch.Tensor) -> torch.Tensor:
        """Return what to compare and to write to: sparse tensors share no memory by aliases."""
        return _dense_part(alias) if alias.layout is torch.strided else self.tensor


def bitwise_equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are of one shape and dtype and have the same bits, NaN included."""
    if a.dtype != b.dtype or a.layout != b.layout or a.is_nested != b.is_nested:
        return False
    if not a.is_nested and a.shape != b.shape:
        return False
    first, second = _bits(a), _bits(b)
    return len(first) == len(second) and all(map(torch.equal, first, second))


class WatchedWrites(TorchDispatchMode):
    """Copies the values of tensors before the first op that writes to them.

    Args:
        states: of the tensors.
    """

    # conditions, loops and the like are called as without it
    supports_higher_order_operators = True

    def __init__(self, states: Iterable[TensorState]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._states: dict[int, list[TensorState]] = {}
        for state in states:
            if (memory := state.memory) is not None:
                self._states.setdefault(memory, []).append(state)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        schema = getattr(func, "_schema", None)
        if schema is not None and schema.is_mutable:
            for tensor in _written(schema, args, kwargs):
                for state in self._states.get(_memory(tensor) or 0, ()):
                    state.save_values()
        return func(*args, **kwargs)


def _written(schema: Any, args: Any, kwargs: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """Yield the tensors an op writes to."""
    for place, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor))


def _alias(tensor: torch.Tensor) -> torch.Tensor | None:
    """Return another tensor over the same memory; None where there are no values in memory."""
    if isinstance(tensor, FakeTensor) or tensor.device.type == "meta":
        return None
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return None  # a subclass: what it is made of are its attributes, or its own business
    try:
        with torch.no_grad():
            return tensor.detach()
    except Exception as error:  # a kind of tensor without detach has nothing to be put back by
        _logger.debug("a tensor is not watched: %s", error)
        return None


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # those count no versions


def _memory(tensor: torch.Tensor) -> int | None:
    if tensor.layout is torch.sparse_coo:
        return _memory(tensor._values())
    try:
        return int(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError) as error:  # compressed sparse: it has several
        _logger.debug("a tensor has not one storage: %s", error)
        return None


def _same_layout(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.dtype != b.dtype or a.layout != b.layout or a.device != b.device:
        return False
    if a.is_nested or b.is_nested:
        return a.is_nested and b.is_nested and _memory(a) == _memory(b)
    if a.shape != b.shape:
        return False
    if a.layout is not torch.strided:
        return True
    return (
        _memory(a) == _memory(b)
        and a.stride() == b.stride()
        and a.storage_offset() == b.storage_offset()
        and (a.is_conj(), a.is_neg()) == (b.is_conj(), b.is_neg())
    )


def _dense_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return a view that has each element of an expanded tensor once; another tensor as it is."""
    if tensor.layout is not torch.strided or tensor.is_nested or 0 not in tensor.stride():
        return tensor
    once = (slice(0, 1) if step == 0 else slice(None) for step in tensor.stride())
    return tensor[tuple(once)]


def _bits(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return what a tensor is made of, as bytes."""
    if tensor.is_nested:
        return [bits for part in tensor.unbind() for bits in _bits(part)]
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), *_bits(tensor._values())]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), *_bits(tensor.values())]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), *_bits(tensor.values())]
    if tensor.layout is not torch.strided:
        return _bits(tensor.to_dense())
    if tensor.is_quantized:
        return [tensor.int_repr()]
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return [tensor.contiguous().reshape(-1).view(torch.uint8)]
