"""`layers.pooling` and `layers.windows` against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mlxport.layers.pooling.functions import avg_pool, lp_pool, max_pool
from mlxport.layers.pooling.indexed import max_pool_with_indices

MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVG = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
LP = {1: F.lp_pool1d, 2: F.lp_pool2d, 3: F.lp_pool3d}
LAST = {1: (0, 2, 1), 2: (0, 2, 3, 1), 3: (0, 2, 3, 4, 1)}
RANKS = pytest.mark.parametrize("rank", [1, 2, 3])
HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)

WINDOWS = [
    pytest.param({"kernel_size": 2}, id="blocks"),
    pytest.param({"kernel_size": 4}, id="blocks_leaving_a_rest"),
    pytest.param({"kernel_size": 3, "stride": 2, "padding": 1}, id="overlapping"),
    pytest.param({"kernel_size": 2, "stride": 3}, id="gaps"),
    pytest.param({"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}, id="ceil"),
    pytest.param({"kernel_size": 2, "ceil_mode": True}, id="ceil_blocks"),
    pytest.param({"kernel_size": 1, "stride": 3, "ceil_mode": True}, id="ceil_dropped_window"),
    pytest.param({"kernel_size": 7}, id="whole_axis"),
]


def picture(rank: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 3, *(7, 9, 8)[:rank]).to(dtype)


def to_mlx(x: torch.Tensor) -> mx.array:
    return mx.array(x.movedim(1, -1).contiguous())


def windows(rank: int, settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings, "kernel_size": (settings["kernel_size"],) * rank}


@RANKS
@pytest.mark.parametrize("settings", WINDOWS)
def test_max_pool(assert_parity: Callable[..., None], rank: int, settings: dict[str, Any]) -> None:
    x = picture(rank)
    y = max_pool(to_mlx(x), **windows(rank, settings))
    assert_parity(y, lambda x: MAX[rank](x, **settings), x, order=LAST[rank])


@RANKS
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_max_pool_with_dilation(
    assert_parity: Callable[..., None], rank: int, padding: int, ceil_mode: bool
) -> None:
    settings = {"stride": 2, "padding": padding, "dilation": 2, "ceil_mode": ceil_mode}
    x = picture(rank)
    y = max_pool(to_mlx(x), (3,) * rank, **settings)
    assert_parity(y, lambda x: MAX[rank](x, 3, **settings), x, order=LAST[rank])


@RANKS
@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("settings", WINDOWS)
def test_avg_pool(
    assert_parity: Callable[..., None],
    rank: int,
    count_include_pad: bool,
    settings: dict[str, Any],
) -> None:
    settings = {**settings, "count_include_pad": count_include_pad}
    x = picture(rank)
    y = avg_pool(to_mlx(x), **windows(rank, settings))
    assert_parity(y, lambda x: AVG[rank](x, **settings), x, order=LAST[rank])


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("divisor", [1, 5, -2])
def test_avg_pool_with_divisor(assert_parity: Callable[..., None], rank: int, divisor: int) -> None:
    settings = {"stride": 2, "padding": 1, "divisor_override": divisor}
    x = picture(rank)
    y = avg_pool(to_mlx(x), (3,) * rank, **settings)
    assert_parity(y, lambda x: AVG[rank](x, 3, **settings), x, order=LAST[rank])


@RANKS
@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_lp_pool(
    assert_parity: Callable[..., None], rank: int, norm_type: float, ceil_mode: bool
) -> None:
    x = picture(rank)  # of both signs: odd norms give NaN
    y = lp_pool(to_mlx(x), norm_type, (3,) * rank, stride=2, ceil_mode=ceil_mode)
    assert_parity(
        y, lambda x: LP[rank](x, norm_type, 3, 2, ceil_mode=ceil_mode), x, order=LAST[rank]
    )


@HALVES
def test_half_precision_max(assert_parity: Callable[..., None], dtype: torch.dtype) -> None:
    x = picture(3, dtype)
    y = max_pool(to_mlx(x), (3, 3, 3), stride=2, padding=1)
    assert_parity(y, lambda x: F.max_pool3d(x, 3, 2, 1), x, order=LAST[3])


@HALVES
@pytest.mark.parametrize("kernel", [2, 7])
def test_half_precision_mean(
    assert_parity: Callable[..., None], dtype: torch.dtype, kernel: int
) -> None:
    x = picture(2, dtype)
    y = avg_pool(to_mlx(x), (kernel, kernel), stride=1)
    assert_parity(y, lambda x: F.avg_pool2d(x, kernel, 1), x, order=LAST[2])


def test_half_precision_sum_beyond_its_range() -> None:
    x = mx.full((1, 16, 16, 1), 60000.0, dtype=mx.float16)
    assert avg_pool(x, (16, 16)).item() == 60000.0


@pytest.mark.parametrize("settings", WINDOWS)
def test_whole_numbers(settings: dict[str, Any]) -> None:
    x = torch.randint(-50, 50, (2, 3, 7, 9))
    got = max_pool(to_mlx(x), **windows(2, settings))
    want = F.max_pool2d(x, **settings).permute(LAST[2])
    np.testing.assert_array_equal(np.array(got), want.numpy())


@RANKS
@pytest.mark.parametrize("function", [max_pool, avg_pool], ids=["max", "avg"])
def test_without_batch(rank: int, function: Callable[..., mx.array]) -> None:
    x = to_mlx(picture(rank))
    settings = {"kernel_size": (3,) * rank, "stride": 2, "padding": 1}
    assert mx.array_equal(function(x[0], **settings), function(x, **settings)[0])


def test_empty_batch() -> None:
    assert max_pool(mx.zeros((0, 8, 8, 3)), (2, 2)).shape == (0, 4, 4, 3)
    assert avg_pool(mx.zeros((0, 8, 8, 3)), (2, 2)).shape == (0, 4, 4, 3)


@RANKS
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("settings", WINDOWS)
def test_special_values_stay_where_torch_has_them(
    assert_parity: Callable[..., None], rank: int, special: float, settings: dict[str, Any]
) -> None:
    x = picture(rank)
    x.reshape(2, 3, -1)[:, :, [1, 30 % 7**rank]] = special
    for function, reference in ((max_pool, MAX[rank]), (avg_pool, AVG[rank])):
        y = function(to_mlx(x), **windows(rank, settings))
        assert_parity(y, lambda x, f=reference: f(x, **settings), x, order=LAST[rank])


def test_a_window_of_padding_alone_gives_no_number() -> None:
    x = torch.ones(1, 1, 2)
    settings = {"stride": 1, "padding": 1, "dilation": 3}
    want = F.max_pool1d(x, 2, **settings)
    assert want.item() == -np.inf
    assert max_pool(to_mlx(x), (2,), **settings).item() == -np.inf


@RANKS
def test_gradient_of_a_tie_goes_to_the_first(rank: int) -> None:
    x = torch.randint(0, 2, (2, 3, *(7, 9, 8)[:rank])).float()
    leaf = x.clone().requires_grad_()
    weights = torch.randn_like(MAX[rank](x, 3, 2, 1))
    (MAX[rank](leaf, 3, 2, 1) * weights).sum().backward()

    def loss(x: mx.array) -> mx.array:
        return (max_pool(x, (3,) * rank, stride=2, padding=1) * to_mlx(weights)).sum()

    got = np.array(mx.grad(loss)(to_mlx(x)))
    np.testing.assert_allclose(got, leaf.grad.permute(LAST[rank]).numpy(), atol=1e-5)


def test_gradients_of_means(assert_parity: Callable[..., None]) -> None:
    x = picture(3)
    settings = {"stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}
    weights = torch.randn_like(F.avg_pool3d(x, 3, **settings))

    def reference(x: torch.Tensor) -> torch.Tensor:
        leaf = x.clone().requires_grad_()
        (F.avg_pool3d(leaf, 3, **settings) * weights).sum().backward()
        return leaf.grad

    got = mx.grad(lambda x: (avg_pool(x, (3, 3, 3), **settings) * to_mlx(weights)).sum())(to_mlx(x))
    assert_parity(got, reference, x, order=LAST[3])


def test_compiles() -> None:
    x = mx.random.normal((1, 8, 8, 3))

    def both(x: mx.array) -> mx.array:
        return max_pool(x, (2, 2)) + avg_pool(x, (3, 3), stride=2, padding=1)

    assert mx.allclose(mx.compile(both)(x), both(x))


REFUSED = {
    "padding beyond half the kernel": {"kernel_size": 3, "padding": 2},
    "negative padding": {"kernel_size": 3, "padding": -1},
    "stride 0": {"kernel_size": 3, "stride": 0},
    "kernel 0": {"kernel_size": 0},
    "kernel beyond the input": {"kernel_size": 11},
}


@RANKS
@pytest.mark.parametrize("settings", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize(
    ("function", "references"), [(max_pool, MAX), (avg_pool, AVG)], ids=["max", "avg"]
)
def test_refuses_what_torch_refuses(
    rank: int, settings: dict[str, Any], function: Callable[..., mx.array], references: Any
) -> None:
    x = torch.randn(1, 2, *[9] * rank)
    with pytest.raises((RuntimeError, ValueError)):
        references[rank](x, **settings)
    with pytest.raises(ValueError, match=r"\[(max|avg)_pool\]"):
        function(to_mlx(x), **windows(rank, settings))


@RANKS
def test_refuses_a_dilated_padding_torch_refuses(rank: int) -> None:
    x = torch.randn(1, 2, *[9] * rank)
    with pytest.raises(RuntimeError):
        MAX[rank](x, 3, 1, 2, 2)
    with pytest.raises(ValueError, match="at most half"):
        max_pool(to_mlx(x), (3,) * rank, 1, 2, 2)


def test_refuses_a_kernel_that_does_not_tell_the_spatial_axes() -> None:
    with pytest.raises(ValueError, match="one entry per spatial axis"):
        max_pool(mx.zeros((4, 4, 4)), 2)  # type: ignore[arg-type]


def test_refuses_other_than_a_batch_more_or_less() -> None:
    with pytest.raises(ValueError, match="must have 4 dimensions"):
        avg_pool(mx.zeros((4, 4)), (2, 2))


def test_refuses_a_zero_divisor_and_whole_numbers() -> None:
    with pytest.raises(ValueError, match="divisor_override"):
        avg_pool(mx.zeros((1, 4, 4, 1)), (2, 2), divisor_override=0)
    with pytest.raises(ValueError, match="floating"):
        avg_pool(mx.zeros((1, 4, 4, 1), dtype=mx.int32), (2, 2))


@st.composite
def configurations(draw: st.DrawFn, dilated: bool) -> tuple[torch.Tensor, list[Any]]:
    """An input and the arguments kernel size, stride, padding, then dilation or none."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))

    def each(low: int, tops: list[int]) -> list[int]:
        return [draw(st.integers(low, top)) for top in tops]

    rank = len(sizes)
    # torch's avg_pool3d wants the kernel inside the input, whatever the padding; ours does not
    inside = rank == 3 and not dilated
    kernel = each(1, [min(5, size) for size in sizes] if inside else [5] * rank)
    arguments = [kernel, each(1, [4] * rank), each(0, [k // 2 for k in kernel])]
    return torch.randn(2, 2, *sizes), [*arguments, *([each(1, [3] * rank)] if dilated else [])]


def compare(
    assert_parity: Callable[..., None],
    function: Callable[..., mx.array],
    reference: Callable[..., torch.Tensor],
    x: torch.Tensor,
    *arguments: Any,
) -> None:
    """Either both compute the same or both refuse."""
    try:
        reference(x, *arguments)
    except RuntimeError:
        with pytest.raises(ValueError, match="pool"):
            function(to_mlx(x), *arguments)
    else:
        y = function(to_mlx(x), *arguments)
        assert_parity(y, lambda x: reference(x, *arguments), x, order=LAST[x.ndim - 2])


@given(configurations(dilated=True), st.booleans())
def test_every_max_pool(
    assert_parity: Callable[..., None], configuration: tuple[torch.Tensor, Any], ceil_mode: bool
) -> None:
    x, arguments = configuration
    compare(assert_parity, max_pool, MAX[x.ndim - 2], x, *arguments, ceil_mode)


@given(configurations(dilated=False), st.booleans(), st.booleans())
def test_every_avg_pool(
    assert_parity: Callable[..., None],
    configuration: tuple[torch.Tensor, Any],
    ceil_mode: bool,
    count_include_pad: bool,
) -> None:
    x, arguments = configuration
    reference = AVG[x.ndim - 2]
    compare(assert_parity, avg_pool, reference, x, *arguments, ceil_mode, count_include_pad)


@given(
    size=st.integers(1, 6),
    kernel=st.integers(1, 90),
    stride=st.integers(1, 90),
    padding=st.integers(0, 45),
    dilation=st.sampled_from([1, 1, 2, 7]),
    ceil_mode=st.booleans(),
)
def test_windows_of_any_width_over_a_short_axis(
    size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> None:
    settings: dict[str, Any] = {"stride": stride, "ceil_mode": ceil_mode}
    settings["padding"] = min(padding, kernel // 2)
    x = torch.randn(1, 2, size)
    for torchs, ours, more in (
        (F.max_pool1d, max_pool, {"dilation": dilation}),
        (F.avg_pool1d, avg_pool, {"count_include_pad": bool(dilation % 2)}),
    ):
        try:
            expected = torchs(x, kernel, **settings, **more)
        except RuntimeError:
            continue  # which of them fit the axis is another test's
        got = ours(to_mlx(x), (kernel,), **settings, **more)
        np.testing.assert_allclose(np.array(got).swapaxes(1, 2), expected.numpy(), rtol=1e-6)


WIDE = {
    "beyond_the_end": {"kernel_size": 900, "ceil_mode": True},
    "padded": {"kernel_size": 900, "padding": 450, "stride": 1},
    "far_apart": {"kernel_size": 900, "padding": 450, "stride": 451, "ceil_mode": True},
}


@pytest.mark.parametrize("settings", WIDE.values(), ids=WIDE)
@pytest.mark.parametrize("pool", [max_pool, avg_pool, max_pool_with_indices])
def test_memory_follows_the_axes_and_not_the_windows(
    pool: Callable[..., Any], settings: dict[str, Any]
) -> None:
    x = mx.ones((1, 2, 2, 64))
    mx.eval(x)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    mx.eval(pool(x, **windows(2, settings)))
    # 900 x 900 windows of 64 channels are 200 MB
    assert mx.get_peak_memory() - before < 10_000_000
