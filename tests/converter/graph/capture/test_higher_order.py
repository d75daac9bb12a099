"""Higher-order ops are refused by name, at the line that calls them."""

import pytest
import torch
from torch import nn
from torch._higher_order_ops.map import map as map_
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.nn.attention.flex_attention import flex_attention
from torch.utils.checkpoint import checkpoint

import mlxport


class Calls(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn, self.a, self.b = fn, nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.fn(self, x)


def chosen(m, x):
    return torch.cond(x.sum() > 0, lambda v: v * 2, lambda v: v - 1, (x,))


def chosen_modules(m, x):
    return torch.cond(x.sum() > 0, lambda v: m.a(v), lambda v: m.b(v), (x,))


def looped(m, x):
    return while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 2), (torch.tensor(0), x))[1]


def mapped(m, x):
    return map_(lambda v: v * 2, x)


def scanned(m, x):
    return scan(lambda c, v: (c + v, c * v), torch.zeros(4), x)[1]


def attended(m, x):
    x = x.reshape(1, 1, 2, 4)
    return flex_attention(x, x, x, score_mod=lambda score, b, h, q, k: score + q - k)


REFUSED = {
    chosen: ("torch.cond", "torch.where"),
    chosen_modules: ("torch.cond", "torch.where"),
    looped: ("while_loop", "fixed number"),
    mapped: ("map", "Python loop"),
    scanned: ("scan", "Python loop"),
    attended: ("flex_attention", "scaled_dot_product_attention"),
}


@pytest.mark.parametrize("calls", REFUSED, ids=lambda calls: calls.__name__)
def test_refused_by_name(calls):
    with pytest.raises(mlxport.ConversionError) as raised:
        mlxport.convert(Calls(calls).eval(), torch.ones(2, 4), verify=False)
    said = str(raised.value)
    name, instead = REFUSED[calls]
    assert name in said
    assert instead in said
    assert "higher-order op" in said
    assert f"{__file__}:" in said


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


def without_gradients(m, x):
    with torch.no_grad():
        y = m.a(x)
    return y + m.b(x)


SERVED = {
    "checkpoint": lambda m, x: checkpoint(m.a, x, use_reentrant=False),
    "no_grad": without_gradients,
    "vmap": lambda m, x: torch.vmap(lambda v: v * v.sum())(x),
    "autograd.Function": lambda m, x: Doubled.apply(m.a(x)),
}


@pytest.mark.parametrize("name", SERVED)
def test_what_torch_writes_out_converts(name):
    result = mlxport.convert(Calls(SERVED[name]).eval(), torch.ones(2, 4))
    assert result.report.passed
