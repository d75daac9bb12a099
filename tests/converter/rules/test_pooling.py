from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
import torch

from mlxport import layers
from mlxport.converter.errors import UnsupportedError
from mlxport.converter.rules.build import build_layer, spec_for

RANKS = pytest.mark.parametrize("rank", [1, 2, 3])
DTYPES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


def picture(rank: int) -> torch.Tensor:
    return torch.randn(2, 3, *(7, 9, 8)[:rank])


def torch_class(name: str, rank: int) -> Any:
    return getattr(torch.nn, f"{name}{rank}d")


MODULES = [
    pytest.param("MaxPool", (2,), {}, id="max"),
    pytest.param("MaxPool", (3,), {"stride": 2, "padding": 1}, id="max_overlapping"),
    pytest.param("MaxPool", (3,), {"stride": 2, "dilation": 2}, id="max_dilated"),
    pytest.param("MaxPool", (2,), {"ceil_mode": True}, id="max_ceil"),
    pytest.param("MaxPool", (2,), {"return_indices": True}, id="max_indices"),
    pytest.param("AvgPool", (2,), {}, id="avg"),
    pytest.param("AvgPool", (3,), {"stride": 2, "padding": 1}, id="avg_overlapping"),
    pytest.param("AvgPool", (3,), {"padding": 1, "count_include_pad": False}, id="avg_no_pad"),
    pytest.param("AvgPool", (2,), {"count_include_pad": False}, id="avg_nothing_to_count"),
    pytest.param("AvgPool", (3,), {"padding": 1, "ceil_mode": True}, id="avg_ceil"),
    pytest.param("LPPool", (2, 3), {}, id="lp"),
    pytest.param("LPPool", (2, 3), {"stride": 2, "ceil_mode": True}, id="lp_ceil"),
    pytest.param("AdaptiveAvgPool", (1,), {}, id="adaptive_avg_global"),
    pytest.param("AdaptiveAvgPool", (4,), {}, id="adaptive_avg"),
    pytest.param("AdaptiveMaxPool", (4,), {}, id="adaptive_max"),
    pytest.param("AdaptiveMaxPool", (4,), {"return_indices": True}, id="adaptive_max_indices"),
]


@RANKS
@pytest.mark.parametrize(("name", "args", "kwargs"), MODULES)
def test_forward_and_gradients(
    assert_layer_parity: Callable[..., None],
    rank: int,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    module = torch_class(name, rank)(*args, **kwargs)
    assert_layer_parity(module, picture(rank), gradients=True)
    assert_layer_parity(module, picture(rank), train=True)


@DTYPES
@pytest.mark.parametrize(("name", "args", "kwargs"), MODULES)
def test_half_precision(
    assert_layer_parity: Callable[..., None],
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dtype: torch.dtype,
) -> None:
    assert_layer_parity(torch_class(name, 2)(*args, **kwargs), picture(2), dtype=dtype)


@pytest.mark.parametrize("kernel", [2, 3, 7])
def test_means_of_large_values(assert_layer_parity: Callable[..., None], kernel: int) -> None:
    x = torch.rand(1, 2, 9, 9) * 200 + 2000  # 49 of them exceed what float16 can hold
    assert_layer_parity(torch.nn.AvgPool2d(kernel, 1), x, dtype=torch.float16)


@RANKS
@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        pytest.param("MaxPool", (3,), {"dilation": 2}, id="max"),
        pytest.param("AvgPool", (2,), {"ceil_mode": True}, id="avg"),
        pytest.param("LPPool", (2, 3), {}, id="lp"),
        pytest.param("AdaptiveAvgPool", (2,), {}, id="adaptive_avg"),
        pytest.param("AdaptiveMaxPool", (2,), {}, id="adaptive_max"),
    ],
)
def test_ours_take_input_without_batch(
    assert_layer_parity: Callable[..., None],
    rank: int,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    assert_layer_parity(torch_class(name, rank)(*args, **kwargs), picture(rank)[0])


@RANKS
@pytest.mark.parametrize("name", ["MaxPool", "AvgPool"])
def test_mlx_own_in_whole_models_ours_where_the_batch_may_lack(
    assert_layer_parity: Callable[..., None], rank: int, name: str
) -> None:
    module = torch_class(name, rank)(2)
    assert spec_for(module).target is getattr(nn, f"{name}{rank}d")
    assert type(build_layer(module)) is getattr(layers, f"{name}{rank}d")
    assert_layer_parity(module, picture(rank)[0])


@RANKS
def test_unpooling(assert_layer_parity: Callable[..., None], rank: int) -> None:
    x = torch.randn(2, 3, *[9] * rank)
    y, indices = torch_class("MaxPool", rank)(3, return_indices=True)(x)
    unpool = torch_class("MaxUnpool", rank)(3)
    assert_layer_parity(unpool, y, indices, gradients=True)
    assert_layer_parity(unpool, y[0], indices[0])


@RANKS
def test_unpooling_with_padding(assert_layer_parity: Callable[..., None], rank: int) -> None:
    x = torch.randn(2, 3, *[8] * rank)
    settings = {"stride": 2, "padding": 1}
    y, indices = torch_class("MaxPool", rank)(4, return_indices=True, **settings)(x)
    assert_layer_parity(torch_class("MaxUnpool", rank)(4, **settings), y, indices)


def test_unequal_windows(assert_layer_parity: Callable[..., None]) -> None:
    module = torch.nn.MaxPool3d((1, 2, 3), stride=(1, 3, 2), padding=(0, 1, 0))
    assert_layer_parity(module, picture(3), gradients=True)
    module = torch.nn.AvgPool2d((2, 3), divisor_override=5)
    assert_layer_parity(module, picture(2), gradients=True)


@pytest.mark.parametrize("sizes", [(None, 4), (3, None), (None, None)], ids=str)
def test_adaptive_sizes_left_open(
    assert_layer_parity: Callable[..., None], sizes: tuple[int | None, ...]
) -> None:
    assert_layer_parity(torch.nn.AdaptiveAvgPool2d(sizes), picture(2))
    assert_layer_parity(torch.nn.AdaptiveMaxPool2d(sizes), picture(2))


@pytest.mark.parametrize(
    ("module", "target", "args", "kwargs"),
    [
        (torch.nn.MaxPool3d(2), nn.MaxPool3d, (2,), {"stride": 2}),
        (
            torch.nn.MaxPool2d([3, 2], [2, 1], [1, 0]),
            nn.MaxPool2d,
            ((3, 2),),
            {"stride": (2, 1), "padding": (1, 0)},
        ),
        (
            torch.nn.MaxPool2d(2, ceil_mode=True),
            layers.MaxPool2d,
            (2,),
            {"stride": 2, "ceil_mode": True},
        ),
        (torch.nn.AvgPool1d(3, 1, 1), nn.AvgPool1d, (3,), {"stride": 1, "padding": 1}),
        (torch.nn.AvgPool2d(7), layers.AvgPool2d, (7,), {"stride": 7}),
        (
            torch.nn.AvgPool3d(2, divisor_override=3),
            layers.AvgPool3d,
            (2,),
            {"stride": 2, "divisor_override": 3},
        ),
        (torch.nn.LPPool2d(2, 3), layers.LPPool2d, (2.0, 3), {}),
        (torch.nn.AdaptiveAvgPool2d((1, 1)), layers.AdaptiveAvgPool2d, (1,), {}),
        (torch.nn.AdaptiveMaxPool3d((1, 2, None)), layers.AdaptiveMaxPool3d, ((1, 2, None),), {}),
        (torch.nn.MaxUnpool2d(2), layers.MaxUnpool2d, (2,), {"stride": 2}),
    ],
    ids=lambda value: str(value) if isinstance(value, torch.nn.Module) else "",
)
def test_what_is_built(
    module: torch.nn.Module, target: type, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    spec = spec_for(module)
    assert (spec.target, spec.args, spec.kwargs) == (target, args, kwargs)


@pytest.mark.parametrize("name", ["MaxPool", "AvgPool"])
def test_refuses_a_padding_torch_cannot_run(name: str) -> None:
    module = torch_class(name, 2)(3, padding=2)
    with pytest.raises(RuntimeError):
        module(picture(2))
    with pytest.raises(UnsupportedError, match="exceeds half"):
        build_layer(module)


FRACTIONAL = {
    "size": (torch.nn.FractionalMaxPool2d, (2,), {"output_size": (3, 4)}, (2, 3, 7, 9)),
    "ratio": (torch.nn.FractionalMaxPool2d, ((2, 3),), {"output_ratio": (0.5, 0.7)}, (2, 3, 9, 8)),
    "unbatched": (torch.nn.FractionalMaxPool2d, (3,), {"output_size": 2}, (3, 7, 9)),
    "one": (torch.nn.FractionalMaxPool2d, (2,), {"output_size": 1}, (1, 3, 5, 5)),
    "all": (torch.nn.FractionalMaxPool2d, (1,), {"output_size": 5}, (1, 3, 5, 5)),
    "volume": (
        torch.nn.FractionalMaxPool3d,
        ((2, 3, 1),),
        {"output_size": (3, 4, 5)},
        (2, 3, 7, 9, 6),
    ),
    "volume_ratio": (torch.nn.FractionalMaxPool3d, (2,), {"output_ratio": 0.6}, (2, 3, 5, 6, 7)),
    "volume_unbatched": (torch.nn.FractionalMaxPool3d, (2,), {"output_size": 2}, (3, 5, 6, 7)),
}


@pytest.mark.parametrize("return_indices", [False, True], ids=["values", "indices"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", FRACTIONAL)
def test_fractional_windows_of_given_samples(
    assert_layer_parity: Callable[..., None],
    name: str,
    dtype: torch.dtype,
    return_indices: bool,
) -> None:
    source, args, kwargs, shape = FRACTIONAL[name]
    rank = 2 if source is torch.nn.FractionalMaxPool2d else 3
    samples = torch.rand(shape[0] if len(shape) == rank + 2 else 1, 3, rank)
    module = source(*args, **kwargs, return_indices=return_indices, _random_samples=samples)
    exact = dtype is torch.float32
    assert_layer_parity(module, torch.randn(shape), dtype=dtype, gradients=exact)


def test_fractional_windows_are_drawn() -> None:
    layer = build_layer(torch.nn.FractionalMaxPool2d(2, 4, return_indices=True))
    x = mx.random.normal((2, 21, 12, 3))
    (y, index), (_, other) = layer(x), layer(x)
    flat = mx.take_along_axis(x.reshape(2, -1, 3), index.reshape(2, -1, 3), axis=1)
    assert mx.array_equal(flat.reshape(y.shape), y)
    assert not mx.array_equal(index, other)


def test_samples_do_not_train() -> None:
    module = torch.nn.FractionalMaxPool2d(2, 3, _random_samples=torch.rand(1, 2, 2))
    layer = build_layer(module)
    layer.unfreeze()
    assert layer.trainable_parameters() == {}
    assert mx.array_equal(layer.random_samples, mx.array(module._random_samples))


def test_wide_padding_is_left_to_layers_that_do_not_store_it() -> None:
    assert spec_for(torch.nn.MaxPool2d(32, 1, 16)).target is nn.MaxPool2d
    assert spec_for(torch.nn.MaxPool2d(34, 1, 17)).target is layers.MaxPool2d
    assert spec_for(torch.nn.AvgPool1d(34, 1, 17)).target is layers.AvgPool1d
