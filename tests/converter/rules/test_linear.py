from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 4, 5)], ids=str)
def test_linear(
    assert_layer_parity: Callable[..., None],
    shape: tuple[int, ...],
    bias: bool,
    dtype: torch.dtype,
) -> None:
    assert_layer_parity(torch.nn.Linear(5, 7, bias=bias), torch.randn(shape), dtype=dtype)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("leading", [(), (3,), (2, 4)], ids=str)
def test_bilinear(
    assert_layer_parity: Callable[..., None], leading: tuple[int, ...], bias: bool
) -> None:
    module = torch.nn.Bilinear(3, 4, 5, bias=bias)
    assert_layer_parity(module, torch.randn(*leading, 3), torch.randn(*leading, 4))


def test_identity_keeps_what_comes(assert_layer_parity: Callable[..., None]) -> None:
    assert_layer_parity(torch.nn.Identity(), torch.randn(2, 3, 4))


@pytest.mark.parametrize(
    ("module", "shapes"),
    [
        pytest.param(torch.nn.Linear(5, 7), [(3, 5)], id="linear"),
        pytest.param(torch.nn.Bilinear(3, 4, 5), [(6, 3), (6, 4)], id="bilinear"),
    ],
)
def test_gradients(
    assert_layer_parity: Callable[..., None],
    module: torch.nn.Module,
    shapes: list[tuple[int, ...]],
) -> None:
    assert_layer_parity(module, *map(torch.randn, shapes), gradients=True)


def test_lazy_linear_after_its_first_forward(assert_layer_parity: Callable[..., None]) -> None:
    module = torch.nn.LazyLinear(4)
    x = torch.randn(2, 6)
    module(x)
    assert_layer_parity(module, x)
