from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
import torch

from mlxport import layers
from mlxport.converter.errors import UnsupportedError
from mlxport.converter.rules.build import build_layer, spec_for
from mlxport.converter.rules.registry import Axes

T = torch.nn


@pytest.fixture(autouse=True)
def _uncompiled() -> Iterator[None]:
    """MLX compiles a kernel for each constant and dtype, which would take minutes."""
    mx.disable_compile()
    yield
    mx.enable_compile()


def _with_dim(dim: Any) -> torch.nn.Module:
    """What the constructor takes before torch 2.14, which checks it."""
    module = T.Softmax(0)
    module.dim = dim
    return module


POINTWISE = [
    T.ReLU(),
    T.ReLU6(),
    T.ELU(),
    T.ELU(0.3),
    T.SELU(),
    T.CELU(),
    T.CELU(0.3),
    T.GELU(),
    T.GELU("tanh"),
    T.SiLU(),
    T.Mish(),
    T.Hardswish(),
    T.Hardsigmoid(),
    T.Sigmoid(),
    T.LogSigmoid(),
    T.Tanh(),
    T.Tanhshrink(),
    T.Softsign(),
    T.LeakyReLU(),
    T.LeakyReLU(0.2),
    T.LeakyReLU(1.0),
    T.LeakyReLU(0.0),
    T.LeakyReLU(-0.5),
    T.LeakyReLU(1.5),
    T.Hardtanh(),
    T.Hardtanh(-2.0, 0.5),
    T.Softplus(),
    T.Softplus(2.0),
    T.Softplus(threshold=1.0),
    T.Threshold(0.1, -2.0),
    T.Hardshrink(),
    T.Hardshrink(0.2),
    T.Softshrink(),
    T.Softshrink(0.2),
    T.PReLU(),
]
ALL = pytest.mark.parametrize("module", [*POINTWISE, T.RReLU(), T.RReLU(0.1, 0.5)], ids=str)


@ALL
@pytest.mark.parametrize("scale", [1e-3, 1.0, 20.0])
def test_forward(
    assert_layer_parity: Callable[..., None], module: torch.nn.Module, scale: float
) -> None:
    assert_layer_parity(module, torch.randn(2, 3, 50) * scale)


@pytest.mark.parametrize("module", POINTWISE, ids=str)
def test_gradients(assert_layer_parity: Callable[..., None], module: torch.nn.Module) -> None:
    x = torch.cat([torch.randn(2, 3, 50), torch.tensor([100.0, -100.0]).expand(2, 3, 2)], dim=2)
    assert_layer_parity(module, x, gradients=True)
    assert_layer_parity(module, x, train=True)


@ALL
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(
    assert_layer_parity: Callable[..., None], module: torch.nn.Module, dtype: torch.dtype
) -> None:
    assert_layer_parity(module, torch.randn(2, 3, 50) * 2, dtype=dtype)


@ALL
def test_nan_stays(module: torch.nn.Module) -> None:
    layer = build_layer(module.eval())
    assert mx.isnan(layer(mx.array([float("nan")]))).item()


@pytest.mark.parametrize(
    "module", [T.PReLU(), T.Softmax(0), T.Softmin(-1), T.LogSoftmax(0)], ids=str
)
def test_scalars_stay_scalars(
    assert_layer_parity: Callable[..., None], module: torch.nn.Module
) -> None:
    assert_layer_parity(module, torch.tensor(-0.7), gradients=True)


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 5), (2, 4, 3, 5), (2, 4, 3, 2, 5)], ids=str)
def test_prelu_with_a_slope_per_channel(
    assert_layer_parity: Callable[..., None], shape: tuple[int, ...]
) -> None:
    module = T.PReLU(4)
    T.init.uniform_(module.weight, -1, 1)
    assert_layer_parity(module, torch.randn(shape), gradients=True)
    assert spec_for(module).axes is Axes.CHANNELS_LAST
    assert spec_for(T.PReLU()).axes is Axes.ANY


@pytest.mark.parametrize("source", [T.Softmax, T.Softmin, T.LogSoftmax])
@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_softmax_along_every_axis(
    assert_layer_parity: Callable[..., None], source: Any, dim: int, dtype: torch.dtype
) -> None:
    x = torch.randn(3, 40, 5) * 3
    assert_layer_parity(source(dim), x, dtype=dtype, gradients=dtype is torch.float32)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_glu(assert_layer_parity: Callable[..., None], dim: int) -> None:
    assert_layer_parity(T.GLU(dim), torch.randn(4, 6, 8), gradients=True)


def test_softmax2d(assert_layer_parity: Callable[..., None]) -> None:
    assert_layer_parity(T.Softmax2d(), torch.randn(2, 5, 4, 3), gradients=True)
    assert_layer_parity(T.Softmax2d(), torch.randn(5, 4, 3))


def test_rrelu_draws_only_in_training() -> None:
    layer = build_layer(T.RReLU(0.2, 0.8).train())
    x = -mx.ones((1000,))
    drawn = layer(x)
    assert (mx.min(drawn).item(), mx.max(drawn).item()) == pytest.approx((-0.8, -0.2), abs=0.01)
    assert mx.allclose(layer.eval()(x), mx.array(-0.5))


@pytest.mark.parametrize(
    ("module", "target", "args", "kwargs"),
    [
        (T.LeakyReLU(0.1), nn.LeakyReLU, (0.1,), {}),
        (T.LeakyReLU(), nn.LeakyReLU, (), {}),
        (T.LeakyReLU(2.0), layers.LeakyReLU, (2.0,), {}),
        (T.LeakyReLU(0.0), layers.LeakyReLU, (0.0,), {}),
        (T.ReLU(inplace=True), nn.ReLU, (), {}),
        (T.ELU(0.5, inplace=True), layers.ELU, (0.5,), {}),
        (T.GELU(), nn.GELU, (), {}),
        (T.GELU("tanh"), nn.GELU, (), {"approx": "tanh"}),
        (T.Hardtanh(), nn.HardTanh, (), {}),
        (T.Hardtanh(0.0, 1.0), layers.HardTanh, (0.0, 1.0), {}),
        (T.Softplus(), nn.Softplus, (), {}),
        (T.Softplus(beta=2), layers.Softplus, (), {"beta": 2}),
        (T.PReLU(), layers.PReLU, (), {}),
        (T.PReLU(8), nn.PReLU, (8,), {}),
        (T.Softmax(1), layers.Softmax, (), {"axis": 1}),
        (_with_dim(True), layers.Softmax, (), {"axis": 1}),
        (T.LogSoftmax(-1), nn.LogSoftmax, (), {}),
        (T.GLU(), nn.GLU, (), {}),
    ],
    ids=lambda value: str(value) if isinstance(value, torch.nn.Module) else "",
)
def test_what_is_built(
    module: torch.nn.Module, target: type, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    spec = spec_for(module)
    assert (spec.target, spec.args, spec.kwargs) == (target, args, kwargs)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (T.Softmax(), "dim=None"),
        (_with_dim(1.0), "dim=1.0 is no axis"),
        (T.LogSoftmax(), "dim=None"),
        (T.Softmin(), "dim=None"),
        (T.CELU(0.0), "alpha=0"),
        (T.Softshrink(-1.0), "negative"),
    ],
    ids=["softmax", "a number of no axis", "log_softmax", "softmin", "celu", "softshrink"],
)
def test_refuses(module: torch.nn.Module, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        build_layer(module)
