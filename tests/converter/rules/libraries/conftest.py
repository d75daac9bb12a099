"""Classes of other libraries by their qualified names, with weights that matter."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def library_layer() -> Callable[..., torch.nn.Module]:
    """`library_layer("timm.layers.norm.LayerNorm2d", 6, eps=1e-6)`; skips without the library."""
    return _library_layer


def _library_layer(name: str, *args: Any, **kwargs: Any) -> torch.nn.Module:
    import import_torchvision  # noqa: F401  # of tests/models, which is on the path

    pytest.importorskip(name.partition(".")[0])
    module, _, cls = name.rpartition(".")
    layer: torch.nn.Module = getattr(importlib.import_module(module), cls)(*args, **kwargs)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-0.5, 1.5)
    return layer
