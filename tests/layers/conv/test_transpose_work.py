"""What a transposed convolution costs, counted in its graph: multiplications and memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import mlx.core as mx
import pytest

from mlxport.layers.conv.transpose import conv_transpose
from mlxport.layers.device import policy

SETTINGS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "3d-k2-s2": ((2, 2, 2), {"stride": 2}),
    "3d-k3-s2-p1-op1": ((3, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    "3d-k4-s2-p1": ((4, 4, 4), {"stride": 2, "padding": 1}),
    "3d-anisotropic": ((1, 2, 2), {"stride": (1, 2, 2)}),
    "3d-k5-s1-p2": ((5, 5, 5), {"padding": 2}),
    "3d-k3-s2-groups": ((3, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
    "3d-k3-s2-depthwise": (
        (3, 3, 3),
        {"stride": 2, "padding": 1, "output_padding": 1, "groups": 16},
    ),
    "2d-k4-s2-p1": ((4, 4), {"stride": 2, "padding": 1}),
    "1d-k16-s8-p4": ((16,), {"stride": 8, "padding": 4}),
}
settings = pytest.mark.parametrize(("kernel", "arguments"), SETTINGS.values(), ids=SETTINGS)

VIEWS = {"ExpandDims", "Squeeze", "Unflatten", "Broadcast", "AsType"}
STRIDED = {"Transpose", "Slice", "Split"}


class Step(NamedTuple):
    """A primitive of a graph, with the shapes it takes and gives."""

    name: str
    inputs: list[tuple[str, tuple[int, ...]]]
    outputs: list[tuple[str, tuple[int, ...]]]


def steps(*operands: mx.array, **arguments: Any) -> Iterator[Step]:
    """What MLX would evaluate; nothing is."""
    found: list[Step] = []

    def seen(record: dict[str, Any]) -> None:
        if record["type"] == "primitive":
            named = ([(name, shape) for name, shape, _ in record[k]] for k in ("inputs", "outputs"))
            found.append(Step(record["name"], *named))

    mx.export_function(seen, lambda *given: conv_transpose(*given, **arguments), *operands)
    return iter(found)


def multiplications(*operands: mx.array, **arguments: Any) -> int:
    total = 0
    for step in steps(*operands, **arguments):
        shapes = [shape for _, shape in step.inputs]
        assert step.name not in ("Convolution", "Gather")
        if step.name in ("Matmul", "AddMM"):
            total += math.prod(shapes[0]) * shapes[1][-1]
        elif step.name == "Multiply":
            total += math.prod(step.outputs[0][1])
    return total


def written(*operands: mx.array, **arguments: Any) -> list[int]:
    """The elements of every array that is written: results, and copies that views come to."""
    strided: set[str] = set()
    found = []
    for step in steps(*operands, **arguments):
        views = any(name in strided for name, _ in step.inputs)
        if step.name in STRIDED or (step.name in VIEWS and views):
            strided |= {name for name, _ in step.outputs}
        elif step.name not in VIEWS and (step.name != "Flatten" or views):
            found += [math.prod(shape) for _, shape in step.outputs]
    return found


def dispatches(*operands: mx.array, **arguments: Any) -> int:
    """The kernels MLX launches: one for each array written, and one for each one concatenated."""
    count = len(written(*operands, **arguments))
    for step in steps(*operands, **arguments):
        if step.name == "Concatenate":
            count += len(step.inputs) - 1
    return count


def operands(kernel: tuple[int, ...], arguments: dict[str, Any]) -> tuple[mx.array, mx.array]:
    inputs, outputs, groups, size = 16, 16, arguments.get("groups", 1), 16
    x = mx.zeros((1, *[size] * len(kernel), inputs))
    return x, mx.zeros((outputs, *kernel, inputs // groups))


@settings
@pytest.mark.usefixtures("default_device")
def test_no_multiplication_is_wasted(
    kernel: tuple[int, ...], arguments: dict[str, Any], compute_as: Callable[..., None]
) -> None:
    compute_as("CPU")  # a GPU convolves where that is as little
    x, weight = operands(kernel, arguments)
    useful = x.size // x.shape[-1] * weight.size
    assert multiplications(x, weight, **arguments) == useful


@settings
@pytest.mark.usefixtures("default_device")
def test_nothing_is_written_oftener_than_it_has_to_be(
    kernel: tuple[int, ...], arguments: dict[str, Any], compute_as: Callable[..., None]
) -> None:
    """The table of `docs/decisions.md`, in elements; slices of the borders are the half."""
    compute_as("CPU")
    x, weight = operands(kernel, arguments)
    output = conv_transpose(x, weight, **arguments).size
    stride = arguments.get("stride", 1)
    strides = stride if isinstance(stride, tuple) else (stride,) * len(kernel)
    positions, channels = x.size // x.shape[-1], weight.shape[0]
    total = sum(written(x, weight, **arguments))
    if arguments.get("groups") == x.shape[-1]:
        every_tap = math.prod(kernel) * x.size  # multiplied, and added to the others
        assert total <= 1.5 * (x.size + 2 * weight.size + 2 * every_tap + 2 * output)
    elif all(k <= s for k, s in zip(kernel, strides, strict=True)):
        assert total <= weight.size + 2 * output
    else:
        # In 3-D the products of the first axis' taps are added one by one, their inputs in place.
        gathered = kernel[-2] * x.size if len(kernel) > 1 else 0
        added = -(-kernel[0] // strides[0]) if len(kernel) == 3 else 1
        products = math.prod(map(min, kernel[:-1], strides[:-1])) * kernel[-1]
        products *= positions * channels
        grouped = x.size + output if arguments.get("groups", 1) > 1 else 0
        bound = x.size + gathered + weight.size + (2 + added) * products + 2 * output + grouped
        assert total <= 1.5 * bound
        # What MLX's unfolding of the input with zeros between writes, products left out.
        assert total < output // channels * math.prod(kernel) * x.shape[-1]


def peak(x: mx.array, weight: mx.array, **arguments: Any) -> tuple[int, int]:
    """Bytes of the output, and the most allocated at a time besides the operands."""
    mx.eval(x, weight)
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    y = conv_transpose(x, weight, **arguments)
    mx.eval(y)
    return y.nbytes, mx.get_peak_memory() - before


LARGE: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "3d-k3-s2": ((48,) * 3, (3,) * 3, {"stride": 2, "padding": 1, "output_padding": 1}),
    "3d-k4-s2": ((48,) * 3, (4,) * 3, {"stride": 2, "padding": 1}),
    "3d-k2-s2": ((48,) * 3, (2,) * 3, {"stride": 2}),
    "3d-k5-s1": ((48,) * 3, (5,) * 3, {"padding": 2}),
    "3d-k3-s2-groups": ((48,) * 3, (3,) * 3, {"stride": 2, "padding": 1, "groups": 2}),
    "3d-k3-s2-depthwise": ((48,) * 3, (3,) * 3, {"stride": 2, "padding": 1, "groups": 16}),
    "2d-k4-s2": ((320, 320), (4, 4), {"stride": 2, "padding": 1}),
    "1d-k16-s8": ((1 << 17,), (16,), {"stride": 8, "padding": 4}),
}


@pytest.mark.parametrize(("sizes", "kernel", "arguments"), LARGE.values(), ids=LARGE)
def test_memory_holds_the_output_twice_and_slabs(
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    arguments: dict[str, Any],
    compute_as: Callable[..., None],
) -> None:
    """Less than the output and all taps of all inputs would take."""
    compute_as("CPU", slab_bytes=1 << 20)
    groups = arguments.get("groups", 1)
    outputs = 16 if groups == 16 else 8
    x, weight = mx.zeros((1, *sizes, 16)), mx.zeros((outputs, *kernel, 16 // groups))
    output, most = peak(x, weight, **arguments)
    every_tap = math.prod(sizes) * math.prod(kernel) * outputs * x.itemsize
    assert most <= output + every_tap + 4 * weight.nbytes
    # A slab has one row of the input at the least, and MLX allocates for several ops ahead of the
    # one that runs; groups copy the input.
    row = x.nbytes // sizes[0] * math.prod(kernel[:-1])
    laid_out = x.nbytes if groups > 1 else 0
    assert most <= 2 * output + laid_out + 16 * max(row, 1 << 20)


@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_a_volume_needs_the_output_twice_and_a_few_slabs(kernel: int) -> None:
    x, weight = mx.zeros((1, 80, 80, 80, 16)), mx.zeros((8, *[kernel] * 3, 16))
    output, most = peak(x, weight, stride=2, padding=kernel // 3, output_padding=kernel % 2)
    assert most <= 2 * output + 6 * policy.device_policy().slab_bytes


@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
@pytest.mark.usefixtures("default_device")
def test_of_256_cubed_no_array_but_the_output_is_large(
    kernel: int, compute_as: Callable[..., None]
) -> None:
    compute_as("CPU")
    arguments = {"stride": 2 if kernel < 5 else 1}
    x, weight = mx.zeros((1, 256, 256, 256, 32)), mx.zeros((16, *[kernel] * 3, 32))
    output = conv_transpose(x, weight, **arguments).size
    *_, second, first = sorted(written(x, weight, **arguments))
    assert first == output
    if kernel == 2:  # one product, and the same laid out
        assert second == output
    else:  # a slab has one row of the input at the least, and all its taps
        taps = math.ceil(kernel / arguments["stride"]) ** 2
        assert second <= 1.02 * 256 * 256 * 32 * taps
        assert second * x.itemsize < 1 << 28
    compute_as("GPU")
    *slabs, most = sorted(written(x, weight, **arguments))
    assert most == output
    assert kernel == 2 or all(slab * x.itemsize <= policy.GPU.slab_bytes for slab in slabs)


VOLUMES: dict[
    str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, int], dict[str, Any], int]
] = {
    "3d-k3-s2": ((64,) * 3, (3,) * 3, (32, 16), {"padding": 1, "output_padding": 1}, 200),
    "3d-k4-s2": ((32,) * 3, (4,) * 3, (64, 32), {"padding": 1}, 100),
    "3d-k2-s2": ((64,) * 3, (2,) * 3, (32, 16), {}, 3),
    "2d-k4-s2": ((256, 256), (4, 4), (64, 32), {"padding": 1}, 1),
    "2d-k4-s2-odd-channels": ((256, 256), (4, 4), (60, 30), {"padding": 1}, 30),
    "1d-k16-s8": ((1 << 16,), (16,), (128, 64), {"stride": 8, "padding": 4}, 20),
}


@pytest.mark.parametrize(
    ("sizes", "kernel", "channels", "arguments", "most"), VOLUMES.values(), ids=VOLUMES
)
def test_a_gpu_is_given_few_kernels(
    sizes: tuple[int, ...],
    kernel: tuple[int, ...],
    channels: tuple[int, int],
    arguments: dict[str, Any],
    most: int,
    compute_as: Callable[..., None],
) -> None:
    """Dispatches: what is not a view, and what lays one out anew."""
    x, weight = mx.zeros((1, *sizes, channels[0])), mx.zeros((channels[1], *kernel, channels[0]))
    arguments = {"stride": 2, **arguments}
    compute_as("GPU")
    found = dispatches(x, weight, **arguments)
    assert found <= most
    compute_as("CPU")
    assert dispatches(x, weight, **arguments) >= found
