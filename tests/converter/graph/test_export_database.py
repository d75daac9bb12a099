"""PyTorch's own examples of what torch.export can and cannot do: converted right, or refused."""

import contextlib
import io
import os

import pytest
import torch
from torch._export.db.examples import all_examples

import mlxport
from mlxport.converter.errors import InternalError

with contextlib.redirect_stdout(io.StringIO()):
    CASES = all_examples()

SWEEP = os.environ.get("MLXPORT_SWEEP") == "1"
OF_SIZES = [name for name in CASES if "shape" in name or "size" in name]


def tried(name, dynamic, **judged):
    """Convert an example; parity holds, or mlxport refuses it and takes no blame."""
    case = CASES[name]
    kwargs = dict(case.example_kwargs or {})
    torch.manual_seed(0)
    try:
        model, args = case.model.eval(), tuple(case.example_args)
        result = mlxport.convert(model, args, kwargs, dynamic=dynamic, **judged)
    except mlxport.ConversionError as error:
        if isinstance(error, InternalError):
            raise
    else:
        assert result.report.passed, result.report.verdict


@pytest.mark.parametrize("name", CASES)
def test_static(name):
    tried(name, None)


@pytest.mark.parametrize("name", CASES if SWEEP else OF_SIZES)
def test_dynamic(name):
    tried(name, 0)


@pytest.mark.skipif(not SWEEP, reason="takes minutes: MLXPORT_SWEEP=1")
@pytest.mark.parametrize("name", CASES)
def test_on_another_input(name):
    tried(name, None, input_kinds=("normal",))
