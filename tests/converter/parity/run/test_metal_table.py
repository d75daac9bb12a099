"""The table of what Metal refuses, on primitives as MLX describes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import pytest

from mlxport.converter.parity.run.metal_calls import watching
from mlxport.converter.parity.run.metal_table import Effect, PrimitiveCall, rows_of
from mlxport.layers.device.scatter_stream import scatter_stream

DTYPES = [
    *(mx.bool_, mx.int8, mx.int16, mx.int32, mx.int64, mx.uint8, mx.uint16, mx.uint32, mx.uint64),
    *(mx.float16, mx.bfloat16, mx.float32, mx.complex64),
]


def effects(function: Callable[[], Any]) -> set[str]:
    """What the table says of the calls of a function."""
    found: set[str] = set()

    def observe(call: PrimitiveCall, frame: Any) -> None:
        found.update(row.effect.value for row in rows_of(call))

    with watching(observe, lambda name: None):
        function()
    return found


PLACE = mx.array([0, 2])


def put(x: mx.array) -> None:
    x[PLACE] = 1


SCATTERS: dict[str, Callable[[mx.array], Any]] = {
    "set": put,
    "add": lambda x: x.at[PLACE].add(x[:2]),
    "maximum": lambda x: x.at[PLACE].maximum(x[:2]),
    "along an axis": lambda x: mx.put_along_axis(x, PLACE, x[:2], 0),
    "ones of the identity": lambda x: mx.eye(3, dtype=x.dtype),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SCATTERS)
def test_scatters_of_wide_elements_are_refused_unless_complex_sums(
    name: str, dtype: mx.Dtype
) -> None:
    wide = dtype in (mx.int64, mx.uint64, mx.complex64)
    refused = wide and not (dtype == mx.complex64 and name == "add")
    x = mx.zeros(3, dtype)
    assert effects(lambda: SCATTERS[name](x)) == ({"refused"} if refused else set())

    def on_its_stream() -> None:
        with scatter_stream(dtype, sums=name == "add"):
            SCATTERS[name](x)

    assert effects(on_its_stream) == set()


def zeros(dtype: mx.Dtype, *shape: int) -> mx.array:
    return mx.zeros(shape or (4,), dtype)


REFUSED: dict[str, Callable[[], Any]] = {
    "float64": lambda: mx.zeros(3, mx.float64),
    "arccosh": lambda: mx.arccosh(zeros(mx.complex64)),
    "arcsinh": lambda: mx.arcsinh(zeros(mx.complex64)),
    "arctanh": lambda: mx.arctanh(zeros(mx.complex64)),
    "argsort of bools": lambda: mx.argsort(zeros(mx.bool_)),
    "partition of bools": lambda: mx.partition(zeros(mx.bool_), 2),
    "argmax of complex values": lambda: mx.argmax(zeros(mx.complex64)),
    "inverse": lambda: mx.linalg.inv(zeros(mx.float32, 3, 3)),
    "svd": lambda: mx.linalg.svd(zeros(mx.float32, 3, 3)),
    "a long transform": lambda: mx.fft.fft(zeros(mx.complex64, 1 << 25)),
}


@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in REFUSED.items()])
def test_what_metal_has_no_kernel_for(call: Callable[[], Any]) -> None:
    streams = {mx.cpu: set[str](), None: {"refused"}}
    for stream, expected in streams.items():

        def run(stream: Any = stream) -> None:
            if stream is None:
                call()
                return
            with mx.stream(stream):
                call()

        assert effects(run) == expected, stream


@pytest.mark.metal
@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in REFUSED.items()])
def test_metal_itself_refuses_it(call: Callable[[], Any]) -> None:
    """Where this fails MLX has learned it, and the table is to be read anew."""
    with pytest.raises((ValueError, RuntimeError)), mx.stream(mx.gpu):
        mx.eval(call())


TAKEN: dict[str, Callable[[], Any]] = {
    "arccos of complex values": lambda: mx.arccos(zeros(mx.complex64)),
    "argsort of int64": lambda: mx.argsort(zeros(mx.int64)),
    "gather of int64": lambda: mx.take(zeros(mx.int64), PLACE),
    "sum of int64": lambda: mx.cumsum(zeros(mx.int64)),
    "where of int64": lambda: mx.where(zeros(mx.bool_), zeros(mx.int64), 1),
    "a slice of int64": lambda: zeros(mx.int64).__setitem__(slice(2), 1),
    "a transform": lambda: mx.fft.fft(zeros(mx.complex64, 1 << 24)),
    "attention": lambda: mx.fast.scaled_dot_product_attention(
        *[zeros(mx.float16, 1, 2, 3, 4)] * 3, scale=1.0
    ),
}


@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, call in TAKEN.items()])
def test_what_metal_takes(call: Callable[[], Any]) -> None:
    assert effects(call) == set()


def convolution(x: tuple[int, ...], weight: tuple[int, ...], **keywords: Any) -> set[str]:
    return effects(lambda: mx.conv_general(mx.zeros(x), mx.zeros(weight), **keywords))


WINOGRAD: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], bool]] = {
    "2-D": ((1, 64, 64, 128), (128, 3, 3, 128), {"padding": 1}, True),
    "2-D, small": ((1, 63, 64, 128), (128, 3, 3, 128), {}, False),
    "2-D, few channels": ((1, 64, 64, 128), (96, 3, 3, 128), {}, False),
    "2-D, odd channels": ((1, 64, 64, 144), (128, 3, 3, 144), {}, False),
    "2-D, strides": ((1, 64, 64, 128), (128, 3, 3, 128), {"stride": 2}, False),
    "2-D, dilation": ((1, 64, 64, 128), (128, 3, 3, 128), {"kernel_dilation": 2}, False),
    "3-D, flat kernel": ((1, 2, 64, 64, 128), (128, 1, 3, 3, 128), {"padding": (0, 1, 1)}, True),
    "3-D, padded depth": ((1, 2, 64, 64, 128), (128, 3, 3, 3, 128), {"padding": 1}, False),
    "3-D, two samples": ((2, 2, 64, 64, 128), (128, 1, 3, 3, 128), {}, False),
}


@pytest.mark.parametrize("case", WINOGRAD)
def test_convolutions_by_winograds_algorithm(case: str) -> None:
    x, weight, keywords, taken = WINOGRAD[case]
    assert (Effect.ROUNDED.value in convolution(x, weight, **keywords)) == taken


UNFOLDED: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], bool]] = {
    "1-D": ((1, 64, 16), (16, 3, 16), {}, False),
    "1-D, transposed": ((1, 64, 16), (16, 3, 16), {"input_dilation": 2, "flip": True}, True),
    "1-D, odd channels": ((1, 64, 17), (16, 3, 17), {}, True),
    "2-D, transposed": ((1, 32, 32, 16), (16, 3, 3, 16), {"input_dilation": 2}, False),
    "2-D, uneven groups": ((1, 32, 32, 34), (34, 3, 3, 17), {"groups": 2}, True),
    "3-D": ((1, 8, 8, 8, 5), (7, 3, 3, 3, 5), {}, False),
    "3-D, transposed": ((1, 8, 8, 8, 16), (16, 3, 3, 3, 16), {"input_dilation": 2}, True),
}


@pytest.mark.parametrize("case", UNFOLDED)
def test_convolutions_that_are_unfolded(case: str) -> None:
    x, weight, keywords, unfolded = UNFOLDED[case]
    assert (Effect.UNFOLDED.value in convolution(x, weight, **keywords)) == unfolded
