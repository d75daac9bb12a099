"""Convolutions of volumes by matrix products: what they give, when they are taken, their memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlxport.layers.conv.functions import conv
from mlxport.layers.conv.products import convolve_by_products
from mlxport.layers.device import policy

LAST = (0, 2, 3, 4, 1)
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((6, 7, 8), (3, 3, 3), {}),
    "padded": ((6, 7, 8), (3, 3, 3), {"padding": 1}),
    "padded by axis": ((6, 7, 8), (3, 1, 5), {"padding": (1, 0, 2)}),
    "padded beyond the kernel": ((4, 4, 4), (2, 2, 2), {"padding": 3}),
    "dilated": ((8, 8, 8), (3, 3, 3), {"padding": 2, "dilation": (1, 2, 3)}),
    "even kernel, same": ((6, 5, 4), (2, 4, 4), {"padding": "same"}),
    "of planes": ((4, 9, 9), (1, 7, 7), {"padding": (0, 3, 3)}),
    "of depths": ((9, 4, 4), (7, 1, 1), {}),
    "of the last axis": ((4, 4, 9), (1, 1, 3), {}),
    "one output": ((3, 3, 3), (3, 3, 3), {}),
}
cases = pytest.mark.parametrize(("sizes", "kernel", "settings"), CASES.values(), ids=CASES)


def to_mlx(t: torch.Tensor) -> mx.array:
    return mx.array(t.detach().permute(LAST).contiguous())


def primitives(function: Callable[..., mx.array], *operands: mx.array) -> set[str]:
    found: set[str] = set()

    def seen(record: dict[str, Any]) -> None:
        if record["type"] == "primitive":
            found.add(record["name"])

    mx.export_function(seen, function, *operands)
    return found


@cases
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_values_and_gradients_are_those_of_torch(
    assert_parity: Callable[..., None],
    compute_as: Callable[..., None],
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    settings: dict[str, Any],
    batch: int,
) -> None:
    compute_as("CPU", unfolded_elements=0)
    x, weight, bias = torch.randn(batch, 12, *sizes), torch.randn(3, 12, *kernel), torch.randn(3)

    def torch_conv(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv3d(x, w, b, **settings)

    operands = (to_mlx(x), to_mlx(weight), mx.array(bias))
    assert "Convolution" not in primitives(lambda *t: conv(*t, **settings), *operands)
    assert_parity(conv(*operands, **settings), torch_conv, x, weight, bias, order=LAST)

    def loss(*given: torch.Tensor) -> torch.Tensor:
        return torch_conv(*given).square().sum()

    # The bias's is a long sum of MLX's, with MLX's own rounding error.
    found = mx.grad(lambda *t: mx.square(conv(*t, **settings)).sum(), argnums=(0, 1))(*operands)
    for index, gradient in enumerate(found):
        by_operand = torch.func.grad(loss, argnums=index)
        assert_parity(gradient, by_operand, x, weight, bias, order=LAST)


@given(data=st.data())
def test_any_volume_in_slabs_is_mlxs_convolution(data: st.DataObject) -> None:
    kernel = [data.draw(st.integers(1, 4), label="kernel") for _ in range(3)]
    steps = [data.draw(st.integers(1, 2), label="dilation") for _ in range(3)]
    low, high = ([data.draw(st.integers(0, 4), label="zeros") for _ in range(3)] for _ in range(2))
    reaches = [step * (k - 1) for step, k in zip(steps, kernel, strict=True)]
    sizes = [data.draw(st.integers(reach + 1, 9), label="size") for reach in reaches]
    batch, inputs, outputs = (data.draw(st.integers(1, 3)) for _ in range(3))
    x = mx.random.normal((batch, *sizes, inputs), key=mx.random.key(0))
    weight = mx.random.normal((outputs, *kernel, inputs), key=mx.random.key(1))
    # Whole numbers, so that any order of sums gives the same bits.
    x, weight = mx.round(4 * x), mx.round(4 * weight)
    expected = mx.conv_general(x, weight, 1, (low, high), steps)
    with pytest.MonkeyPatch.context() as patch:
        small = policy.CPU._replace(slab_bytes=data.draw(st.sampled_from([1, 4096, 1 << 24])))
        patch.setattr(policy, "CPU", small)
        found = convolve_by_products(x, weight, None, tuple(low), tuple(high), tuple(steps))
    assert mx.array_equal(found, expected)


def test_compiled_without_shapes_it_refuses(compute_as: Callable[..., None]) -> None:
    """What is cut to slabs of one size would be wrong for another."""
    compute_as("CPU", unfolded_elements=0)
    weight = mx.zeros((2, 3, 3, 3, 12))
    with pytest.raises(ValueError, match="cannot infer output shapes"):
        mx.eval(mx.compile(lambda x: conv(x, weight), shapeless=True)(mx.zeros((1, 6, 6, 6, 12))))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_rounded_once(
    assert_parity: Callable[..., None], compute_as: Callable[..., None], dtype: torch.dtype
) -> None:
    compute_as("CPU", unfolded_elements=0)
    x, weight = torch.randn(1, 12, 5, 6, 7).to(dtype), torch.randn(3, 12, 3, 3, 3).to(dtype)
    operands = (to_mlx(t.float()).astype(getattr(mx, str(dtype)[6:])) for t in (x, weight))
    found = conv(*operands, padding=1)
    assert_parity(
        found, lambda *t: torch.nn.functional.conv3d(*t, padding=1), x, weight, order=LAST
    )


CHOICES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], bool]] = {
    "large": ((1, 32, 32, 32, 16), (16, 3, 3, 3, 16), {"padding": 1}, True),
    "large, of planes": ((1, 8, 40, 40, 32), (32, 1, 7, 7, 32), {"padding": (0, 3, 3)}, True),
    "large batch": ((8, 16, 16, 16, 16), (16, 3, 3, 3, 16), {"padding": 1}, True),
    "small": ((1, 8, 8, 8, 16), (16, 3, 3, 3, 16), {"padding": 1}, False),
    "few channels to many": ((1, 64, 64, 64, 1), (32, 3, 3, 3, 1), {"padding": 1}, False),
    "one tap": ((1, 64, 64, 64, 16), (16, 1, 1, 1, 16), {}, False),
    "stride": ((1, 32, 32, 32, 16), (16, 3, 3, 3, 16), {"stride": (1, 2, 2)}, False),
    "groups": ((1, 32, 32, 32, 16), (16, 3, 3, 3, 8), {"groups": 2}, False),
    "2-D": ((1, 256, 256, 16), (16, 3, 3, 16), {"padding": 1}, False),
}


@pytest.mark.parametrize(("x", "weight", "settings", "chosen"), CHOICES.values(), ids=CHOICES)
def test_products_are_taken_where_mlx_unfolds_much(
    x: tuple[int, ...],
    weight: tuple[int, ...],
    settings: dict[str, Any],
    chosen: bool,
    compute_as: Callable[..., None],
) -> None:
    def primitives_of() -> set[str]:
        return primitives(lambda *t: conv(*t, **settings), mx.zeros(x), mx.zeros(weight))

    compute_as("CPU")
    found = primitives_of()
    assert ("AddMM" in found or "Matmul" in found) is chosen
    assert ("Convolution" in found) is not chosen
    compute_as("GPU")
    assert "Convolution" in primitives_of()


@pytest.mark.parametrize("sizes", [(64, 64, 64), (16, 128, 128)], ids=str)
def test_memory_holds_the_output_twice_and_slabs(
    sizes: tuple[int, ...], compute_as: Callable[..., None]
) -> None:
    """Far less than every tap of every position, which MLX's convolution writes."""
    compute_as("CPU", slab_bytes=1 << 22)
    x, weight = mx.zeros((1, *sizes, 16)), mx.zeros((16, 3, 3, 3, 16))
    mx.eval(x, weight)
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    y = conv(x, weight, padding=1)
    mx.eval(y)
    most = mx.get_peak_memory() - before
    row = x.nbytes // sizes[0] * 9  # one plane, every tap of the gathered axes
    assert most <= 2 * y.nbytes + 12 * max(row, 1 << 22)
    assert most < math.prod(sizes) * weight[0].size * x.itemsize / 2
