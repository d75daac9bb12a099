"""`layers.activation` against torch in float64, at ordinary, tiny, huge and special values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mlxport import layers
from mlxport.layers.activation import functions as activation


@pytest.fixture(autouse=True)
def _uncompiled() -> Iterator[None]:
    """A compiled kernel for each constant and dtype would take minutes; one test makes some."""
    mx.disable_compile()
    yield
    mx.enable_compile()


Case = tuple[Callable[..., mx.array], Callable[..., torch.Tensor], dict[str, Any]]

CASES: dict[str, Case] = {
    "elu": (activation.elu, F.elu, {}),
    "elu, alpha": (activation.elu, F.elu, {"alpha": 0.3}),
    "elu, all scales": (
        activation.elu,
        lambda x, **scales: torch.ops.aten.elu(x, *scales.values()),
        {"alpha": 0.3, "scale": 1.7, "input_scale": 0.6},
    ),
    "selu": (activation.selu, F.selu, {}),
    "celu": (activation.celu, F.celu, {}),
    "celu, alpha": (activation.celu, F.celu, {"alpha": 0.3}),
    "celu, negative alpha": (activation.celu, F.celu, {"alpha": -1.2}),
    "leaky_relu": (activation.leaky_relu, F.leaky_relu, {}),
    "leaky_relu, steep": (activation.leaky_relu, F.leaky_relu, {"negative_slope": 2.5}),
    "leaky_relu, flat": (activation.leaky_relu, F.leaky_relu, {"negative_slope": 0.0}),
    "leaky_relu, falling": (activation.leaky_relu, F.leaky_relu, {"negative_slope": -0.2}),
    "rrelu": (activation.rrelu, F.rrelu, {"lower": 0.1, "upper": 0.7}),
    "softplus": (activation.softplus, F.softplus, {}),
    "softplus, beta": (activation.softplus, F.softplus, {"beta": 2.5}),
    "softplus, threshold": (activation.softplus, F.softplus, {"beta": 0.5, "threshold": 1.0}),
    "softplus, negative beta": (activation.softplus, F.softplus, {"beta": -1.0}),
    "hardsigmoid": (activation.hardsigmoid, F.hardsigmoid, {}),
    "tanhshrink": (activation.tanhshrink, F.tanhshrink, {}),
    "threshold": (activation.threshold, F.threshold, {"threshold": 0.25, "value": -3.0}),
    "hard_shrink": (activation.hard_shrink, F.hardshrink, {}),
    "hard_shrink, lambd": (activation.hard_shrink, F.hardshrink, {"lambd": 1.125}),
    "hard_shrink, negative": (activation.hard_shrink, F.hardshrink, {"lambd": -0.3}),
    "softshrink": (activation.softshrink, F.softshrink, {}),
    "softshrink, lambd": (activation.softshrink, F.softshrink, {"lambd": 1.125}),
}
ALL = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)


@ALL
@DTYPES
@pytest.mark.parametrize("scale", [1e-3, 0.1, 3.0, 30.0])
def test_values(
    assert_parity: Callable[..., None], case: Case, scale: float, dtype: torch.dtype
) -> None:
    ours, theirs, arguments = case
    x = (torch.randn(3, 1000) * scale).to(dtype)
    assert_parity(ours(mx.array(x), **arguments), partial(theirs, **arguments), x)


@ALL
def test_special_values(assert_parity: Callable[..., None], case: Case) -> None:
    ours, theirs, arguments = case
    # 1.125, 0.5 and 0.25 are limits of the shrinking functions and the threshold: in every dtype
    limits = [0.0, -0.0, 1.125, -1.125, 0.5, -0.5, 0.25, 3.0, -3.0]
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e4, -1e4, 100.0, -100.0, *limits])
    assert_parity(ours(mx.array(x), **arguments), partial(theirs, **arguments), x)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case[2]])
def test_compiled_as_it_runs(assert_parity: Callable[..., None], name: str) -> None:
    mx.enable_compile()
    ours, theirs, _ = CASES[name]
    x = torch.tensor([torch.nan, torch.inf, -torch.inf, 100.0, -100.0, *torch.randn(50).tolist()])
    assert_parity(ours(mx.array(x)), theirs, x)


POINTS = {
    "around_zero": torch.cat([torch.linspace(-3, 3, 500), torch.tensor([100.0, 1e4])]),
    "next_to_zero": torch.linspace(-3e-3, 3e-3, 500),
    "below": torch.linspace(-15, -5, 500),  # where a derivative of exp - 1 is small
}


@ALL
@pytest.mark.parametrize("x", POINTS.values(), ids=POINTS)
def test_gradients(assert_parity: Callable[..., None], case: Case, x: torch.Tensor) -> None:
    ours, theirs, arguments = case

    def reference(x: torch.Tensor) -> torch.Tensor:
        leaf = x.clone().requires_grad_()
        theirs(leaf, **arguments).sum().backward()
        return leaf.grad

    got = mx.grad(lambda x: ours(x, **arguments).sum())(mx.array(x))
    assert_parity(got, reference, x)


@pytest.mark.parametrize("name", ["elu", "selu", "celu", "leaky_relu", "leaky_relu, steep"])
def test_gradient_at_zero_is_that_of_the_negative_side(name: str) -> None:
    ours, theirs, arguments = CASES[name]
    leaf = torch.zeros(1, requires_grad=True)
    theirs(leaf, **arguments).sum().backward()
    got = mx.grad(lambda x: ours(x, **arguments).sum())(mx.zeros(1))
    assert got.item() == pytest.approx(leaf.grad.item())


SOFTMAXES = pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (activation.softmax, F.softmax),
        (activation.softmin, F.softmin),
        (activation.log_softmax, F.log_softmax),
    ],
    ids=["softmax", "softmin", "log_softmax"],
)


@SOFTMAXES
@DTYPES
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("scale", [1e-3, 3.0, 100.0])
def test_along_an_axis(
    assert_parity: Callable[..., None],
    ours: Callable[..., mx.array],
    theirs: Callable[..., torch.Tensor],
    axis: int,
    scale: float,
    dtype: torch.dtype,
) -> None:
    x = (torch.randn(5, 300, 7) * scale).to(dtype)
    assert_parity(ours(mx.array(x), axis), partial(theirs, dim=axis), x)


@SOFTMAXES
@DTYPES
def test_over_many_elements(
    assert_parity: Callable[..., None],
    ours: Callable[..., mx.array],
    theirs: Callable[..., torch.Tensor],
    dtype: torch.dtype,
) -> None:
    x = (torch.randn(4, 5000) * 0.1).to(dtype)
    assert_parity(ours(mx.array(x), -1), partial(theirs, dim=-1), x)


@SOFTMAXES
def test_infinite_scores(
    assert_parity: Callable[..., None],
    ours: Callable[..., mx.array],
    theirs: Callable[..., torch.Tensor],
) -> None:
    x = torch.randn(4, 5)
    x[0, 1], x[1], x[2, 3], x[3, 0] = -torch.inf, -torch.inf, torch.nan, torch.inf
    assert_parity(ours(mx.array(x), 1), partial(theirs, dim=1), x)


@SOFTMAXES
@pytest.mark.parametrize("dim", [0, -1])
def test_a_scalar_is_a_vector_of_one(
    assert_parity: Callable[..., None],
    ours: Callable[..., mx.array],
    theirs: Callable[..., torch.Tensor],
    dim: int,
) -> None:
    assert_parity(ours(mx.array(0.7), dim), partial(theirs, dim=dim), torch.tensor(0.7))


def test_rrelu_in_training_draws_its_slopes() -> None:
    x = mx.array(np.linspace(-2, 2, 10_001), dtype=mx.float32)
    y = np.array(activation.rrelu(x, 0.2, 0.6, training=True))
    x = np.array(x)
    np.testing.assert_array_equal(y[x > 0], x[x > 0])
    slopes = y[x < 0] / x[x < 0]
    assert 0.2 <= slopes.min() < 0.21
    assert 0.59 < slopes.max() <= 0.6001
    assert slopes.mean() == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (partial(activation.celu, alpha=0.0), partial(F.celu, alpha=0.0)),
        (partial(activation.softshrink, lambd=-1.0), partial(F.softshrink, lambd=-1.0)),
        (partial(activation.rrelu, lower=0.5, upper=0.2), partial(F.rrelu, lower=0.5, upper=0.2)),
    ],
    ids=["celu", "softshrink", "rrelu"],
)
def test_refuses_what_torch_refuses(
    ours: Callable[..., mx.array], theirs: Callable[..., torch.Tensor]
) -> None:
    with pytest.raises((RuntimeError, ValueError)):
        theirs(torch.zeros(2))
    with pytest.raises(ValueError, match=r"\["):
        ours(mx.zeros(2))


@pytest.mark.parametrize("axis", [1.0, True, None], ids=str)
@pytest.mark.parametrize("layer", [layers.Softmax, layers.Softmin, layers.LogSoftmax])
def test_an_axis_is_an_integer(layer: type, axis: Any) -> None:
    with pytest.raises(TypeError, match=rf"\[{layer.__name__}\] 'axis' must be an integer"):
        layer(axis)
