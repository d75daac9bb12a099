"""Draws: what is emitted, that it draws from PyTorch's distribution, and what is recorded of it."""

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
from mlxport.converter.graph.translate import translate

Fn = Callable[..., Any]
X = torch.linspace(-2.0, 2.0, 6).reshape(2, 3)


def empty(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


SOURCES: dict[str, tuple[Fn, list[str]]] = {
    "randn": (lambda x: torch.randn(2, 3), ["x1 = mx.random.normal((2, 3))"]),
    "randn, half": (
        lambda x: torch.randn(2, dtype=torch.bfloat16),
        ["x1 = mx.random.normal((2,), dtype=mx.bfloat16)"],
    ),
    "randn, no generator": (
        lambda x: torch.randn(2, generator=None),
        ["x1 = mx.random.normal((2,))"],
    ),
    "randn_like": (torch.randn_like, ["x1 = mx.random.normal(a.shape)"]),
    "normal": (lambda x: torch.normal(0.0, 1.0, (2,)), ["x1 = mx.random.normal((2,))"]),
    "normal, numbers": (
        lambda x: torch.normal(3.0, 0.5, (2,)),
        ["x1 = mx.random.normal((2,), loc=3.0, scale=0.5)"],
    ),
    "normal, means": (
        lambda x: torch.normal(x, 0.5),
        ["x1 = mx.random.normal(a.shape, loc=a, scale=0.5)"],
    ),
    "normal, deviations": (
        lambda x: torch.normal(2.0, x.abs()),
        ["x1 = mx.abs(a)", "x2 = mx.random.normal(x1.shape, loc=2.0, scale=x1)"],
    ),
    "rand": (lambda x: torch.rand(2), ["x1 = mx.random.uniform(shape=(2,))"]),
    "rand_like": (torch.rand_like, ["x1 = mx.random.uniform(shape=a.shape)"]),
}


@pytest.mark.parametrize("name", SOURCES)
def test_source(name: str, lower_op: Fn) -> None:
    fn, lines = SOURCES[name]
    assert lower_op(fn, X).body == lines


IN_PLACE: dict[str, tuple[Fn, str]] = {
    "normal_": (lambda x: empty(x).normal_(1, 2), "mx.random.normal(a.shape, loc=1.0, scale=2.0)"),
    "uniform_": (lambda x: empty(x).uniform_(1, 3), "mx.random.uniform(1.0, 3.0, shape=a.shape)"),
    "of its own size": (lambda x: torch.empty(2, 5).normal_(), "mx.random.normal((2, 5))"),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_an_array_made_to_be_filled_is_not_made(name: str, lower_op: Fn) -> None:
    fn, drawn = IN_PLACE[name]
    assert f" = {drawn}" in lower_op(fn, X).body[1]


KINDS: dict[str, tuple[Fn, str]] = {
    "normal": (torch.randn_like, "normal"),
    "exponential": (lambda x: empty(x).exponential_(), "uniform"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_draw_is_recorded_as_it_is_stored(name: str, lower_op: Fn) -> None:
    fn, kind = KINDS[name]
    lowered = lower_op(fn, torch.rand(2, 3, 4, 5), orders=[(0, 2, 3, 1)])
    (draw,) = lowered.cx.model.draws
    assert (draw.kind, draw.layout.shape, draw.layout.order) == (kind, (2, 3, 4, 5), (0, 2, 3, 1))


# fn of a tensor of many equal elements -> what PyTorch draws; all moments below are PyTorch's own
DISTRIBUTIONS: dict[str, Fn] = {
    "normal": lambda x: torch.normal(x + 2, x * 0 + 3.0),
    "normal_": lambda x: empty(x).normal_(-1, 0.25),
    "uniform": lambda x: empty(x).uniform_(-3, 5),
    "rand": lambda x: torch.rand_like(x),
    "exponential": lambda x: empty(x).exponential_(4.0),
    "exponential, half": lambda x: empty(x.half()).exponential_(0.5),
    "gumbel": lambda x: F.gumbel_softmax(torch.stack([x, x + 1]), dim=0)[0],
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
    for power in (1, 2, 3):
        spread = (theirs**power).std() * (2 / size) ** 0.5
        assert abs((ours**power).mean() - (theirs**power).mean()) < 5 * spread
    for bound in (torch.min, torch.max):
        if name.startswith(("rand", "unif")):
            assert abs(bound(ours) - bound(theirs)) < 1e-2


REFUSED: dict[str, tuple[Fn, str]] = {
    "complex": (lambda x: torch.randn(2, dtype=torch.complex64), "only floating-point dtypes"),
    "float64": (lambda x: torch.rand(2, dtype=torch.float64), "float64 on the CPU only"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, lower_op: Fn) -> None:
    fn, reason = REFUSED[name]
    with pytest.raises(Unsupported, match=reason):
        lower_op(fn, X)


class TestOrder:
    """Draws come in PyTorch's order, however the lines of a body are put together."""

    def lines(self, forward: Fn) -> list[str]:
        class Drawing(nn.Module):
            def forward(self, x: torch.Tensor) -> Any:
                return forward(x)

        source = translate(Drawing(), (torch.randn(2, 3),)).source
        return [line.strip() for line in source.splitlines() if "mx.random" in line]

    def test_of_two_that_are_read_in_the_other_order(self) -> None:
        def forward(x: torch.Tensor) -> torch.Tensor:
            a, b = torch.randn(3), torch.rand(3)
            return b / a

        first, second = self.lines(forward)
        assert "normal" in first
        assert "uniform" in second

    def test_one_read_after_another_call_stays_before_it(self) -> None:
        def forward(x: torch.Tensor) -> torch.Tensor:
            a = torch.randn(3)
            return torch.rand(3).exp().sum() * 2 + a.abs() * x

        first, second = self.lines(forward)
        assert "normal" in first
        assert "uniform" in second

    def test_one_read_for_its_shape_alone_stays(self) -> None:
        (line,) = self.lines(lambda x: x + torch.randn(2, 3).uniform_())
        assert "mx.random.uniform(shape=mx.random.normal((2, 3)).shape)" in line

    def test_one_that_nothing_reads_stays(self) -> None:
        (line,) = self.lines(lambda x: x + torch.full_like(torch.randn(2, 3), 3.0))
        assert line == "_ = mx.random.normal((2, 3))"

    def test_one_read_after_a_module_that_draws_stays_before_it(self) -> None:
        class Inner(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * torch.rand_like(x)

        class Outer(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = Inner()

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                noise = torch.randn_like(x)
                return self.inner(x) + noise

        converted = convert(Outer(), (X,))
        assert [draw.kind for draw in converted.conversion.draws] == ["normal", "uniform"]
        assert converted.report is not None
        assert converted.report.passed

    def test_a_free_draw_is_stored_as_its_consumers_want_it(self) -> None:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(3, 4, 1)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.conv(x) + torch.randn(2, 4, 5, 6)

        translation = translate(Net(), (torch.randn(2, 3, 5, 6),))
        assert "mx.random.normal((2, 5, 6, 4))" in translation.source
        assert translation.conversion.draws[0].layout.order == (0, 2, 3, 1)
