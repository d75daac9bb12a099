"""Caches of keys and values are recognised by what a program computes of them."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.export import export

from mlxport.converter.graph.capture.grown_caches import grown_tensors


class Step(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.way = way

    def forward(self, x, past):
        return self.way(x, past)


def grown(x, past):
    whole = torch.cat([past, x * 2], dim=-2)
    return whole.sum(-1), whole


def twice(x, past):
    whole = torch.cat([past, x * 2], dim=-2)
    return whole + past.sum(), whole


WAYS = {
    "grown": (grown, ["past"]),
    "by a positive axis": (lambda x, past: torch.cat([past, x], dim=2), ["past"]),
    "along another axis": (lambda x, past: torch.cat([past, x], dim=-1), []),
    "in front": (lambda x, past: torch.cat([x * 2, past], dim=-2), []),
    "not given back": (lambda x, past: torch.cat([past, x], dim=-2).sum(), []),
    "given back as a part": (lambda x, past: torch.cat([past, x], dim=-2)[:, :, 1:], []),
    "read by something else": (twice, []),
    "with itself": (lambda x, past: (torch.cat([past, past], dim=-2), x + 1), []),
    "between": (lambda x, past: torch.cat([past, x, x], dim=-2), []),
}


@pytest.mark.parametrize(("way", "found"), WAYS.values(), ids=WAYS)
def test_what_grows_is_found(way, found):
    x, past = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export's, of torch's own
        program = export(Step(way).eval(), (x, past)).run_decompositions({})
    tensors = list(grown_tensors(program))
    assert [tensor.past.name for tensor in tensors] == found
    for tensor in tensors:
        assert tensor.whole.args[0][0] is tensor.past
        assert tensor.whole.args[0][1] is tensor.added
