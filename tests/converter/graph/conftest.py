import pytest
import torch

from mlxport.converter.graph import ops
from mlxport.converter.graph.capture.capture import capture
from mlxport.converter.graph.lowering.lower import lower
from mlxport.converter.graph.translate import translate


@pytest.fixture
def lowered():
    """Lower a model on example inputs."""

    def run(model, *args, dynamic=None, **options):
        captured = capture(model.eval(), args, handled=ops.registry.OPS, dynamic=dynamic)
        return lower(captured, **options)

    return run


@pytest.fixture
def source_of():
    """Return the emitted source of a model."""

    def run(model, *args, **options):
        return translate(model.eval(), args, **options).source

    return run


@pytest.fixture
def volume():
    """A small batch of volumes, (N, C, D, H, W)."""
    return torch.randn(2, 4, 3, 5, 4, generator=torch.Generator().manual_seed(0))
