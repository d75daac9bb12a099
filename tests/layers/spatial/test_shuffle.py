"""`layers.shape` against torch: elements are moved, so they must be equal."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mlxport.layers.spatial.shuffle import (
    Flatten,
    Unflatten,
    channel_shuffle,
    pixel_shuffle,
    pixel_unshuffle,
)

LEADING = pytest.mark.parametrize("leading", [(), (2,), (2, 3)], ids=str)


def to_mlx(x: torch.Tensor, channel: int = -3) -> mx.array:
    return mx.array(x.movedim(channel, -1).contiguous())


def assert_equal(got: mx.array, want: torch.Tensor) -> None:
    np.testing.assert_array_equal(np.array(got), want.numpy())


@LEADING
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_shuffle(leading: tuple[int, ...], factor: int) -> None:
    x = torch.randn(*leading, 36, 4, 5)
    assert_equal(pixel_shuffle(to_mlx(x), factor), F.pixel_shuffle(x, factor).movedim(-3, -1))


def test_pixels_of_no_images() -> None:
    assert pixel_shuffle(mx.zeros((0, 4, 5, 36)), 3).shape == (0, 12, 15, 4)
    assert pixel_unshuffle(mx.zeros((0, 4, 6, 3)), 2).shape == (0, 2, 3, 12)


@LEADING
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixel_unshuffle(leading: tuple[int, ...], factor: int) -> None:
    x = torch.randn(*leading, 5, 12, 6)
    assert_equal(pixel_unshuffle(to_mlx(x), factor), F.pixel_unshuffle(x, factor).movedim(-3, -1))


@pytest.mark.parametrize("spatial", [(4,), (4, 5), (4, 5, 3)], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_channel_shuffle(spatial: tuple[int, ...], groups: int) -> None:
    x = torch.randn(2, 6, *spatial)
    got = channel_shuffle(to_mlx(x, 1), groups)
    assert_equal(got, F.channel_shuffle(x, groups).movedim(1, -1))


@pytest.mark.parametrize(("start", "end"), [(1, -1), (0, 2), (2, 2), (-2, -1)])
def test_flatten(start: int, end: int) -> None:
    x = torch.randn(2, 3, 4, 5)
    assert_equal(Flatten(start, end)(mx.array(x)), torch.nn.Flatten(start, end)(x))


@pytest.mark.parametrize(("axis", "shape"), [(1, (2, 3)), (-1, (5, 1)), (1, (-1, 2))])
def test_unflatten(axis: int, shape: tuple[int, ...]) -> None:
    x = torch.randn(2, 6, 5)
    assert_equal(Unflatten(axis, shape)(mx.array(x)), torch.nn.Unflatten(axis, shape)(x))


def test_refuses_what_torch_refuses() -> None:
    with pytest.raises(RuntimeError):
        F.pixel_shuffle(torch.zeros(1, 6, 2, 2), 2)
    with pytest.raises(ValueError, match="no multiple"):
        pixel_shuffle(mx.zeros((1, 2, 2, 6)), 2)
    with pytest.raises(RuntimeError):
        F.pixel_unshuffle(torch.zeros(1, 6, 3, 2), 2)
    with pytest.raises(ValueError, match="must be multiples"):
        pixel_unshuffle(mx.zeros((1, 3, 2, 6)), 2)
    with pytest.raises(RuntimeError):
        F.channel_shuffle(torch.zeros(1, 5, 2), 2)
    with pytest.raises(ValueError, match="multiple of groups=2"):
        channel_shuffle(mx.zeros((1, 2, 5)), 2)
    with pytest.raises(RuntimeError):
        F.channel_shuffle(torch.zeros(4, 4), 2)
    with pytest.raises(ValueError, match="must be"):
        channel_shuffle(mx.zeros((4, 4)), 2)
    with pytest.raises(RuntimeError):
        F.pixel_shuffle(torch.zeros(4, 4), 2)
    with pytest.raises(ValueError, match="must be"):
        pixel_shuffle(mx.zeros((4, 4)), 2)
