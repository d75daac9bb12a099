"""Activations."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mlxport.converter.graph.ir.context import Unsupported

Fn = Callable[..., Any]
FLOATS = [torch.float32, torch.float16, torch.bfloat16]
SPECIAL = torch.tensor([0.0, -0.0, 1.5, -2.5, torch.inf, torch.nan, 0.5, 100.0, -100.0])

ACTIVATIONS: dict[str, Fn] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "leaky_relu 0.2": lambda x: F.leaky_relu(x, 0.2),
    "leaky_relu 2": lambda x: F.leaky_relu(x, 2),
    "leaky_relu 0": lambda x: F.leaky_relu(x, 0),
    "leaky_relu negative": lambda x: F.leaky_relu(x, -0.5),
    "elu": F.elu,
    "elu 0.5": lambda x: F.elu(x, 0.5),
    "selu": F.selu,
    "celu": F.celu,
    "celu 2": lambda x: F.celu(x, 2.0),
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "hardtanh": F.hardtanh,
    "hardtanh 0 2": lambda x: F.hardtanh(x, 0, 2),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "softplus": F.softplus,
    "softplus 2": lambda x: F.softplus(x, 2),
    "softplus threshold": lambda x: F.softplus(x, 1, 1),
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "hardshrink": F.hardshrink,
    "softshrink": lambda x: F.softshrink(x, 0.3),
    "threshold": lambda x: F.threshold(x, 0.1, -7),
    "logsigmoid": F.logsigmoid,
    "rrelu": F.rrelu,
    "glu": lambda x: F.glu(x, 1),
    "glu last": F.glu,
    "softmax": lambda x: F.softmax(x, 1),
    "softmax last": lambda x: F.softmax(x, -1),
    "log_softmax": lambda x: F.log_softmax(x, 1),
    "log_softmax last": lambda x: F.log_softmax(x, -1),
    "softmin": lambda x: F.softmin(x, 1),
    "softmax2d": torch.nn.Softmax2d(),
}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str, dtype: torch.dtype, assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x: ACTIVATIONS[name](x), 3 * torch.randn(2, 4, 3, 6), dtype=dtype)


ELEMENTWISE = [n for n in ACTIVATIONS if not n.startswith(("glu", "soft", "log_")) or "plus" in n]


@pytest.mark.parametrize("name", [*ELEMENTWISE, "softsign", "softshrink"])
def test_special_values(name: str, assert_op_parity: Fn) -> None:
    # torch's vectorised GELU turns infinity into NaN, its scalar one (and MLX) does not.
    x = SPECIAL[~SPECIAL.isinf()] if name == "gelu" else SPECIAL
    assert_op_parity(lambda x: ACTIVATIONS[name](x), x)


@pytest.mark.parametrize("name", ["softmax last", "log_softmax last"])
def test_softmax_of_masked_rows(name: str, assert_op_parity: Fn) -> None:
    x = torch.tensor([[0.0, -torch.inf, 1.0], [-torch.inf] * 3, [torch.nan, 0.0, 1.0]])
    assert_op_parity(lambda x: ACTIVATIONS[name](x), x)


@pytest.mark.parametrize("x", [torch.arange(6).reshape(2, 3), torch.randn(2, 3).half()])
def test_softmax_in_another_dtype(x: torch.Tensor, assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x: F.softmax(x, 1, dtype=torch.float32), x)
    assert_op_parity(lambda x: F.log_softmax(x, 1, dtype=torch.float32), x)


@pytest.mark.parametrize("fn", [F.relu, F.relu6, F.hardtanh], ids=lambda f: f.__name__)
def test_of_integers(fn: Fn, assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x: fn(x), torch.arange(-3, 9))


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 2)], ids=str)
@pytest.mark.parametrize("count", [1, 3])
def test_prelu(shape: tuple[int, ...], count: int, assert_op_parity: Fn) -> None:
    assert_op_parity(F.prelu, torch.randn(shape), torch.rand(count), parameters=[1])


def test_prelu_of_a_vector(assert_op_parity: Fn) -> None:
    assert_op_parity(F.prelu, torch.randn(5), torch.rand(1))


SOURCES = {
    "relu": "nn.relu(a)",
    "relu6": "nn.relu6(a)",
    "leaky_relu": "nn.leaky_relu(a)",
    "leaky_relu 0.2": "nn.leaky_relu(a, negative_slope=0.2)",
    "leaky_relu 2": "leaky_relu(a, 2)",
    "gelu": "nn.gelu(a)",
    "softplus": "nn.softplus(a)",
    "softplus 2": "softplus(a, 2)",
    "softmax": "mx.softmax(a, axis=-1)",
    "log_softmax": "nn.log_softmax(a)",
    "glu": "nn.glu(a)",
}


@pytest.mark.parametrize("name", SOURCES)
def test_source_of_channels_last(name: str, lower_op: Fn) -> None:
    lowered = lower_op(ACTIVATIONS[name], torch.randn(2, 4, 3, 6), orders=[(0, 2, 3, 1)])
    assert lowered.source == SOURCES[name]


def test_prelu_of_channels_last_takes_the_weight_as_it_is(lower_op: Fn) -> None:
    x, weight = torch.randn(2, 3, 4, 5), torch.rand(3)
    assert lower_op(F.prelu, x, weight, orders=[(0, 2, 3, 1), None]).source == "nn.prelu(a, b)"


def test_refusals(lower_op: Fn) -> None:
    with pytest.raises(Unsupported, match="random slopes in training mode"):
        lower_op(lambda x: F.rrelu(x, training=True), torch.randn(3))


def test_softmax_of_a_0d_array(assert_op_parity: Fn) -> None:
    for value in (1.5, torch.inf):
        assert_op_parity(lambda x: F.softmax(x, 0), torch.tensor(value))
        assert_op_parity(lambda x: F.log_softmax(x, -1), torch.tensor(value))


def test_log_softmax_of_nothing(assert_op_parity):
    assert_op_parity(lambda x: torch.log_softmax(x, -1), torch.zeros(3, 0))
