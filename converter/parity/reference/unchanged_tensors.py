"""Recognise tensors that a module passes on unchanged, so that nothing is computed twice for them.

A module often hands its input on to the first module inside it. A call with the same inputs needs
neither a second copy of them nor a second run in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class UnchangedTensors:
    """Tensors, each with a label, for as long as nobody writes into them.

    Args:
        tensors: the tensors; kept alive, so that their identity stays theirs.
        labels: of each, the tensor that represents its values (a copy of it, say).
    """

    def __init__(self, tensors: Sequence[torch.Tensor], labels: Sequence[torch.Tensor]) -> None:
        self._labels = {
            id(tensor): (tensor, tensor._version, label)
            for tensor, label in zip(tensors, labels, strict=True)
            if not tensor.is_inference()  # these do not count what is written into them
        }

    def label(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Return the label of a tensor; None where it is another one, or was written into."""
        _, version, label = self._labels.get(id(tensor), (None, -1, None))
        return label if label is not None and tensor._version == version else None


def same_tensors(some: Sequence[torch.Tensor | None], others: Sequence[torch.Tensor]) -> bool:
    """Tell whether two calls have the very same tensors as inputs, and any at all."""
    if not others or len(some) != len(others):
        return False
    return all(one is other for one, other in zip(some, others, strict=True))
