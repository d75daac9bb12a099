from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mlxport import layers
from mlxport.converter.rules.build import spec_for

RANKS = pytest.mark.parametrize("rank", [1, 2, 3])
LAYERS = ["ZeroPad", "ReflectionPad", "ReplicationPad", "CircularPad", "ConstantPad"]


def torch_pad(name: str, rank: int, widths: Any) -> torch.nn.Module:
    value = (2.5,) if name == "ConstantPad" else ()
    widths = widths if isinstance(widths, int) else widths[: 2 * rank]
    module: torch.nn.Module = getattr(torch.nn, f"{name}{rank}d")(widths, *value)
    return module


@RANKS
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("widths", [2, (1, 2, 0, 3, 2, 0), (2, -1, -1, 1, 0, 1)], ids=str)
def test_forward_and_gradients(
    assert_layer_parity: Callable[..., None], rank: int, name: str, widths: Any
) -> None:
    x = torch.randn(2, 3, *(7, 6, 5)[:rank])
    module = torch_pad(name, rank, widths)
    assert_layer_parity(module, x, gradients=True)
    assert_layer_parity(module, x[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_half_precision(
    assert_layer_parity: Callable[..., None], name: str, dtype: torch.dtype
) -> None:
    assert_layer_parity(torch_pad(name, 2, 2), torch.randn(2, 3, 7, 6), dtype=dtype)


@pytest.mark.parametrize(
    ("module", "target", "args"),
    [
        (torch.nn.ZeroPad2d(1), layers.ZeroPad2d, (1,)),
        (torch.nn.ConstantPad1d((1, 2), 3.5), layers.ConstantPad1d, ((1, 2), 3.5)),
        (torch.nn.CircularPad3d((1, 1, 1, 1, 0, 0)), layers.CircularPad3d, ((1, 1, 1, 1, 0, 0),)),
    ],
    ids=["zero", "constant", "circular"],
)
def test_what_is_built(module: torch.nn.Module, target: type, args: tuple[Any, ...]) -> None:
    spec = spec_for(module)
    assert (spec.target, spec.args, spec.kwargs) == (target, args, {})
