"""Masks that leave every query a key are known as such, and no others."""

import pytest
import torch
from torch.nn import functional as F

import mlxport
from mlxport.converter.graph import ops
from mlxport.converter.graph.capture.capture import capture
from mlxport.converter.graph.ir.nodes import ATTENDED

FAST = "mx.fast.scaled_dot_product_attention("


class Attention(torch.nn.Module):
    """Attention of ``(n, 2, L, 4)`` to itself and what came before, ``(n, 2, h, 4)``.

    Args:
        mask: gives a mask of the numbers of queries and keys.
        literal: whether it is given numbers that depend on no input.
    """

    def __init__(self, mask, *, literal=False):
        super().__init__()
        self.mask, self.literal = mask, literal

    def forward(self, x, past):
        keys = torch.cat([past, x], 2)
        sizes = (5, 12) if self.literal else (x.shape[2], keys.shape[2])
        return F.scaled_dot_product_attention(x, keys, keys, self.mask(*sizes))


def at(count, first=0):
    """Return positions."""
    return torch.arange(count) + first


def rows(n, m):
    """Return the positions of the queries, one a row."""
    return at(n, m - n)[:, None]


def causal(n, m, shift=0):
    return at(m) <= rows(n, m) + shift


def window(n, m, width):
    return causal(n, m) & (at(m) > rows(n, m) - width)


def with_axes(n, m):
    seen = torch.arange(m)[None, None, None, :] <= rows(n, m)[None, None]
    return seen.expand(1, 2, -1, -1)


LEAVES = {
    "causal": causal,
    "turned round": lambda n, m: rows(n, m) >= at(m),
    "from the first key": lambda n, m: at(m) <= at(n)[:, None],
    "with axes in front": with_axes,
    "a window": lambda n, m: window(n, m, 3),
    "a window of one": lambda n, m: window(n, m, 1),
    "anticausal": lambda n, m: at(m) >= rows(n, m),
    "all": lambda n, m: torch.ones(n, m, dtype=torch.bool),
    "two of three": lambda n, m: causal(n, m) | (at(m) * at(m) == 9).expand(n, m),
    "of int32": lambda n, m: at(m).int() <= rows(n, m).int(),
    "positions that are not negative": lambda n, m: (rows(n, m) >= 0).expand(n, m),
}
MAY_NOT = {
    "before the first": lambda n, m: causal(n, m, shift=n - m - 1),
    "a window of none": lambda n, m: window(n, m, 0),
    "behind the last": lambda n, m: at(m) > rows(n, m),
    "none": lambda n, m: torch.zeros(n, m, dtype=torch.bool),
    "one row without": lambda n, m: causal(n, m) & (at(n)[:, None] != 1),
    "of floats": lambda n, m: at(m).half() * 5 < at(n)[:, None].half() * 5,
}


@pytest.fixture
def tensors():
    return torch.randn(2, 2, 5, 4), torch.randn(2, 2, 7, 4)


@pytest.mark.parametrize("mask", LEAVES.values(), ids=LEAVES)
def test_a_mask_of_literals_that_leaves_every_query_a_key(mask, tensors):
    captured = capture(Attention(mask, literal=True), tensors, handled=ops.registry.OPS)
    assert sum(ATTENDED in node.meta for node in captured.program.graph.nodes) == 1


@pytest.mark.parametrize("mask", LEAVES.values(), ids=LEAVES)
def test_a_mask_of_any_size_that_leaves_every_query_a_key(mask, tensors):
    model = Attention(mask)
    source = mlxport.convert(model, tensors, dynamic={"x": 2, "past": 2}, verify=False).source
    assert FAST in source


@pytest.mark.parametrize("mask", MAY_NOT.values(), ids=MAY_NOT)
def test_a_mask_that_masks_a_query_whole(mask, tensors):
    model = Attention(mask, literal=True)
    converted = mlxport.convert(model, tensors)
    assert FAST not in converted.source
    assert converted.report.passed


@pytest.mark.parametrize("mask", MAY_NOT.values(), ids=MAY_NOT)
def test_a_mask_of_any_size_that_masks_a_query_whole(mask, tensors):
    dynamic = {"x": 2, "past": 2}
    assert (
        FAST not in mlxport.convert(Attention(mask), tensors, dynamic=dynamic, verify=False).source
    )


@pytest.mark.parametrize("name", ["causal", "a window", "with axes in front"])
def test_such_a_mask_is_given_to_the_fast_attention(name, tensors):
    converted = mlxport.convert(Attention(LEAVES[name]), tensors, dynamic={"x": 2, "past": 2})
    assert FAST in converted.source
    assert converted.report.passed


def test_a_cache_may_be_empty(tensors):
    model = Attention(lambda n, m: causal(n, m, shift=-1))  # of the first query, none of no past
    source = mlxport.convert(model, tensors, dynamic={"x": 2, "past": 2}, verify=False).source
    assert FAST not in source


def test_there_may_be_no_keys():
    class Crossed(torch.nn.Module):
        def forward(self, x, keys):
            mask = torch.ones(x.shape[2], keys.shape[2], dtype=torch.bool)
            return F.scaled_dot_product_attention(x, keys, keys, mask)

    given, dynamic = (torch.randn(2, 2, 5, 4), torch.randn(2, 2, 7, 4)), {"x": 2, "keys": 2}
    source = mlxport.convert(Crossed(), given, dynamic=dynamic, verify=False).source
    assert FAST not in source


def test_a_mask_that_is_given_may_mask_a_query_whole():
    class Masked(torch.nn.Module):
        def forward(self, x, keep):
            mask = causal(x.shape[2], x.shape[2]) & keep[:, None, None, :]
            return F.scaled_dot_product_attention(x, x, x, mask)

    keep = torch.tensor([[True] * 5, [False] * 5])
    converted = mlxport.convert(Masked(), (torch.randn(2, 2, 5, 4), keep))
    assert FAST not in converted.source
    assert converted.report.passed
