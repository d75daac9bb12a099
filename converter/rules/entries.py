"""Plan entries as rules need them most: one tensor to one parameter of the same name."""

from __future__ import annotations

import torch

from mlxport.converter.plan.steps import Step
from mlxport.converter.plan.weight_plan import Entry


def kept(module: torch.nn.Module, *names: str) -> tuple[Entry, ...]:
    """Return entries that keep the named tensors as they are; those that are None have none."""
    return tuple(one(name) for name in names if getattr(module, name, None) is not None)


def one(name: str, *steps: Step) -> Entry:
    """Return the entry of one tensor whose parameter bears its name."""
    return Entry((name,), (name,), steps)
