"""`conv_transpose`: what torch refuses is refused, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import mlx.core as mx
import pytest
import torch
import torch.nn.functional as F

from mlxport.layers.conv.transpose import conv_transpose

TORCH = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class Refusal(NamedTuple):
    """What is changed in operands that go together: 4 channels to 6 in 2 groups, stride 2."""

    message: str
    keywords: Mapping[str, Any] = MappingProxyType({})
    x: Callable[[int], tuple[int, ...]] = lambda rank: (2, 4) + (4,) * rank
    weight: Callable[[int], tuple[int, ...]] = lambda rank: (4, 3) + (3,) * rank
    bias: tuple[int, ...] = (6,)
    dtypes: tuple[torch.dtype, ...] = (torch.float64,) * 3


HALF, FLOAT, DOUBLE = torch.float16, torch.float32, torch.float64
REFUSALS = {
    "output_padding at its limit": Refusal(
        "'output_padding' must be smaller", {"output_padding": 2}
    ),
    "output_padding negative": Refusal("'output_padding' must be zero", {"output_padding": -1}),
    "padding negative": Refusal("'padding' must be zero or positive", {"padding": -1}),
    "padding a word": Refusal("'padding' must be an integer", {"padding": "same"}),
    "padding of another length": Refusal("'padding' must be an int", {"padding": (1, 1, 1, 1)}),
    "stride 0": Refusal("'stride' must be positive", {"stride": 0}),
    "stride negative": Refusal("'stride' must be positive", {"stride": -1}),
    "stride of no length": Refusal("'stride' must be an integer", {"stride": ()}),
    "stride a fraction": Refusal("'stride' must be an integer", {"stride": 1.0}),
    "stride a truth value": Refusal("'stride' must be an integer", {"stride": True}),
    "dilation 0": Refusal("'dilation' must be positive", {"dilation": 0}),
    "dilation negative": Refusal("'dilation' must be positive", {"dilation": -2}),
    "groups 0": Refusal("'groups' must be positive", {"groups": 0}),
    "groups negative": Refusal("'groups' must be positive", {"groups": -2}),
    "groups do not divide": Refusal("must be divisible by groups=5", {"groups": 5}),
    "output of size 0": Refusal("output size must be positive", {"stride": 1, "padding": 3}),
    "output below 0": Refusal("output size must be positive", {"padding": 6}),
    "other channels": Refusal("input must have 4 channels", x=lambda rank: (2, 5) + (4,) * rank),
    "empty spatial axis": Refusal("no empty spatial axis", x=lambda rank: (2, 4) + (0,) * rank),
    "one dimension more": Refusal("input must have", x=lambda rank: (1, 2, 4) + (4,) * rank),
    "two dimensions less": Refusal("input must have", x=lambda rank: (4,) * rank),
    "no input channels": Refusal(
        "weight must not be empty",
        x=lambda rank: (2, 0) + (4,) * rank,
        weight=lambda rank: (0, 3) + (3,) * rank,
    ),
    "no output channels": Refusal(
        "weight must not be empty", weight=lambda rank: (4, 0) + (3,) * rank, bias=(0,)
    ),
    "empty kernel": Refusal("weight must not be empty", weight=lambda rank: (4, 3) + (0,) * rank),
    "bias of another length": Refusal("bias must have shape", bias=(5,)),
    "bias of one": Refusal("bias must have shape", bias=(1,)),
    "bias of two dimensions": Refusal("bias must have shape", bias=(1, 6)),
    "int32": Refusal("floating dtype", dtypes=(torch.int32,) * 3),
    "uint8": Refusal("floating dtype", dtypes=(torch.uint8,) * 3),
    "bool": Refusal("floating dtype", dtypes=(torch.bool,) * 3),
    "half input, float weight": Refusal(
        "weight must have the input's", dtypes=(HALF, FLOAT, FLOAT)
    ),
    "float input, half weight": Refusal("weight must have the input's", dtypes=(FLOAT, HALF, HALF)),
    "double input, float weight": Refusal("weight must have", dtypes=(DOUBLE, FLOAT, FLOAT)),
}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("name", REFUSALS)
def test_refused_as_torch_refuses(name: str, rank: int) -> None:
    refusal = REFUSALS[name]
    keywords = {"stride": 2, "groups": 2, **refusal.keywords}
    shapes = [refusal.x(rank), refusal.weight(rank), refusal.bias]
    tensors = [
        torch.ones(shape, dtype=dtype) for shape, dtype in zip(shapes, refusal.dtypes, strict=True)
    ]
    # In float64: oneDNN, which torch takes for other dtypes where it can, lets some pass.
    with pytest.raises((RuntimeError, TypeError, ValueError)):
        TORCH[rank](*tensors, **keywords)
    x, w, b = tensors
    last = x.movedim(1, -1) if x.ndim > 1 else x
    weight = torch.ones((w.shape[1] * 2, *w.shape[2:], w.shape[0] // 2), dtype=w.dtype)
    arrays = (
        mx.array(t.contiguous(), None if t.dtype != DOUBLE else mx.float64)
        for t in (last, weight, b)
    )
    with pytest.raises(ValueError, match=r"^\[conv_transpose\] .*" + refusal.message):
        conv_transpose(*arrays, **keywords)


@pytest.mark.parametrize("ndim", [0, 1, 2, 6])
def test_weight_of_no_convolution(ndim: int) -> None:
    with pytest.raises(ValueError, match=r"\[conv_transpose\] weight must have 3, 4 or 5 dim"):
        conv_transpose(mx.ones((2, 4, 4)), mx.ones((4,) * ndim))


@pytest.mark.parametrize(
    ("dtypes", "message"),
    [
        ((mx.int64, mx.int64, mx.int64), "floating dtype"),
        ((mx.complex64, mx.complex64, mx.complex64), "floating dtype"),
        ((mx.float16, mx.float16, mx.float32), "bias must have the input's dtype"),
        ((mx.float32, mx.float32, mx.int32), "bias must have the input's dtype"),
    ],
    ids=["int64", "complex64", "half with float bias", "float with integer bias"],
)
def test_refused_although_some_kernel_of_torch_accepts(
    dtypes: tuple[mx.Dtype, ...], message: str
) -> None:
    shapes = ((2, 5, 4), (6, 3, 4), (6,))
    arrays = (mx.ones(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True))
    with pytest.raises(ValueError, match=message):
        conv_transpose(*arrays)


def test_all_faults_of_a_kind_at_once() -> None:
    x, w = mx.ones((2, 5, 5, 3), mx.int32), mx.ones((6, 3, 3, 4))
    with pytest.raises(ValueError, match=r"'stride' .*\(0, 1\); 'dilation' .*; 'padding' .*"):
        conv_transpose(x, w, None, (0, 1), -1, dilation=-1)
    with pytest.raises(ValueError, match=r"floating dtype .*; weight .*dtype.*; .*4 channels.*"):
        conv_transpose(x, w)
