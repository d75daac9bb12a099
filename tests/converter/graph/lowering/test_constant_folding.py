"""What forward computes of nothing is written shortly, kept, or computed, as is best."""

import mlx.core as mx
import pytest
import torch
from torch import nn

import mlxport


class Net(nn.Module):
    """Runs a function given as ``run``."""

    def __init__(self, run, **arrays):
        super().__init__()
        self.run = run
        for name, value in arrays.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.run(self, x)


def converted(run, x=None, **arrays):
    x = torch.randn(2, 5, 5) if x is None else x
    result = mlxport.convert(Net(run, **arrays).eval(), x)
    assert result.report.passed, result.report.to_text()
    return result


def causal(m, x):
    rows, columns = torch.arange(5)[:, None] + 0, torch.arange(5)[None] + 0
    return x.masked_fill(~(columns <= rows).expand(2, 5, 5), 0.0)


def steps(m, x):
    return x + (torch.arange(5) * 2 + 1)


def scaled(m, x):
    return x * torch.full((), 64.0).sqrt().reciprocal()


def waves(m, x):
    return x + torch.arange(5).float().div(3).sin()


def bucketed(m, x):
    distance = torch.arange(5)[:, None] - torch.arange(5)
    buckets = (distance.abs().float() + 1).log2().long()
    return m.table(buckets).squeeze(-1) + x


WRITTEN = {
    "causal mask": (causal, "mx.triu(mx.ones((5, 5), dtype=mx.bool_), 1)"),
    "steps": (steps, "x + mx.arange(1, 11, 2, dtype=mx.int64)"),
    "number": (scaled, "x * 0.125"),
    "waves": (waves, "mx.sin("),
}


@pytest.mark.parametrize(("run", "text"), WRITTEN.values(), ids=WRITTEN)
def test_as_short_as_can_be(run, text):
    result = converted(run)
    assert text in result.source
    assert not result.conversion.plan.constants


def test_integers_decided_by_rounding_are_kept():
    result = converted(bucketed, table=nn.Embedding(4, 1))
    assert "self.table(self.constant_0)" in result.source
    assert list(result.conversion.plan.constants) == ["constant_0"]
    assert "log2" not in result.source
    assert [name for name in result.model.trainable_parameters()] == ["table"]


def test_once_where_the_same_is_kept_for_two_calls():
    inner = Net(bucketed, table=nn.Embedding(4, 1))
    result = converted(lambda m, x: m.inner(torch.tanh(m.inner(x))), inner=inner)
    assert list(result.conversion.plan.constants) == ["inner.constant_0"]
    assert result.source.count("class ") == 2


@pytest.mark.parametrize("kind", [nn.Parameter, nn.Buffer], ids=lambda kind: kind.__name__)
def test_what_a_checkpoint_may_change_is_computed(kind):
    result = converted(lambda m, x: x + m.a.square(), a=kind(torch.ones(5)))
    assert "mx.square(self.a)" in result.source


def test_random_numbers_are_drawn():
    result = converted(lambda m, x: x + torch.randn(5) * 0)
    assert "mx.random.normal" in result.source


def test_a_size_left_open_is_read():
    model = Net(lambda m, x: x + (torch.arange(x.shape[1]) * 2)[:, None])
    result = mlxport.convert(model.eval(), torch.randn(2, 5, 5), dynamic=(1,))
    assert result.report.passed, result.report.to_text()
    for size in (5, 9):
        y = result.model(mx.zeros((2, size, 5)))
        assert y[0, :, 0].tolist() == [2 * i for i in range(size)]
