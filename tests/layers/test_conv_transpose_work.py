"""What a transposed convolution costs, counted: multiplications and memory, never time."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import pytest

from mlxport.layers import conv_transpose_depthwise, conv_transpose_phases
from mlxport.layers.conv_transpose import conv_transpose

SETTINGS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "3d-k2-s2": ((2, 2, 2), {"stride": 2}),
    "3d-k3-s2-p1-op1": ((3, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    "3d-k4-s2-p1": ((4, 4, 4), {"stride": 2, "padding": 1}),
    "3d-anisotropic": ((1, 2, 2), {"stride": (1, 2, 2)}),
    "3d-k3-s2-groups": ((3, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
    "2d-k4-s2-p1": ((4, 4), {"stride": 2, "padding": 1}),
    "1d-k16-s8-p4": ((16,), {"stride": 8, "padding": 4}),
}


@pytest.mark.parametrize(("kernel", "arguments"), SETTINGS.values(), ids=SETTINGS)
def test_no_multiplication_is_wasted(
    kernel: tuple[int, ...], arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = 0
    multiply = conv_transpose_phases._multiply

    def counted(x: mx.array, weight: mx.array) -> mx.array:
        nonlocal done
        done += x.size * weight.shape[1]
        return multiply(x, weight)

    monkeypatch.setattr(conv_transpose_phases, "_multiply", counted)
    inputs, outputs, groups = 8, 6, arguments.get("groups", 1)
    x = mx.zeros((2, *[8] * len(kernel), inputs))
    conv_transpose(x, mx.zeros((outputs, *kernel, inputs // groups)), **arguments)
    useful = x.size // inputs * math.prod(kernel) * outputs * (inputs // groups)
    assert done == useful


def test_depthwise_multiplies_each_tap_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = 0
    add = conv_transpose_depthwise._sum

    def counted(terms: list[tuple[mx.array, mx.array]]) -> mx.array:
        nonlocal pairs
        pairs += len(terms)
        return add(terms)

    monkeypatch.setattr(conv_transpose_depthwise, "_sum", counted)
    x, weight = mx.zeros((1, 4, 4, 4, 8)), mx.zeros((8, 3, 3, 3, 1))
    conv_transpose(x, weight, stride=2, padding=1, output_padding=1, groups=8)
    assert pairs == 27


def peak(x: mx.array, weight: mx.array, **arguments: Any) -> tuple[int, int]:
    """Bytes of the output, and the most allocated at a time besides the operands."""
    mx.eval(x, weight)
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    y = conv_transpose(x, weight, **arguments)
    mx.eval(y)
    return y.nbytes, mx.get_peak_memory() - before


LARGE = {
    "k3-s2": (3, {"stride": 2, "padding": 1, "output_padding": 1}),
    "k4-s2": (4, {"stride": 2, "padding": 1}),
    "k2-s2": (2, {"stride": 2}),
}


@pytest.mark.parametrize(("kernel", "arguments"), LARGE.values(), ids=LARGE)
def test_memory_holds_the_output_twice_and_slabs(kernel: int, arguments: dict[str, Any]) -> None:
    size, outputs = 80, 8
    x, weight = mx.zeros((1, size, size, size, 16)), mx.zeros((outputs, *[kernel] * 3, 16))
    output, most = peak(x, weight, **arguments)
    assert most <= 2 * output + 6 * conv_transpose_phases.SLAB_BYTES
    every_tap = (kernel * size) ** 3 * outputs * x.itemsize
    assert most <= output + every_tap + 4 * weight.nbytes
