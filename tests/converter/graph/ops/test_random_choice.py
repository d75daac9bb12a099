"""Choices at random: what is emitted, and that it draws from PyTorch's distribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlxport.converter.api import convert
from mlxport.converter.graph.ir.context import Unsupported

Fn = Callable[..., Any]
X = torch.linspace(-2.0, 2.0, 6).reshape(2, 3)


def empty(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


SOURCES: dict[str, tuple[Fn, list[str]]] = {
    "randint": (
        lambda x: torch.randint(3, (2,)),
        ["x1 = mx.random.randint(0, 3, (2,), dtype=mx.int64)"],
    ),
    "randint, low": (
        lambda x: torch.randint(-2, 3, (2,), dtype=torch.int32),
        ["x1 = mx.random.randint(-2, 3, (2,))"],
    ),
    "randint_like": (
        lambda x: torch.randint_like(x, 3),
        ["x1 = mx.random.randint(0, 3, a.shape)", "x2 = x1.astype(mx.float32)"],
    ),
    "bernoulli": (
        torch.bernoulli,
        ["x1 = mx.random.bernoulli(a)", "x2 = x1.astype(mx.float32)"],
    ),
    "randperm": (
        lambda x: torch.randperm(3),
        ["x1 = mx.random.permutation(3)", "x2 = x1.astype(mx.int64)"],
    ),
    "bernoulli_": (
        lambda x: x.clone().bernoulli_(0.3),
        ["x1 = mx.random.bernoulli(0.3, a.shape)", "x2 = x1.astype(mx.float32)"],
    ),
    "multinomial": (
        lambda x: torch.multinomial(x, 4, True),
        ["x1 = mx.random.categorical(mx.log(a), num_samples=4)", "x2 = x1.astype(mx.int64)"],
    ),
    "multinomial, once": (
        lambda x: torch.multinomial(x, 2),
        [
            "x1 = mx.random.gumbel(a.shape)",
            "x2 = mx.argsort(-(mx.log(a) + x1), axis=-1)[..., :2].astype(mx.int64)",
        ],
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_source(name: str, lower_op: Fn) -> None:
    fn, lines = SOURCES[name]
    assert lower_op(fn, X).body == lines


IN_PLACE: dict[str, tuple[Fn, str]] = {
    "bernoulli_": (lambda x: empty(x).bernoulli_(0.3), "mx.random.bernoulli(0.3, a.shape)"),
    "random_": (lambda x: empty(x).random_(5), "mx.random.randint(0, 5, a.shape)"),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_an_array_made_to_be_filled_is_not_made(name: str, lower_op: Fn) -> None:
    fn, drawn = IN_PLACE[name]
    assert f" = {drawn}" in lower_op(fn, X).body[1]


KINDS: dict[str, tuple[Fn, str]] = {
    "bernoulli": (lambda x: torch.bernoulli(x.sigmoid()), "bernoulli"),
    "integers": (lambda x: torch.randint_like(x, 5), "randint"),
    "tensor of probabilities": (lambda x: empty(x).bernoulli_(x[:1]), "bernoulli"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_draw_is_recorded_as_it_is_stored(name: str, lower_op: Fn) -> None:
    fn, kind = KINDS[name]
    lowered = lower_op(fn, torch.rand(2, 3, 4, 5), orders=[(0, 2, 3, 1)])
    (draw,) = lowered.cx.model.draws
    assert (draw.kind, draw.layout.shape, draw.layout.order) == (kind, (2, 3, 4, 5), (0, 2, 3, 1))


# fn of a tensor of many equal elements -> what PyTorch draws; all moments below are PyTorch's own
DISTRIBUTIONS: dict[str, Fn] = {
    "bernoulli": lambda x: torch.bernoulli(x * 0 + 0.2),
    "bernoulli_": lambda x: empty(x).bernoulli_(x * 0 + 0.7),
    "randint": lambda x: torch.randint_like(x, -3, 4),
    "multinomial": lambda x: torch.multinomial(torch.tensor([1.0, 0, 5, 2]), x.numel(), True),
    "multinomial, once": lambda x: torch.multinomial(
        torch.tensor([1.0, 3, 5, 2]).expand(x.numel(), 4), 3
    )[:, 1],
    "multinomial, half": lambda x: torch.multinomial(
        torch.tensor([0.0, 3, 1]).half(), x.numel(), True
    ),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_draws_from_pytorchs_distribution(name: str) -> None:
    class Drawing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return DISTRIBUTIONS[name](x)

    size = 40000
    x = torch.zeros(size)
    model = convert(Drawing(), (x,), verify=False).model
    mx.random.seed(1)
    torch.manual_seed(1)
    ours = torch.tensor(model(mx.zeros(size)).tolist(), dtype=torch.float64)
    theirs = Drawing()(x).double()
    assert ours.unique().tolist() == theirs.unique().tolist()
    for value in theirs.unique():
        share = (theirs == value).double().mean()
        spread = (share * (1 - share) * 2 / size) ** 0.5
        assert abs((ours == value).double().mean() - share) < 5 * spread


def test_a_permutation_is_one() -> None:
    class Shuffled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[torch.randperm(7)]

    drawn = convert(Shuffled(), (torch.arange(7.0),)).model(mx.arange(7.0))
    assert sorted(drawn.tolist()) == list(range(7))


REFUSED: dict[str, tuple[Fn, str]] = {
    "wide integers": (lambda x: torch.randint(2**30, (2,)), "does not reach them all"),
    "dropout of channels": (lambda x: F.dropout2d(x[None, None], 0.4), r"p=0\.4 is active"),
    "alpha dropout": (lambda x: F.alpha_dropout(x, 0.25, True), r"p=0\.25 is active"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, lower_op: Fn) -> None:
    fn, reason = REFUSED[name]
    with pytest.raises(Unsupported, match=reason):
        lower_op(fn, X)
