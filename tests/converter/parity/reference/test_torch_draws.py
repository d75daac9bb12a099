"""What is recorded of PyTorch's draws, and that every other run is given the same."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.reference.record_reference import record_reference
from mlxport.converter.parity.reference.torch_draws import TorchDraws
from mlxport.converter.parity.verdict.reference_file import load_reference, save_reference

X = torch.linspace(-2.0, 2.0, 12).reshape(3, 4)
P = X.sigmoid()

DRAWS = {
    "randn": (lambda: torch.randn(2, 3), "normal", (2, 3)),
    "randn_like": (lambda: torch.randn_like(X), "normal", (3, 4)),
    "normal": (lambda: torch.normal(X, P), "normal", (3, 4)),
    "normal, numbers": (lambda: torch.normal(1.0, 2.0, (5,)), "normal", (5,)),
    "normal_": (lambda: torch.empty(5).normal_(1, 2), "normal", (5,)),
    "rand": (lambda: torch.rand(2), "uniform", (2,)),
    "rand_like": (lambda: torch.rand_like(X), "uniform", (3, 4)),
    "uniform_": (lambda: torch.empty(3).uniform_(-1, 1), "uniform", (3,)),
    "exponential_": (lambda: torch.empty(3).exponential_(2), "uniform", (3,)),
    "gumbel": (lambda: F.gumbel_softmax(X), "uniform", (3, 4)),
    "randint": (lambda: torch.randint(9, (7,)), "randint", (7,)),
    "randint, low": (lambda: torch.randint(-4, 9, (7,)), "randint", (7,)),
    "randint_like": (lambda: torch.randint_like(X, 2, 9), "randint", (3, 4)),
    "random_": (lambda: torch.empty(3).random_(5), "randint", (3,)),
    "bernoulli": (lambda: torch.bernoulli(P), "bernoulli", (3, 4)),
    "bernoulli_": (lambda: torch.empty(2, 4).bernoulli_(0.4), "bernoulli", (2, 4)),
    "bernoulli_, tensor": (lambda: torch.empty(3, 4).bernoulli_(P[:1]), "bernoulli", (3, 4)),
    "multinomial": (lambda: torch.multinomial(P, 9, True), "categorical", (3, 9)),
    "multinomial, one": (lambda: torch.multinomial(P[0], 1), "categorical", (1,)),
    "multinomial, once": (lambda: torch.multinomial(P, 3), "gumbel", (3, 4)),
    "randperm": (lambda: torch.randperm(6), "permutation", (6,)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_is_recorded_and_replayed(name):
    draw, kind, shape = DRAWS[name]
    draws = TorchDraws()
    with torch.no_grad():
        with draws.recording():
            first = draw()
        with draws.replayed():
            again = draw()
        assert not torch.equal(draw(), first)
    assert torch.equal(first, again)
    (one,) = draws.recorded
    assert (one.kind, one.shape, one.values.shape) == (kind, shape, shape)


LARGE = {
    "normal": (lambda: torch.normal(2.0, 3.0, (40000,)), 2, 3),
    "uniform": (lambda: torch.empty(40000).uniform_(-1, 5), 2, 3**0.5),
    "exponential": (lambda: torch.empty(40000).exponential_(0.5), 2, 2),
    "exponential, half": (lambda: torch.empty(40000).half().exponential_(0.5), 2, 2),
    "randint": (lambda: torch.randint(1, 7, (40000,)), 3.5, (35 / 12) ** 0.5),
    "bernoulli": (lambda: torch.empty(40000).bernoulli_(0.2), 0.2, 0.4),
    "multinomial": (
        lambda: torch.multinomial(torch.tensor([1.0, 0, 3]), 40000, True),
        1.5,
        0.75**0.5,
    ),
    "multinomial, once": (
        lambda: torch.multinomial(torch.tensor([1.0, 1, 6]).expand(40000, 3), 2)[:, 0],
        13 / 8,
        0.6960,
    ),
}


@pytest.mark.parametrize("name", LARGE)
def test_recorded_draws_keep_their_distribution(name):
    draw, mean, deviation = LARGE[name]
    torch.manual_seed(3)
    with TorchDraws().recording():
        drawn = draw().double()
    assert abs(drawn.mean() - mean) < 5 * deviation / 200
    assert abs(drawn.std() - deviation) < 0.03 * deviation


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("draw", [torch.randn, torch.rand])
def test_numbers_are_those_of_the_dtype_they_are_drawn_in(draw, dtype):
    draws = TorchDraws()
    with draws.recording():
        drawn = draw(64, dtype=dtype)
    assert draws.recorded[0].dtype == str(dtype).removeprefix("torch.")
    assert torch.equal(drawn.double(), torch.from_numpy(draws.recorded[0].values))


@pytest.mark.parametrize(
    ("dtype", "drawn_in"),
    [
        (torch.float16, "float32"),
        (torch.bfloat16, "float32"),
        (torch.float32, "float32"),
        (torch.float64, "float64"),
    ],
    ids=str,
)
def test_exponential_numbers_are_drawn_no_coarser_than_in_float32(dtype, drawn_in):
    draws = TorchDraws()
    with draws.recording():
        torch.empty(64, dtype=dtype).exponential_(2.0)
    assert draws.recorded[0].dtype == drawn_in


@pytest.mark.parametrize("factor", [1 - 1e-4, 1 + 1e-4])
def test_a_probability_that_rounds_otherwise_draws_the_same(factor):
    p = torch.linspace(0, 1, 200001)
    draws = TorchDraws()
    with draws.recording():
        drawn = torch.bernoulli(p)
    with draws.replayed():
        assert torch.equal(torch.bernoulli((p * factor).clamp(0, 1)), drawn)


def test_weights_that_round_otherwise_draw_the_same():
    weights = 0.5 + torch.rand(50, 30, generator=torch.Generator().manual_seed(0))
    draws = TorchDraws()
    with draws.recording():
        drawn = torch.multinomial(weights, 1000, True)
    with draws.replayed():
        assert torch.equal(torch.multinomial(weights * (1 + 1e-3 * weights), 1000, True), drawn)


def test_mean_and_deviation_are_those_of_the_present_run():
    draws = TorchDraws()
    with draws.recording():
        first = torch.normal(torch.zeros(100), 1.0)
    with draws.replayed():
        again = torch.normal(torch.full((100,), 3.0), 2.0)
    assert torch.allclose(again, 3 + 2 * first)


@pytest.mark.parametrize(
    "other",
    [lambda: torch.randn(3), lambda: torch.rand(2), lambda: (torch.randn(2), torch.randn(2))],
    ids=["shape", "kind", "more"],
)
def test_another_draw_is_refused(other):
    draws = TorchDraws()
    with draws.recording():
        torch.randn(2)
    with pytest.raises(ParityError, match="the same way at every call"), draws.replayed():
        other()


def test_fewer_draws_are_refused():
    draws = TorchDraws()
    with draws.recording():
        torch.randn(2)
        torch.randn(2)
    with pytest.raises(ParityError, match=r"2 random draws .* and 1 when"), draws.replayed():
        torch.randn(2)


OTHERS = {
    "poisson": lambda: torch.poisson(P),
    "geometric_": lambda: torch.empty(3).geometric_(0.5),
    "gamma": lambda: torch._standard_gamma(P),
    "rrelu in training": lambda: F.rrelu(X, training=True),
    "complex": lambda: torch.randn(3, dtype=torch.complex64),
    "integers without a bound": lambda: torch.empty(3).random_(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_draw_that_cannot_be_given_back_is_refused(name):
    with pytest.raises(ParityError, match="PyTorch draws"), TorchDraws().recording():
        OTHERS[name]()


def test_what_could_draw_and_does_not_is_no_draw():
    draws = TorchDraws()
    q = torch.randn(1, 2, 3, 4)
    lstm = nn.LSTM(4, 4, dropout=0.5, num_layers=2).eval()
    with draws.recording():
        F.scaled_dot_product_attention(q, q, q)
        F.dropout(X, 0.5, training=False)
        lstm(X)
    assert draws.recorded == []


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x) * torch.rand(x.shape[-1:]).to(x.dtype)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.noise = Noise()

    def forward(self, x):
        return self.noise(self.noise(self.lin(x)) * torch.bernoulli(x.sigmoid()))


class TestReference:
    @pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
    def reference(self, request):
        net = Net().to(request.param)
        paths = ["lin", "noise"]
        return record_reference(net, (X.to(request.param),), paths=paths, keep_inputs=True)

    def test_draws_in_the_order_of_execution(self, reference):
        kinds = [draw.kind for draw in reference.draws]
        assert kinds == ["normal", "uniform", "bernoulli", "normal", "uniform"]
        assert reference.draws[1].dtype == "float32"

    def test_each_call_knows_its_own(self, reference):
        native = {(call.path, call.number): call.draws for call in reference.calls}
        assert native == {("lin", 0): (0, 0), ("noise", 0): (0, 2), ("noise", 1): (3, 5)}

    def test_both_runs_are_given_the_same(self, reference):
        assert not reference.fallback
        eps = {"float32": 1e-6, "bfloat16": 2e-2}[reference.dtype]
        for values in (*reference.outputs, *(v for c in reference.calls for v in c.outputs)):
            assert abs(values.reference - values.native).max() <= eps * 10
        alone = [v for c in reference.calls for v in c.alone]
        assert [v.reference_dtype for v in alone] == ["float64"] * 3
        assert all(abs(v.reference - v.native).max() <= eps * 10 for v in alone)

    def test_a_file_brings_them_back(self, reference, tmp_path):
        save_reference(tmp_path / "r.safetensors", reference)
        read = load_reference(tmp_path / "r.safetensors")
        for before, after in zip(reference.draws, read.draws, strict=True):
            told = (before.kind, before.shape, before.dtype)
            assert told == (after.kind, after.shape, after.dtype)
            assert (before.values == after.values).all()
        assert [c.draws for c in read.calls] == [c.draws for c in reference.calls]

    def test_the_random_state_is_left_as_it_was(self):
        net = Net()
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        record_reference(net, (X,), paths=["noise"])
        assert torch.equal(torch.rand(3), expected)

    def test_a_model_that_draws_otherwise_at_every_call_is_refused(self):
        calls = itertools.count(1)  # whose place nothing puts back

        class Fickle(nn.Module):
            def forward(self, x):
                return x + torch.randn(next(calls), 4).sum(0)

        with pytest.raises(ParityError, match="the same way at every call"):
            record_reference(Fickle(), (X,), paths=[])
