"""PyTorch's own samples of its layers and ops are left as they were, converted or refused."""

import contextlib
import os
import warnings

import pytest
import torch
from model_snapshot import differences, facts
from op_database import op_samples, ops
from sample_database import Sample, samples
from torch import nn

import mlxport
from mlxport.converter.errors import ConversionError

# one sample of each; of one in so many unless all are asked for
SWEEP = os.environ.get("MLXPORT_SWEEP", "0") != "0"
LAYERS = list({s.layer: s for s in reversed(list(samples())) if not s.training}.values())
OPS = [op for op, dtype in ops() if dtype is torch.float32]


class Calls(nn.Module):
    """An op on tensors, and on a parameter and a buffer in place of the first."""

    def __init__(self, function, first):
        super().__init__()
        self.function = function
        self.register_buffer("kept", first.clone())

    def forward(self, *tensors):
        return self.function(*tensors), self.function(self.kept, *tensors[1:])


def changed(model, args, kwargs):
    """What a conversion, judged or refused, and an analysis change in a model."""
    before = facts(model)
    for call in (mlxport.convert, mlxport.analyze):
        with contextlib.suppress(ConversionError):
            call(model, args, kwargs)
    # the process changes where more of a package is imported, and PyTorch warns once of an op
    return [path for path in differences(before, facts(model)) if path != "process"]


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what PyTorch's samples call
        yield


@pytest.mark.parametrize("sample", LAYERS if SWEEP else LAYERS[::24], ids=str)
def test_a_layer(sample: Sample) -> None:
    layer, call = sample.build()
    assert changed(layer, call.args, call.kwargs) == []


@pytest.mark.parametrize("op", OPS if SWEEP else OPS[::120])
def test_an_op(op: str) -> None:
    calls = (sample.call() for sample in op_samples(op, torch.float32))
    function, tensors = next(((f, tensors) for f, tensors in calls if tensors), (None, ()))
    if not tensors:
        pytest.skip("none of its samples has a dense tensor, so there is no model to change")
    assert changed(Calls(function, tensors[0]), tuple(tensors), {}) == []
