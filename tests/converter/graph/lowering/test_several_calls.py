"""A module called at several sizes, and what passes its boundary."""

import warnings

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mlxport
from mlxport.converter.graph.capture.dynamic import symbol_ranges


class Shared(nn.Module):
    def __init__(self, op):
        super().__init__()
        self.op = op

    def forward(self, x):
        return self.op(x)


class Chunks(nn.Module):
    """First frame, then the rest: what video decoders do with one causal block."""

    def __init__(self, op):
        super().__init__()
        self.block = Shared(op)

    def forward(self, x):
        return torch.cat([self.block(x[:, :, :1]), self.block(x[:, :, 1:])], 2)


OPS = {
    "padded by nothing": lambda x: F.pad(x, (0, 0, 0, 0)),
    "copied": lambda x: x.clone(),
    "sliced whole": lambda x: x[:, :, 0:] * 2,
    "expanded by nothing": lambda x: x.expand(1, 2, -1, 4),
    "repeated once": lambda x: x.repeat(1, 1, 1, 1) + 1,
    "flattened and back": lambda x: x.flatten(2).relu().unflatten(2, (-1, 4)),
    "mean kept": lambda x: x - x.mean(2, keepdim=True),
}


@pytest.mark.parametrize("name", OPS)
def test_one_block_at_two_sizes(name):
    model = Chunks(OPS[name]).eval()
    result = mlxport.convert(model, torch.randn(1, 2, 3, 4))
    assert result.report.passed, result.report.verdict
    other = torch.randn(1, 2, 3, 4)
    given = np.array(result.model(mx.array(other.numpy())))
    np.testing.assert_allclose(given, model(other).numpy(), rtol=1e-5, atol=1e-6)


class Moved(nn.Module):
    """Brings a table to where, and what, its input is, as CTRL does with its positions."""

    def __init__(self, dtype=None):
        super().__init__()
        self.dtype, self.lin = dtype, nn.Linear(4, 4)
        self.register_buffer("table", torch.randn(8, 4))

    def forward(self, x):
        self.table = self.table.to(x.device, self.dtype or x.dtype)
        return self.lin(x) + self.table[: x.shape[0]].float()


@pytest.mark.parametrize("dtype", [None, torch.float16], ids=["its own", "float16"])
def test_a_table_moved_to_a_dtype_is_no_state(dtype):
    model = Moved(dtype).eval()
    table = model.table
    assert mlxport.convert(model, torch.randn(3, 4)).report.passed
    assert model.table is table


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.ones(3))

    def forward(self, x):
        self.table = self.table.to(x.dtype) * 0.5
        return x + self.table


def test_a_table_computed_anew_is_state():
    result = mlxport.convert(Counts().eval(), torch.randn(3))
    assert result.report.passed
    assert "self.table = self.table * 0.5" in result.source


class Reads(nn.Module):
    """Reads a number of a value, which is no size and has no least (Flaubert's lengths)."""

    def forward(self, x):
        return x * x.sum().item()


def test_a_number_of_a_value_is_no_size():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(Reads(), (torch.randn(3),), strict=False)
    assert program.range_constraints
    assert list(symbol_ranges(program)) == []
