"""Recorded numbers in place of MLX's own, and only while they are asked for as they were drawn."""

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.reference.torch_draws import TorchDraws
from mlxport.converter.parity.run.metal_calls import watching
from mlxport.converter.parity.run.replay_draws import check_draws, replayed
from mlxport.converter.parity.verdict.reference_data import Draw
from mlxport.converter.plan.record import DrawRecord, Layout

P = torch.linspace(0.0, 1.0, 24).reshape(2, 3, 4)
W = torch.linspace(0.1, 2.0, 15).reshape(3, 5)


def array(x):
    return mx.array(x.numpy())


# torch's draw, MLX's draw of the same, and the order MLX stores it in
PAIRS = {
    "normal": (lambda: torch.randn(2, 3, 4), lambda: mx.random.normal((2, 3, 4)), (0, 1, 2)),
    "normal, moved": (lambda: torch.randn(2, 3, 4), lambda: mx.random.normal((2, 4, 3)), (0, 2, 1)),
    "normal, half": (
        lambda: torch.randn(5, dtype=torch.float16),
        lambda: mx.random.normal((5,), mx.float16),
        (0,),
    ),
    "normal, bfloat16": (
        lambda: torch.randn(5, dtype=torch.bfloat16),
        lambda: mx.random.normal([5], dtype=mx.bfloat16),
        (0,),
    ),
    "normal, scaled": (
        lambda: torch.normal(3.0, 0.5, (6,)),
        lambda: mx.random.normal((6,), loc=3.0, scale=0.5),
        (0,),
    ),
    "normal, by arrays": (
        lambda: torch.normal(P, P + 1),
        lambda: mx.random.normal((2, 3, 4), loc=array(P), scale=array(P + 1)),
        (0, 1, 2),
    ),
    "normal, no axes": (
        lambda: torch.normal(P[0, 0, 0], P[0, 0, 1]),
        lambda: mx.random.normal((), loc=array(P)[0, 0, 0], scale=array(P)[0, 0, 1]),
        (),
    ),
    "bernoulli, no axes": (
        lambda: torch.bernoulli(P[0, 0, 0]).bool(),
        lambda: mx.random.bernoulli(array(P)[0, 0, 0]),
        (),
    ),
    "uniform": (lambda: torch.rand(6), lambda: mx.random.uniform(shape=(6,)), (0,)),
    "uniform, bounds": (
        lambda: torch.empty(6).uniform_(-2, 6),
        lambda: mx.random.uniform(-2, 6, (6,)),
        (0,),
    ),
    "bernoulli": (
        lambda: torch.bernoulli(P).bool(),
        lambda: mx.random.bernoulli(array(P)),
        (0, 1, 2),
    ),
    "bernoulli, moved": (
        lambda: torch.bernoulli(P).bool(),
        lambda: mx.random.bernoulli(array(P).transpose(2, 0, 1)),
        (2, 0, 1),
    ),
    "bernoulli, number": (
        lambda: torch.empty(2, 50).bernoulli_(0.3).bool(),
        lambda: mx.random.bernoulli(0.3, (2, 50)),
        (0, 1),
    ),
    "randint": (
        lambda: torch.randint(-3, 9, (50,)),
        lambda: mx.random.randint(-3, 9, (50,), dtype=mx.int64),
        (0,),
    ),
    "categorical": (
        lambda: torch.multinomial(W, 7, True),
        lambda: mx.random.categorical(mx.log(array(W)), num_samples=7),
        (0, 1),
    ),
    "categorical, one weight": (
        lambda: torch.multinomial(torch.tensor([0.0, 0, 2]), 3, True),
        lambda: mx.random.categorical(mx.log(mx.array([0.0, 0, 2])), num_samples=3),
        (0,),
    ),
    "gumbel": (
        lambda: torch.multinomial(W, 5),
        lambda: mx.argsort(-(mx.log(array(W)) + mx.random.gumbel((3, 5))), axis=-1),
        (0, 1),
    ),
    "permutation": (lambda: torch.randperm(9), lambda: mx.random.permutation(9), (0,)),
}


def record_of(draw, order=None):
    order = tuple(range(len(draw.shape))) if order is None else order
    return DrawRecord(draw.kind, Layout(draw.shape, draw.dtype, order))


@pytest.mark.parametrize("name", PAIRS)
def test_mlx_gets_what_torch_drew(name):
    theirs, ours, order = PAIRS[name]
    draws = TorchDraws()
    with draws.recording():
        expected = theirs()
    with replayed(draws.recorded, [record_of(draws.recorded[0], order)]):
        got = ours()
    assert str(got.dtype).startswith("mlx.core." + str(expected.dtype)[6:]) or not (
        expected.is_floating_point()
    )
    values = torch.from_numpy(np.array(got.astype(mx.float32))).permute(np.argsort(order).tolist())
    assert values.shape == expected.shape
    assert torch.allclose(values, expected.float(), rtol=1e-6, atol=1e-6)


NORMAL = Draw("normal", (2, 3), "float32", np.zeros((2, 3)))
UNIFORM = Draw("uniform", (4,), "float32", np.zeros(4))

WRONG = {
    "another shape": lambda: mx.random.normal((3, 2)),
    "another kind": lambda: mx.random.uniform(shape=(2, 3)),
    "another dtype": lambda: mx.random.normal((2, 3), dtype=mx.float16),
    "a permutation": lambda: mx.random.permutation(mx.arange(3)),
    "a function without numbers": lambda: mx.random.laplace((2, 3)),
}


@pytest.mark.parametrize("name", WRONG)
def test_another_draw_is_reported(name):
    with (
        pytest.raises(ParityError, match=r"must draw as model\.py was written|of an array"),
        replayed([NORMAL], [record_of(NORMAL)]),
    ):
        WRONG[name]()


def test_the_report_names_both_draws():
    with pytest.raises(ParityError) as caught, replayed([NORMAL], [record_of(NORMAL, (1, 0))]):
        mx.random.normal((2, 3), dtype=mx.float16)
    message = str(caught.value)
    assert "random draw 1: the MLX model asks for normal (2, 3) of float16" in message
    assert "PyTorch drew normal (2, 3) of float32, which is (3, 2) as stored" in message


def test_one_draw_too_many_is_reported():
    with replayed([NORMAL], [record_of(NORMAL)]):
        mx.random.normal((2, 3))
        with pytest.raises(ParityError, match=r"random draw 2: .* PyTorch made 1 only"):
            mx.random.normal((2, 3))


def test_draws_left_over_are_all_reported():
    draws = [NORMAL, UNIFORM, NORMAL]
    with pytest.raises(ParityError) as caught, replayed(draws, [record_of(d) for d in draws]):
        mx.random.normal((2, 3))
    message = str(caught.value)
    assert "made 1 random draws of the 3" in message
    assert message.index("uniform (4,)") < message.index("normal (2, 3)")


def test_a_failure_within_is_not_covered_by_draws_left_over():
    with pytest.raises(KeyError), replayed([NORMAL], [record_of(NORMAL)]):
        raise KeyError("the model's own")


@pytest.mark.parametrize("failing", [False, True])
def test_mlx_draws_its_own_afterwards(failing):
    functions = {name: getattr(mx.random, name) for name in dir(mx.random)}
    try:
        with replayed([NORMAL], [record_of(NORMAL)]):
            mx.random.normal((2, 3))
            if failing:
                raise KeyError
    except KeyError:
        pass
    assert {name: getattr(mx.random, name) for name in dir(mx.random)} == functions
    assert mx.random.normal((50,)).abs().sum() > 0


class TestCorrespondence:
    def test_the_same_draws(self):
        check_draws([NORMAL, UNIFORM], [record_of(NORMAL), record_of(UNIFORM)])

    def test_other_sizes_are_left_to_the_run(self):
        check_draws([NORMAL], [DrawRecord("normal", Layout((7, 8), "float32", (1, 0)))])

    def test_every_difference_is_listed(self):
        records = [record_of(UNIFORM), record_of(UNIFORM)]
        with pytest.raises(ParityError) as caught:
            check_draws([NORMAL, UNIFORM, NORMAL], records)
        message = str(caught.value)
        assert "PyTorch makes 3 random draws, the converted model 2" in message
        assert "draw 1: PyTorch normal (2, 3), the converted model uniform (4,)" in message
        assert "draw 2" not in message
        assert "draw 3: PyTorch normal (2, 3), the converted model nothing" in message

    def test_another_rank_differs(self):
        with pytest.raises(
            ParityError, match=r"normal \(2, 3\), the converted model normal \(4,\)"
        ):
            check_draws([NORMAL], [DrawRecord("normal", Layout((4,), "float32", (0,)))])


FLOAT64 = ("bernoulli", "categorical", "permutation", "randint")  # only decides what is drawn


def test_no_gpu_is_given_float64() -> None:
    """Whatever is drawn: float64 is on the CPU's stream by name, which alone has it."""
    seen: set[str] = set()
    drawn = {
        "bernoulli": lambda: mx.random.bernoulli(mx.array([0.2, 0.8])),
        "categorical": lambda: mx.random.categorical(mx.zeros((2, 3))),
        "permutation": lambda: mx.random.permutation(2),
        "randint": lambda: mx.random.randint(0, 9, (2,)),
        "uniform": lambda: mx.random.uniform(1, 2, (2,)),
        "normal": lambda: mx.random.normal((2,), loc=1.0, scale=mx.array(2.0)),
        "gumbel": lambda: mx.random.gumbel((2,)),
    }
    dtypes = {kind: "float64" if kind in FLOAT64 else "float32" for kind in drawn}
    draws = [Draw(kind, (2,), dtype, np.full(2, 0.5)) for kind, dtype in dtypes.items()]
    records = [DrawRecord(kind, Layout((2,), "float32", (0,))) for kind in drawn]

    def unknown(name: str) -> None:
        raise AssertionError(f"nobody knows what {name} runs")

    with (
        watching(lambda call, frame: seen.update(call.dtypes), unknown),
        replayed(draws, records),
    ):
        for draw in drawn.values():
            draw()
    assert "float32" in seen
    assert "float64" not in seen
