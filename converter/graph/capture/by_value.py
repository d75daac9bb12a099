"""Match tensors by their values, where torch.export does not record which is which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

SAMPLES = 257
SAME_TENSOR = 1e-3  # decompositions round differently; other tensors differ by far more


@dataclass(frozen=True)
class Seen:
    """What is kept of a tensor: enough to know it again."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    sample: torch.Tensor

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Seen:
        """Keep shape, dtype and some values of a tensor."""
        if tensor.is_nested or tensor.layout is not torch.strided:
            return cls((), tensor.dtype, torch.zeros(0))  # MLX has no such; it is refused later
        flat = tensor.detach().reshape(-1)
        step = max(flat.numel() // SAMPLES, 1)
        return cls(tuple(tensor.shape), tensor.dtype, flat[::step].to(torch.complex128).clone())

    def is_like(self, other: Seen) -> bool:
        """Whether both are of one tensor, computed twice."""
        if self.shape != other.shape:
            return False
        a, b = self.sample, other.sample
        scale = b.abs().nan_to_num().max() if b.numel() else torch.zeros(())
        return torch.allclose(a, b, rtol=0.0, atol=float(scale) * SAME_TENSOR, equal_nan=True)


def places(some: Sequence[Seen], among: Sequence[Seen]) -> list[int | None]:
    """Return the position of each of some tensors among others, none twice; None if absent."""
    free = list(range(len(among)))
    found: list[int | None] = []
    for one in some:
        place = next((i for i in free if one.is_like(among[i])), None)
        found.append(place)
        if place is not None:
            free.remove(place)
    return found
