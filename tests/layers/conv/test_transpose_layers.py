"""`ConvTranspose{1,2,3}d` as layers: arguments, parameters, `output_size`, errors."""

from __future__ import annotations

import inspect
import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten

from mlxport.layers.conv.transpose import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d

OURS: dict[int, Any] = {1: ConvTranspose1d, 2: ConvTranspose2d, 3: ConvTranspose3d}
MLX: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
TORCH: dict[int, Any] = {
    1: torch.nn.ConvTranspose1d,
    2: torch.nn.ConvTranspose2d,
    3: torch.nn.ConvTranspose3d,
}
ranks = pytest.mark.parametrize("rank", [1, 2, 3])


def pair(rank: int, *arguments: Any, **keywords: Any) -> tuple[nn.Module, torch.nn.Module]:
    """Ours and torch's of the same arguments and weights."""
    theirs = TORCH[rank](*arguments, **keywords)
    ours = OURS[rank](*arguments, **keywords)
    weight = theirs.weight.detach().unflatten(0, (theirs.groups, -1)).movedim(1, -1).flatten(0, 1)
    weights = [("weight", mx.array(weight.contiguous()))]
    if theirs.bias is not None:
        weights.append(("bias", mx.array(theirs.bias.detach())))
    ours.load_weights(weights)
    return ours, theirs


def apply_both(
    ours: nn.Module, theirs: torch.nn.Module, x: torch.Tensor, *sizes: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Both results, channels last; `sizes` are `output_size` for ours and for torch."""
    rank = theirs.weight.ndim - 2
    with torch.no_grad():
        want = theirs(x, *sizes[1:]).movedim(-1 - rank, -1)
    got = ours(mx.array(x.movedim(-1 - rank, -1).contiguous()), *sizes[:1])
    return np.array(got), want.numpy()


CONSTRUCTED = {
    "defaults": ((4, 6, 3), {}),
    "positional": ((4, 6, 3, 2, 1, 1, 2, False, 2, "zeros"), {}),
    "keywords": ((4, 6), {"kernel_size": 4, "stride": 2, "padding": 1, "bias": False}),
    "groups": ((4, 6, 2), {"stride": 2, "groups": 2}),
    "dilation": ((4, 6, 3), {"stride": 2, "dilation": 3, "output_padding": 2}),
}


@ranks
@pytest.mark.parametrize("name", CONSTRUCTED)
def test_matches_torch(rank: int, name: str) -> None:
    arguments, keywords = CONSTRUCTED[name]
    ours, theirs = pair(rank, *arguments, **keywords)
    got, want = apply_both(ours, theirs, torch.randn(2, 4, *(3, 5, 4)[:rank]))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_matches_torch_with_a_size_per_axis() -> None:
    ours, theirs = pair(3, 4, 6, (1, 3, 4), (1, 2, 3), (0, 1, 2), (0, 1, 2), dilation=(1, 1, 2))
    got, want = apply_both(ours, theirs, torch.randn(4, 3, 5, 4))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@ranks
def test_arguments_are_torchs_in_torchs_order(rank: int) -> None:
    ours = inspect.signature(OURS[rank]).parameters
    theirs = inspect.signature(TORCH[rank]).parameters
    assert list(ours) == [name for name in theirs if name not in ("device", "dtype")]
    assert [p.default for p in ours.values()] == [theirs[name].default for name in ours]


@ranks
def test_takes_the_place_of_mlxs(rank: int) -> None:
    layer, native = OURS[rank](4, 6, 3), MLX[rank](4, 6, 3)
    assert isinstance(layer, MLX[rank])
    names, shapes = zip(*((n, a.shape) for n, a in tree_flatten(layer.parameters())), strict=True)
    assert dict(zip(names, shapes, strict=True)) == {
        n: a.shape for n, a in tree_flatten(native.parameters())
    }


@ranks
def test_parameters_are_weight_and_bias_alone(rank: int) -> None:
    lists = {"stride": [2] * rank, "padding": [1] * rank, "dilation": [1] * rank}
    layer = OURS[rank](6, 9, [3] * rank, groups=3, **lists)
    assert {name: array.shape for name, array in tree_flatten(layer.parameters())} == {
        "weight": (9, *(3,) * rank, 2),
        "bias": (9,),
    }
    assert set(OURS[rank](6, 9, 3, bias=False).parameters()) == {"weight"}


@ranks
@pytest.mark.parametrize("groups", [1, 4])
def test_initial_weights_lie_in_torchs_bounds(rank: int, groups: int) -> None:
    layer, theirs = OURS[rank](32, 64, 3, groups=groups), TORCH[rank](32, 64, 3, groups=groups)
    bound = 1 / math.sqrt(64 / groups * 3**rank)
    for name in ("weight", "bias"):
        for largest in (mx.abs(layer[name]).max(), getattr(theirs, name).abs().max()):
            assert 0.8 * bound < largest.item() <= bound * (1 + 1e-6)
        assert abs(layer[name].mean().item()) < 0.3 * bound


@ranks
def test_uses_the_weights_it_has_now(rank: int) -> None:
    layer = OURS[rank](2, 3, 3, stride=2)
    x = mx.ones((1, *(4,) * rank, 2))
    layer.update({"weight": mx.zeros_like(layer.weight), "bias": mx.array([1.0, 2.0, 3.0])})
    assert mx.array_equal(layer(x), mx.broadcast_to(layer.bias, layer(x).shape))
    layer.set_dtype(mx.float16)
    assert layer(x.astype(mx.float16)).dtype == mx.float16


@ranks
def test_gradients_reach_every_parameter(rank: int) -> None:
    ours, theirs = pair(rank, 4, 6, 3, stride=2, output_padding=1, groups=2)
    x = torch.randn(2, 4, *(3, 5, 4)[:rank])
    theirs(x).square().sum().backward()
    y = mx.array(x.movedim(1, -1).contiguous())
    _, gradients = nn.value_and_grad(ours, lambda: ours(y).square().sum())()
    weight = theirs.weight.grad.unflatten(0, (2, -1)).movedim(1, -1).flatten(0, 1)
    np.testing.assert_allclose(np.array(gradients["weight"]), weight, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.array(gradients["bias"]), theirs.bias.grad, rtol=1e-4, atol=1e-4)


@ranks
def test_compiled(rank: int) -> None:
    layer = OURS[rank](4, 6, 3, stride=2, padding=1, output_padding=1)
    x = mx.random.normal((2, *(4,) * rank, 4))
    assert mx.allclose(mx.compile(layer)(x), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("rank", "text"),
    [
        (1, "4, 6, kernel_size=3, stride=2, padding=1, output_padding=0, groups=2, dilation=1"),
        (
            3,
            "4, 6, kernel_size=(3, 3, 3), stride=(2, 2, 2), padding=(1, 1, 1), "
            "output_padding=(0, 0, 0), groups=2, dilation=(1, 1, 1)",
        ),
    ],
)
def test_repr(rank: int, text: str) -> None:
    layer = OURS[rank](4, 6, 3, stride=2, padding=1, groups=2)
    assert repr(layer) == f"ConvTranspose{rank}d({text}, bias=True)"


@ranks
@pytest.mark.parametrize("batch", [(2,), (0,), ()], ids=["batch", "empty batch", "no batch"])
@pytest.mark.parametrize("more", [0, 1, 2])
@pytest.mark.parametrize("whole", [False, True], ids=["spatial size", "whole shape"])
def test_output_size(rank: int, batch: tuple[int, ...], more: int, whole: bool) -> None:
    keywords = {"stride": 3, "padding": 1, "dilation": 2, "output_padding": 1}
    ours, theirs = pair(rank, 4, 6, 2, **keywords)
    x = torch.randn(*batch, 4, *(3, 5, 4)[:rank])
    size = tuple(3 * (n - 1) + 1 + more for n in (3, 5, 4)[:rank])
    sizes = ((*batch, *size, 6), (*batch, 6, *size)) if whole else (size, list(size))
    got, want = apply_both(ours, theirs, x, *sizes)
    assert got.shape == (*batch, *size, 6)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@ranks
@pytest.mark.parametrize("change", [-1, 3, "short", "long"])
def test_output_size_refused(rank: int, change: int | str) -> None:
    ours, theirs = pair(rank, 4, 6, 2, stride=3)
    x = torch.randn(2, 4, *(3,) * rank)
    size = [8] * rank
    if change == "short":
        size = size[1:]
    elif change == "long":
        size = [2, 4, 6, *size]
    else:
        size[-1] += change
    with pytest.raises(ValueError, match="output"):
        theirs(x, size)
    with pytest.raises(ValueError, match=rf"^\[ConvTranspose{rank}d\] 'output_size' must "):
        ours(mx.array(x.movedim(1, -1).contiguous()), size)


@ranks
def test_output_padding_too_large_matters_only_without_output_size(rank: int) -> None:
    ours, theirs = pair(rank, 4, 6, 2, stride=2, output_padding=2)
    x = torch.randn(2, 4, *(3,) * rank)
    with pytest.raises(RuntimeError):
        theirs.double()(x.double())
    with pytest.raises(ValueError, match=rf"^\[ConvTranspose{rank}d\] 'output_padding' must be s"):
        ours(mx.array(x.movedim(1, -1).contiguous()))
    got, want = apply_both(ours, theirs.float(), x, [7] * rank, [7] * rank)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


NEVER = {
    "groups do not divide inputs": ({"in_channels": 3, "groups": 2}, "'in_channels' must be div"),
    "groups do not divide outputs": ({"out_channels": 5, "groups": 2}, "'out_channels' must be "),
    "groups 0": ({"groups": 0}, "'groups' must be positive"),
    "no inputs": ({"in_channels": 0}, "'in_channels' must be positive"),
    "no outputs": ({"out_channels": 0}, "'out_channels' must be positive"),
    "kernel 0": ({"kernel_size": 0}, "'kernel_size' must be positive"),
    "kernel of another length": ({"kernel_size": (3,) * 4}, "'kernel_size' must be an integer"),
    "stride 0": ({"stride": 0}, "'stride' must be positive"),
    "dilation 0": ({"dilation": 0}, "'dilation' must be positive"),
    "padding negative": ({"padding": -1}, "'padding' must be zero or positive"),
    "padding same": ({"padding": "same"}, "'padding' must be an integer"),
    "padding_mode reflect": ({"padding_mode": "reflect"}, "'padding_mode' must be 'zeros'"),
    "padding_mode unknown": ({"padding_mode": "none"}, "'padding_mode' must be 'zeros'"),
}


@ranks
@pytest.mark.parametrize("name", NEVER)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_refused_at_construction_if_torch_could_never_run_it(rank: int, name: str) -> None:
    change, message = NEVER[name]
    keywords = {"in_channels": 4, "out_channels": 6, "kernel_size": 3, **change}
    with pytest.raises(Exception):  # noqa: B017, PT011  # any, here or at the call
        TORCH[rank](**keywords).double()(
            torch.ones(2, keywords["in_channels"], *(9,) * rank, dtype=torch.float64)
        )
    with pytest.raises(ValueError, match=rf"^\[ConvTranspose{rank}d\] .*{message}"):
        OURS[rank](**keywords)


def test_kernel_of_one_size_for_several_axes_is_refused() -> None:
    with pytest.raises(RuntimeError):
        torch.nn.ConvTranspose2d(4, 6, (3,))(torch.ones(2, 4, 5, 5))
    with pytest.raises(ValueError, match=r"^\[ConvTranspose2d\] 'kernel_size' must be an integer"):
        ConvTranspose2d(4, 6, (3,))
