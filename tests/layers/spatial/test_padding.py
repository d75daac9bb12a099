"""`layers.padding` against torch: elements are moved, so they must be equal."""

from __future__ import annotations

from itertools import product
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import mlxport.layers
from mlxport.layers.spatial.padding import PAD_MODES, pad

RANKS = pytest.mark.parametrize("rank", [1, 2, 3])
LAYERS = ["ZeroPad", "ReflectionPad", "ReplicationPad", "CircularPad"]


def padded_by_torch(x: torch.Tensor, pads: Any, mode: str, value: float = 0.0) -> torch.Tensor:
    """Pad the last axes by pairs in the order of the axes; torch wants the last axis first."""
    widths = [width for pair in reversed(pads) for width in pair]
    return F.pad(x, widths, mode=mode, **({"value": value} if mode == "constant" else {}))


@pytest.mark.parametrize("mode", PAD_MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.float16], ids=str)
def test_every_pair_of_widths(mode: str, dtype: torch.dtype) -> None:
    """Crops, pads and both, equal to torch's, or refused by both."""
    x = torch.arange(20).reshape(2, 2, 5).to(dtype)
    refused = 0
    for pair in product(range(-6, 8), repeat=2):
        left = 5 + min(pair[0], 0) + min(pair[1], 0)
        try:
            want = padded_by_torch(x, [pair], mode, 2.5)
        except RuntimeError:
            want = None
        # here torch reads memory it never wrote, or wraps around twice
        if want is None or (mode == "circular" and max(*pair, 0) > left):
            refused += 1
            with pytest.raises(ValueError, match="axis 2 of size 5"):
                pad(mx.array(x), [(0, 0), (0, 0), pair], mode, 2.5)
        else:
            got = pad(mx.array(x), [(0, 0), (0, 0), pair], mode, 2.5)
            assert got.dtype == mx.array(x).dtype
            np.testing.assert_array_equal(np.array(got), want.numpy(), err_msg=str(pair))
    assert 0 < refused < 150


@given(
    pairs=st.lists(st.tuples(st.integers(-2, 3), st.integers(-2, 3)), min_size=1, max_size=3),
    mode=st.sampled_from(PAD_MODES),
)
def test_several_axes(pairs: list[tuple[int, int]], mode: str) -> None:
    x = torch.randn(2, 3, *(6, 7, 8)[: len(pairs)])
    got = pad(mx.array(x), [(0, 0), (0, 0), *pairs], mode, -1.5)
    np.testing.assert_array_equal(np.array(got), padded_by_torch(x, pairs, mode, -1.5).numpy())


@pytest.mark.parametrize("value", [0.0, 3.5, float("inf"), float("nan")])
def test_values(value: float) -> None:
    x = torch.randn(2, 3)
    got = pad(mx.array(x), [(1, 0), (0, 2)], value=value)
    np.testing.assert_array_equal(np.array(got), F.pad(x, (0, 2, 1, 0), value=value).numpy())


def test_empty_axes() -> None:
    assert pad(mx.zeros((2, 0)), [(0, 0), (1, 1)]).shape == (2, 2)
    assert pad(mx.zeros((0, 5)), [(0, 0), (1, 1)], "reflect").shape == (0, 7)


@RANKS
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("widths", [2, (1, 2, 0, 1, 2, 0), (2, -1, -1, 1, 0, 1)], ids=str)
@pytest.mark.parametrize("batch", [(2,), ()], ids=["batch", "no_batch"])
def test_layers(rank: int, name: str, widths: Any, batch: tuple[int, ...]) -> None:
    widths = widths if isinstance(widths, int) else widths[: 2 * rank]
    x = torch.randn(*batch, 3, *(6, 7, 8)[:rank])
    want = getattr(torch.nn, f"{name}{rank}d")(widths)(x).movedim(len(batch), -1)
    layer = getattr(mlxport.layers, f"{name}{rank}d")(widths)
    got = layer(mx.array(x.movedim(len(batch), -1).contiguous()))
    np.testing.assert_array_equal(np.array(got), want.numpy())
    assert layer.parameters() == {}


@RANKS
def test_constant_layers(rank: int) -> None:
    x = torch.randn(2, 3, *(6, 7, 8)[:rank])
    want = getattr(torch.nn, f"ConstantPad{rank}d")(1, 2.5)(x).movedim(1, -1)
    got = getattr(mlxport.layers, f"ConstantPad{rank}d")(1, 2.5)(
        mx.array(x.movedim(1, -1).contiguous())
    )
    np.testing.assert_array_equal(np.array(got), want.numpy())


@pytest.mark.parametrize("mode", PAD_MODES)
def test_gradients(mode: str) -> None:
    x, pairs = torch.randn(2, 3, 6, 7), [(2, -1), (1, 3)]
    leaf = x.clone().requires_grad_()
    y = padded_by_torch(leaf, pairs, mode)
    weights = torch.randn_like(y)
    (y * weights).sum().backward()

    def loss(x: mx.array) -> mx.array:
        return (pad(x, [(0, 0), (0, 0), *pairs], mode) * mx.array(weights)).sum()

    np.testing.assert_allclose(
        np.array(mx.grad(loss)(mx.array(x))), leaf.grad.numpy(), rtol=1e-6, atol=1e-6
    )


def test_lists_every_axis_that_cannot_be_padded() -> None:
    with pytest.raises(ValueError, match=r"axis 1 of size 2.*axis 2 of size 3"):
        pad(mx.zeros((1, 2, 3)), [(0, 0), (2, 0), (0, 3)], "reflect")


def test_refuses_unfit_arguments() -> None:
    with pytest.raises(ValueError, match="3 pairs"):
        pad(mx.zeros((1, 2, 3)), [(0, 0)])
    with pytest.raises(ValueError, match="'mode'"):
        pad(mx.zeros(3), [(1, 1)], "symmetric")
    with pytest.raises(ValueError, match="one number or 4"):
        mlxport.layers.ZeroPad2d((1, 2))
    with pytest.raises(ValueError, match="3 or more dimensions"):
        mlxport.layers.ZeroPad2d(1)(mx.zeros((4, 4)))


@RANKS
@pytest.mark.parametrize("name", LAYERS)
def test_axes_before_the_batch(rank: int, name: str) -> None:
    x = torch.randn(2, 2, 3, *(6, 7, 8)[:rank])
    layer = getattr(mlxport.layers, f"{name}{rank}d")(1)
    if name == "ZeroPad":  # constant padding looks at the last axes alone
        want = torch.nn.functional.pad(x.movedim(2, -1), (0, 0, *(1,) * 2 * rank))
        np.testing.assert_array_equal(
            np.array(layer(mx.array(x.movedim(2, -1).contiguous()))), want
        )
        return
    with pytest.raises((ValueError, NotImplementedError, RuntimeError)):
        getattr(torch.nn, f"{name}{rank}d")(1)(x)
    with pytest.raises(ValueError, match=f"{name}{rank}d.* {rank + 1} or {rank + 2} dimensions"):
        layer(mx.array(x.numpy()))
