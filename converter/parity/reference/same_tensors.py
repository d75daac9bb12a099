"""Which tensors are still the very ones that a call was given, whatever they are called by then.

A module often hands what it was fed on to the first module inside it. What is computed of the same
values need not be computed twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Known:
    """Labels of tensors, for as long as nobody writes into them.

    Args:
        tensors: the tensors; kept alive.
        labels: of each, what stands for its values.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> None:
        self._held = {
            id(tensor): (tensor, tensor._version, label)
            for tensor, label in zip(tensors, labels, strict=True)
            if not tensor.is_inference()  # these do not count what is written into them
        }

    def label(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Return the label of a tensor; None where it is another, or was written into."""
        _, version, label = self._held.get(id(tensor), (None, -1, None))
        return label if label is not None and tensor._version == version else None


def same(some: Sequence[torch.Tensor | None], others: Sequence[torch.Tensor]) -> bool:
    """Tell whether two calls were given the very same tensors, and any at all."""
    if not others or len(some) != len(others):
        return False
    return all(one is other for one, other in zip(some, others, strict=True))
