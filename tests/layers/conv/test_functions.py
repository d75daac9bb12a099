"""`layers.conv.conv` and the layers over it against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mlx import nn

from mlxport.layers import Conv1d, Conv2d, Conv3d
from mlxport.layers.conv.functions import conv

# torch says so of every even kernel with padding "same"; the result is what counts here
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

F = torch.nn.functional
TORCH = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
LAST = {1: (0, 2, 1), 2: (0, 2, 3, 1), 3: (0, 2, 3, 4, 1)}


def to_mlx(t: torch.Tensor, order: tuple[int, ...]) -> mx.array:
    return mx.array(t.detach().permute(order).contiguous())


def operands(
    rank: int, channels: int = 4, out: int = 4, groups: int = 1, kernel: int = 3, size: int = 6
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(2, channels, *(size + i for i in range(rank)))
    return x, torch.randn(out, channels // groups, *[kernel] * rank), torch.randn(out)


def run(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, **kwargs: Any
) -> mx.array:
    last = LAST[weight.ndim - 2]
    mx_bias = None if bias is None else mx.array(bias)
    return conv(to_mlx(x, last), to_mlx(weight, last), mx_bias, **kwargs)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    "kwargs",
    [
        pytest.param({}, id="plain"),
        pytest.param({"stride": 2}, id="stride"),
        pytest.param({"padding": 1}, id="padding"),
        pytest.param({"dilation": 2}, id="dilation"),
        pytest.param({"stride": (2,), "padding": (1,), "dilation": (2,)}, id="sequences_of_one"),
        pytest.param({"padding": "same"}, id="same"),
        pytest.param({"padding": "same", "dilation": 2}, id="same_dilated"),
        pytest.param({"padding": "valid", "stride": 2}, id="valid"),
    ],
)
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_conv(
    assert_parity: Callable[..., None], rank: int, kernel: int, kwargs: dict[str, Any]
) -> None:
    tensors = operands(rank, kernel=kernel)
    got = run(*tensors, **kwargs)
    assert_parity(got, lambda *t: TORCH[rank](*t, **kwargs), *tensors, order=LAST[rank])


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("channels", "out", "groups"),
    [(4, 6, 2), (8, 8, 8), (4, 8, 4), (10, 5, 5), (6, 12, 3)],
    ids=["two", "depthwise", "depthwise_multiplied", "reducing", "as_many_as_taps"],
)
@pytest.mark.parametrize(
    "kwargs",
    [
        pytest.param({"padding": 1}, id="padding"),
        pytest.param({"stride": 2, "dilation": 2, "padding": 2}, id="stride_dilation"),
        pytest.param({"padding": "same"}, id="same"),
    ],
)
def test_groups(
    assert_parity: Callable[..., None],
    rank: int,
    channels: int,
    out: int,
    groups: int,
    kwargs: dict[str, Any],
) -> None:
    tensors = operands(rank, channels, out, groups)
    got = run(*tensors, groups=groups, **kwargs)
    torch_conv = TORCH[rank]
    assert_parity(
        got, lambda *t: torch_conv(*t, groups=groups, **kwargs), *tensors, order=LAST[rank]
    )


sizes = st.integers(1, 3)


@given(data=st.data())
def test_any_setting(assert_parity: Callable[..., None], data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3), label="rank")

    def per_axis(low: int, high: int, label: str) -> tuple[int, ...]:
        return tuple(data.draw(st.tuples(*[st.integers(low, high)] * rank), label=label))

    kernel, stride = per_axis(1, 3, "kernel"), per_axis(1, 3, "stride")
    dilation, padding = per_axis(1, 2, "dilation"), per_axis(0, 3, "padding")
    spare = per_axis(0, 4, "spare")
    groups, per_group = data.draw(sizes, label="groups"), data.draw(sizes, label="per group")
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    size = [max(1, r - 2 * p) + s for r, p, s in zip(reach, padding, spare, strict=True)]
    batch = data.draw(st.integers(0, 2), label="batch")
    x = torch.randn(batch, groups * per_group, *size)
    weight = torch.randn(groups * data.draw(sizes, label="out per group"), per_group, *kernel)
    bias = torch.randn(weight.shape[0]) if data.draw(st.booleans(), label="bias") else None
    got = run(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
    assert_parity(
        got,
        lambda *t: TORCH[rank](*t, stride, padding, dilation, groups),
        x,
        weight,
        bias,
        order=LAST[rank],
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 4])
def test_without_a_batch(assert_parity: Callable[..., None], rank: int, groups: int) -> None:
    x, weight, bias = operands(rank, groups=groups)
    last = (*range(1, rank + 1), 0)
    got = conv(to_mlx(x[0], last), to_mlx(weight, LAST[rank]), mx.array(bias), groups=groups)
    torch_conv = TORCH[rank]
    assert_parity(
        got, lambda x, *w: torch_conv(x, *w, groups=groups), x[0], weight, bias, order=last
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_half_precision(
    assert_parity: Callable[..., None], groups: int, dtype: torch.dtype
) -> None:
    tensors = [t.to(dtype) for t in operands(3, 8, 8, groups)]
    last = LAST[3]
    x, weight = (
        mx.array(t.float().permute(last).contiguous()).astype(
            mx.float16 if dtype == torch.float16 else mx.bfloat16
        )
        for t in tensors[:2]
    )
    bias = mx.array(tensors[2].float()).astype(x.dtype)
    got = conv(x, weight, bias, groups=groups)
    assert_parity(got, lambda *t: F.conv3d(*t, groups=groups), *tensors, order=last)


@pytest.mark.parametrize("groups", [1, 2, 8], ids=["plain", "split", "by_slices"])
@pytest.mark.parametrize("argument", ["input", "weight", "bias"])
def test_gradients(assert_parity: Callable[..., None], groups: int, argument: str) -> None:
    tensors = operands(3, 8, 8, groups)
    settings = {"stride": (2, 1, 2), "padding": 1, "dilation": (1, 2, 1), "groups": groups}
    seed = torch.randn_like(F.conv3d(*tensors, **settings))
    position = ["input", "weight", "bias"].index(argument)
    last = LAST[3]

    def gradient(*given: torch.Tensor) -> torch.Tensor:
        given = tuple(t.clone().requires_grad_() for t in given)
        y = F.conv3d(*given, **settings)
        return torch.autograd.grad((y * seed.to(y.dtype)).sum(), given[position])[0]

    primals = [to_mlx(tensors[0], last), to_mlx(tensors[1], last), mx.array(tensors[2])]
    _, gradients = mx.vjp(lambda *p: conv(*p, **settings), primals, [to_mlx(seed, last)])
    order = (0,) if argument == "bias" else last
    assert_parity(gradients[position], gradient, *tensors, order=order)


X, W = mx.zeros((1, 5, 5, 4)), mx.zeros((4, 3, 3, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param((X, mx.zeros((4, 4))), "3, 4 or 5 dimensions", id="weight_dimensions"),
        pytest.param((X[0, 0], W), "must have 4 dimensions", id="input_dimensions"),
        pytest.param((X, W, None, 0), "'stride' must be positive", id="stride_0"),
        pytest.param((X, W, None, 1, -1), "'padding' must be zero or positive", id="padding_-1"),
        pytest.param((X, W, None, 1, (1, 1, 1)), "a tuple of 2", id="padding_of_3"),
        pytest.param((X, W, None, 2, "same"), "'same' needs stride 1", id="same_strided"),
        pytest.param((X, W, None, 1, "full"), "'same' or 'valid'", id="unknown_padding"),
        pytest.param((X, W, None, 1, 0, 3), r"reaches over \(7, 7\)", id="kernel_too_large"),
        pytest.param((X, W, None, 1, 0, 1, 0), "'groups' must be positive", id="groups_0"),
        pytest.param((X, W, None, 1, 0, 1, 3), "divisible by groups=3", id="groups_3"),
        pytest.param((X, W, None, 1, 0, 1, 2), "must have 8 channels", id="channels"),
        pytest.param((X, W, mx.zeros((3,))), r"bias must have shape \(4,\)", id="bias"),
        pytest.param((X, W.astype(mx.float16)), "input's dtype", id="dtypes"),
        pytest.param((X.astype(mx.int32), W), "floating dtype", id="integers"),
        pytest.param(
            (mx.zeros((1, 5, 5, 0)), mx.zeros((4, 3, 3, 0))), "not be empty", id="no_channels"
        ),
    ],
)
def test_refusals(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conv(*arguments)


LAYERS = {1: (Conv1d, torch.nn.Conv1d), 2: (Conv2d, torch.nn.Conv2d), 3: (Conv3d, torch.nn.Conv3d)}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [0, 1, 2, "same", "valid"])
@pytest.mark.parametrize("kernel", [3, 4])
def test_padding_modes(
    assert_parity: Callable[..., None], rank: int, mode: str, padding: Any, kernel: int
) -> None:
    ours, theirs = LAYERS[rank]
    reference = theirs(4, 6, kernel, padding=padding, padding_mode=mode)
    layer = ours(4, 6, kernel, padding=padding, padding_mode=mode)
    layer.weight = to_mlx(reference.weight, LAST[rank])
    layer.bias = mx.array(reference.bias.detach())
    x, _, _ = operands(rank)

    def torch_layer(x: torch.Tensor) -> torch.Tensor:
        return reference.to(x.dtype)(x)

    assert_parity(layer(to_mlx(x, LAST[rank])), torch_layer, x, order=LAST[rank])
    unbatched = (*range(1, rank + 1), 0)
    reference.float()
    assert_parity(layer(to_mlx(x[0], unbatched)), torch_layer, x[0], order=unbatched)


@pytest.mark.parametrize(
    ("mode", "padding", "fits"),
    [("reflect", 4, True), ("reflect", 5, False), ("circular", 5, True), ("circular", 6, False)],
)
def test_padding_needs_room_as_in_torch(mode: str, padding: int, fits: bool) -> None:
    reference = torch.nn.Conv1d(1, 1, 3, padding=padding, padding_mode=mode)
    layer = Conv1d(1, 1, 3, padding=padding, padding_mode=mode)
    if fits:
        assert layer(mx.zeros((1, 5, 1))).shape[1] == reference(torch.zeros(1, 1, 5)).shape[-1]
        return
    with pytest.raises(RuntimeError):
        reference(torch.zeros(1, 1, 5))
    with pytest.raises(ValueError, match="cannot pad an input of"):
        layer(mx.zeros((1, 5, 1)))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        pytest.param({"padding_mode": "wrap"}, "'padding_mode' must be one of", id="mode"),
        pytest.param({"padding": "full"}, "'same' or 'valid'", id="padding"),
        pytest.param({"padding": "same", "stride": 2}, "needs stride 1", id="same_strided"),
        pytest.param({"groups": 3}, "divisible by groups=3", id="groups"),
        pytest.param({"kernel_size": 0}, "'kernel_size' must be positive", id="kernel"),
        pytest.param({"kernel_size": (3,)}, "a tuple of 2", id="kernel_of_one"),
        pytest.param({"in_channels": 0}, "'in_channels' must be positive", id="no_channels"),
    ],
)
def test_layers_refuse_what_could_never_run(kwargs: dict[str, Any], message: str) -> None:
    given = {"in_channels": 4, "out_channels": 4, "kernel_size": 3, **kwargs}
    with pytest.raises(ValueError, match=message):
        Conv2d(**given)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_layers_have_mlx_parameters(rank: int) -> None:
    ours = LAYERS[rank][0]
    layer = ours(4, 8, 3, groups=2)
    assert isinstance(layer, getattr(nn, ours.__name__))
    assert {name: p.shape for name, p in layer.parameters().items()} == {
        "weight": (8, *[3] * rank, 2),
        "bias": (8,),
    }
    assert "groups=2" in repr(layer)
    assert np.isfinite(np.array(layer(mx.ones((1, *[5] * rank, 4))))).all()
