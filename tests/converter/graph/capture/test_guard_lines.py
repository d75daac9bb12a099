"""Where the model's own code tells a dynamic size from one, the model takes no size of one."""

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

import mlxport


class Net(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn, self.lin = fn, nn.Linear(3, 3)

    def forward(self, x):
        return self.fn(self, x)


def assert_agrees(fn, size):
    """Convert at a size of 4, left open; hold the model to PyTorch at another size."""
    torch.manual_seed(0)
    model = Net(fn)
    converted = mlxport.convert(model, torch.randn(4, 3), dynamic=0)
    assert converted.report.passed
    x = torch.randn(size, 3)
    given = np.array(converted.model(mx.array(x.numpy())))
    np.testing.assert_allclose(given, model(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    return converted


TOLD = {
    "above one": lambda m, x: m.lin(x) if x.shape[0] > 1 else x,
    "not one": lambda m, x: m.lin(x) if x.size(0) != 1 else x,
    "one": lambda m, x: x if x.shape[0] == 1 else m.lin(x),
    "one of two": lambda m, x: x if x.shape[0] in (1, 99) else m.lin(x),
    "one less": lambda m, x: m.lin(x) if x.shape[0] - 1 else x,
    "half": lambda m, x: m.lin(x) if x.shape[0] * 3 > 3 else x,
    "two thirds": lambda m, x: m.lin(x) if (x.shape[0] * 2) // 3 > 0 else x,
}


@pytest.mark.parametrize("fn", TOLD.values(), ids=TOLD)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_size_that_is_told_from_one(fn):
    converted = assert_agrees(fn, 7)
    with pytest.raises(ValueError, match=r"expected .*n > 1"):
        converted.model(mx.ones((1, 3)))


NOT_TOLD = {
    "read": lambda m, x: m.lin(x).reshape(x.shape[0], 3),
    "a mean": lambda m, x: x.sum(0) / x.shape[0],
    "never empty": lambda m, x: m.lin(x) if x.shape[0] else x,
    "told by torch": lambda m, x: m.lin(x) + x.mean(0, keepdim=True),
    "told, to do the same": lambda m, x: m.lin(x) * (1 if x.shape[0] > 1 else 1.0),
    "of another axis": lambda m, x: m.lin(x) if x.shape[1] > 1 else x,
}


@pytest.mark.parametrize("fn", NOT_TOLD.values(), ids=NOT_TOLD)
def test_a_size_that_may_be_one(fn):
    assert_agrees(fn, 1)
