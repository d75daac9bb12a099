"""Plan entries that most rules need: one tensor to the parameter of the same name."""

from __future__ import annotations

import torch

from mlxport.converter.plan.steps import Step
from mlxport.converter.plan.weight_plan import Entry


def unchanged_entries(module: torch.nn.Module, *names: str) -> tuple[Entry, ...]:
    """Return entries that copy the named tensors unchanged; attributes that are None have none."""
    return tuple(entry_of(name) for name in names if getattr(module, name, None) is not None)


def entry_of(name: str, *steps: Step) -> Entry:
    """Return the entry of one tensor whose parameter has the same name."""
    return Entry((name,), (name,), steps)
