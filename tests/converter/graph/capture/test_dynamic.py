"""Dynamic sizes: every construct that reads a size runs at sizes the example did not have."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mlxport
from mlxport.converter.tasks.convert import Converted

Function = Callable[..., Any]
Shape = tuple[int, ...]
CASES: dict[str, tuple[Function, Shape, Shape, tuple[Shape, ...]]] = {}


def case(
    shape: tuple[int, ...], dynamic: tuple[int, ...], *others: tuple[int, ...]
) -> Callable[[Function], Function]:
    """Enter a function of one image, its example's shape, dynamic axes, other shapes to try."""

    def enter(function: Function) -> Function:
        CASES[function.__name__] = (function, shape, dynamic, others)
        return function

    return enter


IMAGE = (2, 4, 6, 8)
SIDES = (0, 2, 3)
OTHERS = ((3, 4, 10, 12), (1, 4, 4, 14))


@case(IMAGE, (0,), (5, 4, 6, 8), (1, 4, 6, 8))
def flattened(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1)


@case(IMAGE, SIDES, *OTHERS)
def tokens(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(2).transpose(1, 2)


@case(IMAGE, SIDES, *OTHERS)
def tokens_and_back(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    y = x.flatten(2).transpose(1, 2) * 2
    return y.transpose(1, 2).reshape(n, c, h, w)


@case(IMAGE, SIDES, *OTHERS)
def batch_and_sides_merged(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(n * h * w, c) + 1


@case(IMAGE, SIDES, *OTHERS)
def windows(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    y = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, c)
    y = y.softmax(1)
    y = y.view(n, h // 2, w // 2, 2, 2, c).permute(0, 5, 1, 3, 2, 4)
    return y.reshape(n, c, h, w)


@case(IMAGE, SIDES, *OTHERS)
def heads(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    q = x.flatten(2).transpose(1, 2).reshape(n, h * w, 2, c // 2).transpose(1, 2)
    return F.scaled_dot_product_attention(q, q, q).transpose(1, 2).reshape(n, h * w, c)


@case(IMAGE, SIDES, *OTHERS)
def causal(x: torch.Tensor) -> torch.Tensor:
    q = x.flatten(2).transpose(1, 2).unsqueeze(1)
    return F.scaled_dot_product_attention(q, q, q, is_causal=True)


@case(IMAGE, SIDES, *OTHERS)
def expanded(x: torch.Tensor) -> torch.Tensor:
    return x.mean((2, 3), keepdim=True).expand(-1, -1, x.shape[2], x.shape[3]) - x


@case(IMAGE, SIDES, *OTHERS)
def expanded_as(x: torch.Tensor) -> torch.Tensor:
    return x[:, :1].expand_as(x) * x


@case(IMAGE, SIDES, *OTHERS)
def repeated(x: torch.Tensor) -> torch.Tensor:
    return torch.ones(4, 1, 1).repeat(x.shape[0], 1, x.shape[2], 1) + x


@case(IMAGE, SIDES, *OTHERS)
def positions(x: torch.Tensor) -> torch.Tensor:
    rows = torch.arange(x.shape[2], dtype=x.dtype) / x.shape[2]
    columns = torch.arange(1, 2 * x.shape[3], 2) * (1 / x.shape[3])
    return x + rows[:, None] * columns


@case(IMAGE, SIDES, *OTHERS)
def filled(x: torch.Tensor) -> torch.Tensor:
    n, _, h, w = x.shape
    ones = torch.full((n, 1, h, w), 0.5)
    return torch.cat([x, ones, x.new_zeros(n, 2, h, w), torch.zeros_like(x)], 1)


@case(IMAGE, SIDES, *OTHERS)
def scaled_by_its_size(x: torch.Tensor) -> torch.Tensor:
    return x * x.shape[2] ** 0.5 / (x.shape[2] * x.shape[3]) + x.shape[0]


@case(IMAGE, SIDES, *OTHERS)
def half_precision_over_a_size(x: torch.Tensor) -> torch.Tensor:
    return (x.half() / (x.shape[2] * 1001)).float()


@case(IMAGE, SIDES, *OTHERS)
def to_the_size_of_another(x: torch.Tensor) -> torch.Tensor:
    small = F.max_pool2d(x, 2)
    return x + F.interpolate(small, size=x.shape[2:], mode="bilinear", align_corners=False)


@case(IMAGE, SIDES, *OTHERS)
def by_a_factor(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2.0)


@case(IMAGE, SIDES, *OTHERS)
def to_a_fraction(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, size=(x.shape[2] // 2, x.shape[3] * 2))


@case(IMAGE, SIDES, *OTHERS)
def sliced_by_size(x: torch.Tensor) -> torch.Tensor:
    bigger = F.pad(x, (1, 1, 1, 1))
    return bigger[:, :, : x.shape[2], 1 : x.shape[3]]


@case(IMAGE, SIDES, *OTHERS)
def halves(x: torch.Tensor) -> torch.Tensor:
    return x[:, :, : x.shape[2] // 2] - x[:, :, x.shape[2] // 2 :]


@case(IMAGE, SIDES, *OTHERS)
def without_the_ends(x: torch.Tensor) -> torch.Tensor:
    return x[:, :, 1:-1, ::2]


@case(IMAGE, SIDES, *OTHERS)
def chunks(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, 3)
    return first.mean() + second


@case(IMAGE, SIDES, *OTHERS)
def pieces(x: torch.Tensor) -> torch.Tensor:
    first, second = x.split([2, x.shape[2] - 2], 2)
    return torch.cat([second, first], 2)


@case(IMAGE, SIDES, (3, 4, 11, 9), (1, 4, 5, 7))
def padded_to_a_multiple(x: torch.Tensor) -> torch.Tensor:
    h, w = x.shape[2:]
    return F.pad(x, (0, -w % 4, 0, -h % 4))


@case(IMAGE, SIDES, *OTHERS)
def mirrored_borders(x: torch.Tensor) -> torch.Tensor:
    return F.pad(x, (x.shape[2] // 2, 1, 0, 2), mode="reflect")


@case(IMAGE, SIDES, *OTHERS)
def rolled(x: torch.Tensor) -> torch.Tensor:
    return x.roll((x.shape[2] // 2, 1), (2, 3))


@case(IMAGE, SIDES, *OTHERS)
def written_into(x: torch.Tensor) -> torch.Tensor:
    y = torch.zeros_like(x)
    y[:, 1:3, 1:] = x[:, :2, :-1]
    y[:, :, 2] = 1
    return y


@case(IMAGE, SIDES, *OTHERS)
def pooled_to_a_grid(x: torch.Tensor) -> torch.Tensor:
    return F.adaptive_avg_pool2d(x, (3, 1))


@case(IMAGE, SIDES, *OTHERS)
def normalised_over_sides(x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[2:]) + x.std((0, 2))[:, None]


@case(IMAGE, SIDES, *OTHERS)
def picked(x: torch.Tensor) -> torch.Tensor:
    return x[:, :, torch.arange(x.shape[2] - 1, -1, -1)].gather(3, x.argsort(3))


@case(IMAGE, SIDES, *OTHERS)
def largest_half(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1).topk(2 * x.shape[2])[0]


@case(IMAGE, SIDES, *OTHERS)
def one_or_the_other(x: torch.Tensor) -> torch.Tensor:
    return x * max(x.shape[2], x.shape[3]) + torch.sym_max(x.shape[0], 7)


@case(IMAGE, SIDES, *OTHERS)
def masked_with_a_size(x: torch.Tensor) -> torch.Tensor:
    triangle = torch.ones(x.shape[2], x.shape[3], dtype=torch.bool).tril()
    return torch.where(triangle, x.shape[3], x).masked_fill(x > 1, x.shape[2])


@case((2, 3, 4, 4, 6), (0, 2, 3, 4), (3, 3, 6, 4, 8), (1, 3, 4, 8, 4))
def volume_to_blocks(x: torch.Tensor) -> torch.Tensor:
    n, c, d, h, w = x.shape
    y = x.reshape(n, c, d // 2, 2, h // 2, 2, w // 2, 2)
    return y.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(n, c * 8, d // 2, h // 2, w // 2)


class Applied(nn.Module):
    """A function behind a convolution, so that what it gets is stored channels-last."""

    def __init__(self, function: Function, convolution: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.convolution = convolution

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.convolution(x))


def convert(model: nn.Module, *args: Any, **options: Any) -> Converted:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mlxport.convert(model, args, **options)


def sample(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(converted: Converted, *inputs: torch.Tensor, last: bool = False) -> np.ndarray:
    arrays = [x.movedim(1, -1) if last and x.ndim > 2 else x for x in inputs]
    y = np.array(converted.model(*(mx.array(x.contiguous().numpy()) for x in arrays)))
    return np.moveaxis(y, -1, 1) if last and y.ndim > 2 else y


def assert_close(got: np.ndarray, model: nn.Module, *inputs: torch.Tensor) -> None:
    own = model(*inputs).detach()
    want = model.double()(*(x.double() if x.is_floating_point() else x for x in inputs)).detach()
    model.float()
    assert got.shape == tuple(own.shape)
    noise = max(float((own.double() - want).norm() / want.norm()), 2.0**-24)
    assert float((torch.from_numpy(got).double() - want).norm() / want.norm()) <= 32 * noise


@pytest.mark.parametrize("before", ["plain", "convolved"])
@pytest.mark.parametrize("name", CASES)
def test_other_sizes_than_the_examples(name: str, before: str) -> None:
    function, shape, dynamic, others = CASES[name]
    rank, channels = len(shape) - 2, shape[1]
    kinds = {2: nn.Conv2d, 3: nn.Conv3d}
    first = kinds[rank](channels, channels, 1) if before == "convolved" else nn.Identity()
    model, last = Applied(function, first).eval(), before == "convolved"
    converted = convert(model, sample(*shape), dynamic=dynamic, channels_last=last)
    assert converted.report is not None
    assert converted.report.passed, converted.report.verdict
    assert sum(not other.case for other in converted.report.others) == 1
    for other in others:
        x = sample(*other, seed=1)
        assert_close(run(converted, x, last=last), model, x)
