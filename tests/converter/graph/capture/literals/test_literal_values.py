"""What a forward computes of literals alone has values while it is captured; nothing else has."""

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.errors import UnsupportedError
from mlxport.converter.graph.capture.literals.literal_values import LiteralValues

X = torch.linspace(-2, 2, 48).reshape(6, 8)
MASK = [True, False, True, True, False, False, True, False]


class Net(nn.Module):
    """Runs a function given as ``run``, with tensors from keyword arguments."""

    def __init__(self, run, **tensors):
        super().__init__()
        self.run = run
        for name, tensor in tensors.items():
            setattr(self, name, tensor)

    def forward(self, x):
        return self.run(self, x)


def filled(m, x):
    mask = torch.zeros(8, dtype=torch.bool)
    mask[2:5] = True
    mask[2:][:1] = False
    return x[:, mask]


def counted(m, x):
    kept = [x[:, i : i + 1] for i in torch.tensor([1, 0, 2]).tolist()]
    return torch.cat(kept, dim=1) * torch.linspace(0, 1, 5)[3].item()


def unpacked(m, x):
    for i in torch.tensor([5, 1]):
        x = x + x[:, int(i) : int(i) + 1]
    return x


def chosen(m, x):
    steps = torch.arange(4)
    if steps.sum() > 5 and steps.any():
        return x * 2
    return x


def unique(m, x):
    values, places = torch.unique(torch.tensor([3, 1, 1, 5]), return_inverse=True)
    return x[:, values].sum() + places.float()


def written(m, x):
    y = x.clone()
    y[:, torch.arange(8) % 3 == 0] = 0.0
    y[1:3, torch.arange(8) % 3 == 1] += 1.0
    return y


def leading(m, x):
    return x.reshape(2, 3, 8)[None, ..., torch.tensor(MASK)]


def two_axes(m, x):
    return x.reshape(6, 2, 4)[:, torch.ones(2, 4).tril().bool(), None]


LITERALS = {
    "a mask": lambda m, x: x[:, torch.tensor(MASK)],
    "a computed mask": lambda m, x: x[:, torch.arange(8) % 3 != 0],
    "a mask that is filled": filled,
    "a mask behind an ellipsis": leading,
    "a mask of two axes": two_axes,
    "a mask of all axes": lambda m, x: x[torch.ones(6, 8).triu() > 0],
    "a mask beside places": lambda m, x: x[
        torch.tensor([True, False] * 3), torch.tensor([0, 1, 2])
    ],
    "an empty mask": lambda m, x: x[:, torch.zeros(8, dtype=torch.bool)].sum(1) + x[:, 0],
    "a mask that is written by": written,
    "of numpy": lambda m, x: x[:, torch.from_numpy(np.arange(8) % 3 == 0)],
    "nonzero": lambda m, x: x[:, torch.nonzero(torch.tensor(MASK)).squeeze(1)],
    "where": lambda m, x: x[torch.where(torch.eye(6, 8) > 0)],
    "unique": unique,
    "bincount": lambda m, x: x * torch.bincount(torch.tensor([0, 1, 1, 7])),
    "masked_select": lambda m, x: x[:, :3] + torch.arange(6).masked_select(torch.arange(6) > 2),
    "repeat_interleave": lambda m, x: x[
        :, torch.arange(3).repeat_interleave(torch.tensor([2, 1, 3]))
    ],
    "numbers": counted,
    "numbers one by one": unpacked,
    "a decision": chosen,
    "in an attribute": lambda m, x: x[:, torch.arange(8) % m.three == 0],
}


@pytest.mark.parametrize("run", LITERALS.values(), ids=LITERALS)
def test_literals_have_values(run):
    model = Net(run, three=3).eval()
    result = mlxport.convert(model, X)
    assert result.report.passed, result.report.to_text()
    y = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    ours = torch.from_numpy(np.array(result.model(mx.array(y.numpy()))))
    torch.testing.assert_close(ours, model(y))


def of_input(m, x):
    mask = torch.zeros(8)
    mask[2:5] = 1
    mask[0] = x[0, 0]
    return x[:, mask > 0]


def of_input_by_a_view(m, x):
    mask = torch.zeros(8, dtype=torch.bool)
    mask[2:5].copy_(x[0, :3] > 0)
    return x[:, mask]


def drawn(m, x):
    return x * (2.0 if torch.rand(3).sum() > -1 else 1.0)


REFUSED = {
    "the input": lambda m, x: x[x > 0],
    "written of the input": of_input,
    "written through a view": of_input_by_a_view,
    "a buffer": lambda m, x: x[:, m.mask],
    "a parameter": lambda m, x: x[:, m.weight > 0],
    "drawn": drawn,
    "another length": lambda m, x: x[:, torch.ones(7, dtype=torch.bool)],
}


@pytest.mark.parametrize("run", REFUSED.values(), ids=REFUSED)
def test_all_else_has_none(run):
    model = Net(run, mask=nn.Buffer(torch.tensor(MASK)), weight=nn.Parameter(torch.ones(8)))
    with pytest.raises(mlxport.ConversionError):
        mlxport.convert(model.eval(), X)


def test_a_size_of_values_is_refused_by_its_op():
    """Also where it meets other sizes."""
    model = Net(lambda m, x: x[:, (x[0] > 0).nonzero().flatten()].sum(1) + x[:, 0])
    with pytest.raises(UnsupportedError, match=r"nonzero.*size depends on the data"):
        mlxport.convert(model.eval(), X)


def test_the_axis_of_a_mask_keeps_its_length():
    model = Net(lambda m, x: x[:, torch.tensor(MASK)]).eval()
    with pytest.raises(mlxport.ConversionError, match="one size only"):
        mlxport.convert(model, X, dynamic={"x": (1,)})
    result = mlxport.convert(model, X, dynamic={"x": (0,)})
    assert result.model(mx.zeros((3, 8))).shape == (3, 4)
    with pytest.raises(ValueError, match="8"):
        result.model(mx.zeros((3, 9)))


def test_a_large_result_is_left_to_torch():
    """Nothing of that size is put into a program."""
    with LiteralValues(), pytest.raises(Exception, match=r"data-dependent|DataDependent"):
        torch.export.export(
            Net(lambda m, x: x[: int(torch.ones(2**17).nonzero().shape[0])]), (X,), strict=False
        )
