"""Higher-order ops become plain code, or are refused by name, at the line that calls them."""

from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch._higher_order_ops.utils as utils
from torch import nn
from torch._higher_order_ops.associative_scan import associative_scan
from torch._higher_order_ops.map import map as map_
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.nn.attention.flex_attention import flex_attention
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

import mlxport
from mlxport.converter.torch_model.control_flow import MOST_STEPS, control_flow_written_out


class Calls(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn, self.a, self.b = fn, nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.fn(self, x)


def chosen_by_size(m, x):
    return torch.cond(x.shape[0] > 1, lambda v: v * 2, lambda v: v - 1, (x,))


def of_other_shapes(m, x):
    return torch.cond(x.sum() > 0, lambda v: v * 2, lambda v: v[:1], (x,))


def of_other_dtypes(m, x):
    return torch.cond(x.sum() > 0, lambda v: v * 2, lambda v: v.bool(), (x,))


def looped(m, x):
    return while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 2), (torch.tensor(0), x))[1]


def mapped_long(m, x):
    return map_(lambda v: v * 2, x[0].expand(MOST_STEPS + 1, 4))


def scanned_long(m, x):
    return scan(lambda c, v: (c + v, c * v), torch.zeros(4), x[0].expand(MOST_STEPS + 1, 4))[1]


def attended(m, x):
    x = x.reshape(1, 1, 2, 4)
    return flex_attention(x, x, x, score_mod=lambda score, b, h, q, k: score + q - k)


REFUSED = {
    of_other_shapes: ("torch.cond", "torch.where"),
    of_other_dtypes: ("torch.cond", "torch.where"),
    looped: ("while_loop", "fixed number"),
    mapped_long: ("map", "64 steps"),
    scanned_long: ("scan", "64 steps"),
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


def adds_in_place(m, x):
    y = x * 1
    return torch.cond(x.sum() > 0, lambda v: v.add_(1) * 2, lambda v: v * 3, (y,)) + y


def other_side_adds_in_place(m, x):
    y = x * 1
    return torch.cond(x.sum() > 0, lambda v: v * 3, lambda v: v.add_(1) * 2, (y,)) + y


def other_side_adds_what_is_read_no_more(m, x):
    return torch.cond(x.sum() > 0, lambda v: v * 3, lambda v: v.add_(1) * 2, (x * 1,))


def draws(m, x):
    return torch.cond(x.sum() > 0, torch.rand_like, lambda v: v * 2, (x,)) + torch.rand_like(x)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["the first", "the other"])
@pytest.mark.parametrize(
    "calls",
    [adds_in_place, other_side_adds_in_place, other_side_adds_what_is_read_no_more, draws],
    ids=lambda calls: calls.__name__,
)
def test_sides_that_are_not_apart_are_refused(calls, sign):
    """Computed both, one would change what the other reads."""
    with pytest.raises(mlxport.ConversionError, match=r"calls torch\.cond, and gives something"):
        mlxport.convert(Calls(calls).eval(), sign * torch.ones(2, 4), verify=False)


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


def chosen(m, x):
    return torch.cond(x.sum() > 0, lambda v: v * 2, lambda v: v - 1, (x,))


def chosen_modules(m, x):
    return torch.cond(x.sum() > 0, lambda v: m.a(v), lambda v: m.b(v), (x,))


def chosen_trees(m, x):
    def one(given):
        return {"sum": given["x"] + given["y"], "product": [m.a(given["x"])]}

    def other(given):
        return {"sum": given["x"] - given["y"], "product": [given["x"].relu()]}

    found = torch.cond(x[:1, 0] > 0, one, other, ({"x": x, "y": x.sin()},))
    return found["sum"], found["product"][0]


def chosen_beside_nothing(m, x):
    return torch.cond(x.sum() > 0, m.a, m.b, (x,)), None


def chosen_within(m, x):
    def inner(v):
        return torch.cond(v.max() > 1, m.a, m.b, (v,))

    return torch.cond(x.sum() > 0, inner, lambda v: v * 3, (x,))


def mapped(m, x):
    return map_(lambda v, w: m.a(v["x"]) * w, {"x": x}, x[1].clone())


def scanned(m, x):
    return scan(lambda c, v: (c + m.a(v), c * v), torch.zeros(4), x)


def scanned_backwards(m, x):
    def step(carry, v):
        return {"sum": carry["sum"] + v[0], "times": carry["times"] * v[1]}, carry["sum"] * v[1]

    begin = {"sum": torch.zeros(2), "times": torch.ones(2)}
    return scan(step, begin, (x, x + 1), dim=1, reverse=True)


def scanned_in_pairs(m, x):
    return associative_scan(lambda a, b: a * b, x, dim=0, combine_mode="generic")


SERVED = {
    "checkpoint": lambda m, x: checkpoint(m.a, x, use_reentrant=False),
    "no_grad": without_gradients,
    "vmap": lambda m, x: torch.vmap(lambda v: v * v.sum())(x),
    "autograd.Function": lambda m, x: Doubled.apply(m.a(x)),
    "cond": chosen,
    "cond of modules": chosen_modules,
    "cond of trees": chosen_trees,
    "cond beside nothing": chosen_beside_nothing,
    "cond within cond": chosen_within,
    "cond by a size": chosen_by_size,
    "map": mapped,
    "scan": scanned,
    "scan backwards": scanned_backwards,
    "associative_scan": scanned_in_pairs,
}


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("other", [1.0, -1.0], ids=["the first", "the other"])
def test_what_torch_writes_out_converts(name, other):
    torch.manual_seed(0)
    model, x = Calls(SERVED[name]).eval(), torch.randn(2, 4)
    result = mlxport.convert(model, x, input_kinds=("normal",))
    assert result.report.passed
    torch._dynamo.reset()  # else it meets what it compiled for other cases
    x = other * torch.rand(2, 4)  # of one sign, so that each side has its turn
    with torch.no_grad():
        expected = model(x)
    got = result.model(mx.array(x.numpy()))
    for one, same in zip(tree_leaves(expected), tree_leaves(got), strict=True):
        if one is None:
            assert same is None
        else:
            torch.testing.assert_close(torch.from_numpy(np.array(same)), one)


class Chooses(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda v: self.a(v) + 1, lambda v: self.b(v) - 1, (x,))


def test_modules_of_both_sides_are_judged_and_a_side_that_no_input_took_is_named():
    result = mlxport.convert(Chooses().eval(), torch.ones(2, 4))
    assert [entry.path for entry in result.report.entries] == ["a", "b"]
    (note,) = (note for note in result.report.notes if "torch.cond" in note)
    assert f"{__file__}:" in note
    assert "no input took the side where the condition does not hold" in note
    both = mlxport.verify(result.model, Chooses().eval(), torch.ones(2, 4))
    assert not both.passed  # other weights, so that the modules are seen to be compared


def test_pytorch_is_left_as_it_was():
    before = utils._hop_compile_and_call
    mlxport.convert(Chooses().eval(), torch.ones(2, 4))
    with pytest.raises(mlxport.ConversionError):
        mlxport.convert(Calls(draws).eval(), torch.ones(2, 4))
    assert utils._hop_compile_and_call is before


def test_another_threads_calls_are_pytorchs(monkeypatch):
    with control_flow_written_out() as flow, ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(flow, "compiled", lambda fn, args, kwargs: "PyTorch's own")
        model, x = Chooses().eval(), torch.ones(2, 4)
        assert pool.submit(model, x).result() == "PyTorch's own"
        assert not flow.called
        assert torch.equal(model(x), model.a(x) + 1)
        assert flow.called == {"torch.cond"}
