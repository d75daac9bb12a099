"""What forward computes of nothing is written shortly, kept, or computed, as is best."""

import mlx.core as mx
import pytest
import torch
from mlx.utils import tree_flatten
from torch import nn

import mlxport
from mlxport.converter.errors import UnsupportedError


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


def by_torch_alone(m, x):
    return x * torch.kaiser_window(5, True, 0.0)


def doubled(m, x):
    return x * torch.full((5,), 2.0, dtype=torch.float64).sqrt().pow(2).round().float()


def first_sorted(m, x):
    return x[..., (torch.arange(5) * 1.7).sin().sort().indices]


WRITTEN = {
    "causal mask": (causal, "mx.triu(mx.ones((5, 5), dtype=mx.bool_), 1)"),
    "steps": (steps, "x + mx.arange(1, 11, 2, dtype=mx.int64)"),
    "number": (scaled, "x * 0.125"),
    "waves": (waves, "mx.sin("),
    "no handler": (by_torch_alone, "x * mx.ones((5,))"),
    "float64": (doubled, "x * mx.full((5,), 2.0)"),
    "several results": (first_sorted, "mx.array([3, 2, 0, 4, 1], dtype=mx.int64)"),
}


@pytest.mark.parametrize(("run", "text"), WRITTEN.values(), ids=WRITTEN)
def test_as_short_as_can_be(run, text):
    result = converted(run)
    assert text in result.source
    assert not result.conversion.plan.constants


def test_a_constant_that_is_computed_of_nothing_is_written_as_it_is():
    result = converted(lambda m, x: x + torch.tensor([1, 2, 3, 4, 5]))
    assert "x + mx.array([1, 2, 3, 4, 5], dtype=mx.int64)" in result.source


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


def sinusoidal(m, x):
    steps = torch.arange(5, dtype=torch.float64)[:, None]
    angles = steps * 10 ** -torch.arange(5, dtype=torch.float64)
    return x + torch.cat([angles.sin()[:, :3], angles.cos()[:, 3:]], dim=1).float()


def rotated(m, x):
    turns = torch.polar(torch.ones(5, dtype=torch.float64), torch.arange(5, dtype=torch.float64))
    return (x * turns.expand(5, 5).to(torch.complex64)).real


def triangle(m, x):
    return x.flatten()[torch.tril_indices(6, 6)]


def halved(m, x):
    return x * torch.linspace(0, 1, 25, dtype=torch.float64).view(5, 5).exp().half().float()


KEPT = {
    "float64": (sinusoidal, torch.float32, (5, 5)),
    "complex128": (rotated, torch.complex64, (5, 5)),
    "no handler": (triangle, torch.int64, (2, 21)),
    "cast to half": (halved, torch.float16, (5, 5)),
}


@pytest.mark.parametrize(("run", "dtype", "shape"), KEPT.values(), ids=KEPT)
def test_what_mlx_cannot_compute_is_an_array(run, dtype, shape):
    result = converted(run)
    (name,) = result.conversion.plan.constants
    kept = dict(tree_flatten(result.model.parameters()))[name]
    assert (str(kept.dtype), kept.shape) == (f"mlx.core.{dtype}".replace("torch.", ""), shape)
    assert not result.model.trainable_parameters()
    assert not result.notes  # nothing was computed in another dtype when it runs
    expected = result.model(mx.ones((2, 5, 5)))
    wanted = run(Net(run), torch.ones(2, 5, 5))
    assert mx.allclose(expected, mx.array(wanted.numpy()), rtol=1e-6, atol=1e-6)


def test_the_smallest_is_kept():
    """What only spreads a table over further axes is computed."""

    def forward(m, x):
        table = torch.linspace(0, 1, 20, dtype=torch.float64).exp().float()
        return x[:, None, None, :, :1] + table.expand(3, 5, 20)

    result = converted(forward)
    kept = dict(tree_flatten(result.model.parameters()))
    assert {name: x.shape for name, x in kept.items()} == {"constant_0": (20,)}


def test_a_buffer_of_float64_that_a_checkpoint_has_is_refused():
    buffer = nn.Buffer(torch.linspace(0, 1, 40, dtype=torch.float64))
    with pytest.raises(UnsupportedError, match="float64, of which MLX keeps no weights"):
        converted(lambda m, x: x + m.table[:5].float(), table=buffer)


def test_a_buffer_of_float64_in_no_state_dict_is_a_constant():
    buffer = nn.Buffer(torch.linspace(0, 1, 40, dtype=torch.float64), persistent=False)
    result = converted(lambda m, x: x + m.table[20:].exp().float()[:5], table=buffer)
    assert list(result.conversion.plan.constants) == ["constant_0"]


def test_numbers_of_float64_beside_floats_are_plain():
    """No float64 in the code, which no GPU computes."""
    number = torch.tensor(0.1, dtype=torch.float64)
    result = converted(lambda m, x: torch.where(x > 0, x, number) + (number - x))
    assert "float64" not in result.source
    assert "mx.array(0.1)" in result.source
    assert not result.notes
