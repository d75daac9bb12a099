"""`conv_transpose`: the configurations torch accepts, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mlxport.layers.conv import transpose_phases as conv_transpose_phases
from mlxport.layers.conv.transpose import conv_transpose


class Case(NamedTuple):
    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    keywords: dict[str, Any]
    channels: tuple[int, int] = (6, 4)


def case(
    sizes: tuple[int, ...], kernel: int | tuple[int, ...], channels: Any = (6, 4), **keywords: Any
) -> Case:
    kernel = kernel if isinstance(kernel, tuple) else (kernel,) * len(sizes)
    return Case(sizes, kernel, keywords, channels)


CASES = {
    # What networks use, at every rank.
    "1-D k4 s2 p1": case((7,), 4, stride=2, padding=1),
    "2-D k4 s2 p1": case((5, 4), 4, stride=2, padding=1),
    "3-D k4 s2 p1": case((4, 3, 4), 4, stride=2, padding=1),
    "1-D k3 s2 p1 op1": case((7,), 3, stride=2, padding=1, output_padding=1),
    "2-D k3 s2 p1 op1": case((5, 4), 3, stride=2, padding=1, output_padding=1),
    "3-D k3 s2 p1 op1": case((4, 3, 4), 3, stride=2, padding=1, output_padding=1),
    "1-D k2 s2": case((7,), 2, stride=2),
    "2-D k2 s2": case((5, 4), 2, stride=2),
    "3-D k2 s2": case((4, 3, 4), 2, stride=2),
    "1-D k3 s1": case((7,), 3, padding=1),
    "2-D k3 s1": case((5, 4), 3, padding=1),
    "3-D k3 s1": case((4, 3, 4), 3, padding=1),
    # Groups, in each of the three ways the result is computed.
    "1-D groups, taps overlap": case((5,), 3, stride=2, groups=2),
    "2-D groups, taps overlap": case((4, 3), 3, stride=2, groups=2),
    "3-D groups, taps overlap": case((3, 2, 3), 3, stride=2, groups=2),
    "3-D groups, taps apart": case((3, 2, 3), 2, stride=2, groups=2),
    "2-D groups, stride 1": case((4, 3), 3, groups=2),
    "3-D groups, stride 1": case((3, 2, 3), 3, groups=2),
    "3-D depthwise": case((3, 2, 3), 4, (6, 6), stride=2, padding=1, groups=6),
    "2-D depthwise, channels multiplied": case((4, 3), 3, (3, 6), stride=2, groups=3),
    # Axes that differ.
    "2-D asymmetric": case((3, 5), (2, 5), stride=(3, 2), padding=(0, 2), output_padding=(2, 1)),
    "3-D asymmetric": case(
        (2, 4, 3), (1, 3, 4), stride=(1, 2, 3), padding=(0, 1, 2), output_padding=(0, 1, 2)
    ),
    "3-D flat kernel k(1,3,3) s(1,2,2)": case((3, 4, 3), (1, 3, 3), stride=(1, 2, 2)),
    "3-D apart and overlapping axes": case((3, 2, 3), (2, 3, 1), stride=(2, 1, 4)),
    "2-D asymmetric dilation": case((4, 3), 3, stride=(2, 3), dilation=(3, 2), padding=(1, 0)),
    # Kernels against strides.
    "2-D even kernel, odd stride": case((4, 5), (4, 2), stride=3, padding=1),
    "3-D kernel below stride": case((3, 2, 2), 2, stride=3),
    "2-D kernel below stride, cropped": case((4, 3), 2, stride=4, padding=1, output_padding=3),
    "2-D kernel 1, stride 3": case((4, 3), 1, stride=3, output_padding=2),
    "3-D kernel 1": case((3, 2, 2), 1),
    "1-D kernel above input": case((2,), 5, stride=2, padding=2),
    "3-D one input": case((1, 1, 1), 3, stride=2, padding=1, output_padding=1),
    "1-D output below stride": case((1,), 2, stride=4, padding=0, output_padding=1, dilation=2),
    # Dilation.
    "1-D dilated": case((5,), 3, stride=2, dilation=2, padding=2),
    "2-D dilated": case((5, 4), 3, stride=2, dilation=3, padding=2, output_padding=1),
    "3-D dilated": case((3, 2, 2), 3, stride=2, dilation=3, padding=1),
    "2-D dilated, stride 1": case((4, 3), 3, dilation=2, padding=1),
    "2-D dilation shares a factor": case((4, 3), 3, stride=4, dilation=2),
    "2-D dilated kernel 1": case((4, 3), 1, stride=2, dilation=5, output_padding=4),
    # Padding beyond the kernel's reach; MLX gives another shape.
    "1-D padding beyond reach": case((6,), 3, stride=2, padding=4),
    "3-D padding beyond reach, kernel 1": case((4, 4, 4), 1, stride=2, padding=1),
    "3-D padding beyond reach, dilated": case((4, 5, 4), 2, stride=3, padding=4, dilation=2),
    "2-D padding beyond reach, stride 1": case((8, 7), 2, padding=3),
    "2-D padding beyond reach, stride 2": case((5, 4), 3, stride=2, padding=3),
    "3-D padding beyond reach, groups": case((4, 4, 4), 2, stride=2, padding=2, groups=2),
    # Output padding above padding; MLX's gradient is wrong.
    "1-D output_padding above padding": case((3,), 2, stride=2, output_padding=1),
    "3-D output_padding above padding": case((2, 3, 2), 3, stride=3, padding=1, output_padding=2),
    "2-D output_padding, groups": case((3, 2), 3, stride=2, output_padding=1, groups=2),
    "2-D output_padding up to dilation": case((3, 2), 2, dilation=3, output_padding=2),
    "2-D output_padding up to stride": case((3, 2), 5, stride=4, output_padding=3),
    "1-D nothing but output padding": case(
        (1,), 1, stride=2, dilation=5, padding=2, output_padding=4
    ),
    # How a size may be written.
    "3-D lists": case((2, 3, 2), 3, stride=[2, 1, 2], padding=[1, 1, 0], dilation=[1, 2, 1]),
    "3-D lists of one": case((2, 3, 2), 3, stride=[2], padding=[1], output_padding=[1]),
}
PATHS = ("3-D k3 s2 p1 op1", "3-D k2 s2", "3-D k3 s1", "3-D groups, taps overlap")
cases = pytest.mark.parametrize("name", CASES)
paths = pytest.mark.parametrize("name", PATHS)


def operands(
    name: str, dtype: torch.dtype = torch.float32, batch: tuple[int, ...] = (2,)
) -> list[torch.Tensor]:
    """Input, weight and bias in torch's layout."""
    sizes, kernel, keywords, (inputs, outputs) = CASES[name]
    weight = (inputs, outputs // keywords.get("groups", 1), *kernel)
    return [
        torch.randn(shape).to(dtype) for shape in ((*batch, inputs, *sizes), weight, (outputs,))
    ]


def mlx_shapes(name: str) -> tuple[tuple[int, ...], ...]:
    sizes, kernel, keywords, (inputs, outputs) = CASES[name]
    weight = (outputs, *kernel, inputs // keywords.get("groups", 1))
    return (2, *sizes, inputs), weight, (outputs,)


@cases
def test_value_and_gradients(name: str, assert_conv_transpose_parity: Callable[..., None]) -> None:
    assert_conv_transpose_parity(*operands(name), **CASES[name].keywords)


@cases
def test_value_and_gradients_in_float64(
    name: str, assert_conv_transpose_parity: Callable[..., None]
) -> None:
    # Torch's noise is nought here, being the reference; the longest sums have a thousand terms.
    with mx.stream(mx.cpu):  # no GPU of MLX's has float64
        assert_conv_transpose_parity(
            *operands(name, torch.float64), multiple=256, **CASES[name].keywords
        )


@cases
def test_value_and_gradients_in_slabs(
    name: str,
    assert_conv_transpose_parity: Callable[..., None],
    compute_as: Callable[..., None],
) -> None:
    compute_as("CPU", slab_bytes=1)
    assert_conv_transpose_parity(*operands(name), **CASES[name].keywords)


@cases
def test_value_and_gradients_as_on_a_gpu(
    name: str,
    assert_conv_transpose_parity: Callable[..., None],
    compute_as: Callable[..., None],
) -> None:
    compute_as("GPU")
    sizes, kernel, keywords, _ = CASES[name]
    assert_conv_transpose_parity(*operands(name), **keywords)
    # MLX's convolution needs channels by 16 where the stride is above 1
    groups = keywords.get("groups", 1)
    shapes = ((2, 16 * groups, *sizes), (16 * groups, 16, *kernel), (16 * groups,))
    assert_conv_transpose_parity(*(torch.randn(shape) for shape in shapes), **keywords)


def convolutions(name: str, dtype: mx.Dtype = mx.float32, channels: int = 16) -> int:
    """How many convolutions MLX is asked for."""
    sizes, kernel, keywords, _ = CASES[name]
    groups = keywords.get("groups", 1)
    shapes = ((1, *sizes, channels), (16, *kernel, channels // groups))
    operands = [mx.zeros(shape, dtype) for shape in shapes]
    found: list[str | None] = []
    with mx.stream(mx.cpu):
        mx.export_function(
            lambda step: found.append(step.get("name")),
            lambda x, w: conv_transpose(x, w, **keywords),
            *operands,
        )
    return found.count("Convolution")


@pytest.mark.parametrize(
    ("name", "count"),
    {
        "2-D k4 s2 p1": 1,
        "2-D k3 s2 p1 op1": 1,
        "2-D output_padding up to stride": 1,
        "2-D dilated": 1,
        "3-D k3 s1": 1,
        "2-D groups, stride 1": 1,
        "2-D padding beyond reach, stride 2": 0,
        "2-D groups, taps overlap": 0,
        "2-D k2 s2": 0,
        "3-D k3 s2 p1 op1": 0,
        "3-D groups, stride 1": 0,
        "1-D k4 s2 p1": 0,
    }.items(),
)
def test_a_gpu_convolves_where_mlx_is_right_and_skips_zeros(
    name: str, count: int, compute_as: Callable[..., None]
) -> None:
    compute_as("GPU")
    assert convolutions(name) == count
    assert convolutions(name, mx.float64) == 0
    compute_as("CPU")
    assert convolutions(name) == 0


def test_a_gpu_does_not_convolve_channels_whose_zeros_mlx_would_unfold(
    compute_as: Callable[..., None],
) -> None:
    compute_as("GPU")
    assert convolutions("2-D k4 s2 p1", channels=24) == 0


@cases
def test_without_batch(name: str, assert_conv_transpose_parity: Callable[..., None]) -> None:
    assert_conv_transpose_parity(*operands(name, batch=()), **CASES[name].keywords)


@cases
def test_empty_batch(name: str, assert_conv_transpose_parity: Callable[..., None]) -> None:
    assert_conv_transpose_parity(*operands(name, batch=(0,)), **CASES[name].keywords)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@cases
def test_half_precision_is_as_accurate_as_torchs(
    name: str, dtype: torch.dtype, assert_conv_transpose_parity: Callable[..., None]
) -> None:
    assert_conv_transpose_parity(*operands(name, dtype), multiple=2, **CASES[name].keywords)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@cases
def test_half_precision_as_on_a_gpu(
    name: str,
    dtype: torch.dtype,
    assert_conv_transpose_parity: Callable[..., None],
    compute_as: Callable[..., None],
) -> None:
    """Products in half precision, of which no more than two are added."""
    compute_as("GPU")
    assert_conv_transpose_parity(*operands(name, dtype), multiple=4, **CASES[name].keywords)


@pytest.mark.parametrize("device", ["CPU", "GPU"])
@paths
def test_half_precision_of_long_sums(
    name: str,
    device: str,
    assert_conv_transpose_parity: Callable[..., None],
    compute_as: Callable[..., None],
) -> None:
    """512 channels: a sum kept in half precision would show."""
    compute_as(device)
    sizes, kernel, keywords, _ = CASES[name]
    groups = keywords.get("groups", 1)
    shapes = ((1, 512, *sizes), (512, 8 // groups, *kernel), (8,))
    x, w, b = (torch.randn(shape).half() for shape in shapes)
    assert_conv_transpose_parity(x, w, b, multiple=2, **keywords)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["1-D k4 s2 p1", "2-D dilated", "3-D groups, taps overlap"])
@pytest.mark.usefixtures("default_device")
def test_half_precision_is_rounded_once_where_taps_are_summed(
    name: str, dtype: mx.Dtype, compute_as: Callable[..., None]
) -> None:
    compute_as("CPU")  # a GPU multiplies in half precision
    arrays = [mx.random.normal(shape).astype(dtype) for shape in mlx_shapes(name)]
    exact = conv_transpose(*(a.astype(mx.float32) for a in arrays), **CASES[name].keywords)
    assert mx.array_equal(conv_transpose(*arrays, **CASES[name].keywords), exact.astype(dtype))


@pytest.mark.usefixtures("default_device")
def test_a_large_volume_is_cut_into_slabs(
    monkeypatch: pytest.MonkeyPatch, compute_as: Callable[..., None]
) -> None:
    compute_as("CPU")
    x, w = mx.random.normal((1, 40, 32, 32, 16)), mx.random.normal((16, 3, 3, 3, 16))
    sizes = []

    def recorded(
        rows: mx.array, *rest: Any, whole: Any = conv_transpose_phases._interleave
    ) -> mx.array:
        sizes.append(rows.shape[2])
        return whole(rows, *rest)

    monkeypatch.setattr(conv_transpose_phases, "_interleave", recorded)
    y = conv_transpose(x, w, None, 2, 1, 1)
    compute_as("CPU", slab_bytes=1 << 40)
    assert mx.allclose(y, conv_transpose(x, w, None, 2, 1, 1), rtol=1e-4, atol=1e-4)
    assert sizes == [11, 11, 11, 10, 40]


def test_sizes_of_numpy_integers() -> None:
    x, w, _ = (mx.random.normal(shape) for shape in mlx_shapes("3-D k3 s2 p1 op1"))
    two, one = np.int64(2), np.int64(1)
    y = conv_transpose(x, w, None, two, (one,) * 3, one)
    assert mx.array_equal(y, conv_transpose(x, w, None, 2, 1, 1))


def test_positional_order_is_torchs() -> None:
    x, w, b = operands("3-D asymmetric")
    arguments = ((1, 2, 3), (0, 1, 2), (0, 1, 2), 1, (1, 1, 1))
    want = F.conv_transpose3d(x, w, b, *arguments)
    arrays = (mx.array(t.contiguous()) for t in (x.movedim(1, -1), w.movedim(0, -1), b))
    assert conv_transpose(*arrays, *arguments).shape == tuple(want.movedim(1, -1).shape)


@paths
def test_compiled(name: str) -> None:
    arrays = [mx.random.normal(shape) for shape in mlx_shapes(name)]

    def function(*arrays: mx.array) -> mx.array:
        return conv_transpose(*arrays, **CASES[name].keywords)

    assert mx.allclose(mx.compile(function)(*arrays), function(*arrays), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [*PATHS, "3-D groups, taps apart", "3-D kernel 1"])
@pytest.mark.parametrize("other", ["longer", "batch and size swapped"])
def test_compiled_without_shapes_is_right_or_refuses(name: str, other: str) -> None:
    """MLX would reshape to the traced shape without a word."""
    x, w, b = (mx.random.normal(shape) for shape in mlx_shapes(name))
    mx.eval(w, b)

    def function(x: mx.array) -> mx.array:
        return conv_transpose(x, w, b, **CASES[name].keywords)

    compiled = mx.compile(function, shapeless=True)
    y = mx.concatenate([x, x], 1) if other == "longer" else x.swapaxes(0, 1)
    try:
        compiled(x)
        got = compiled(y)
    except ValueError as error:
        if "cannot infer output shapes" not in str(error):
            raise
    else:
        assert got.shape == function(y).shape
        assert mx.allclose(got, function(y), rtol=1e-5, atol=1e-5)
