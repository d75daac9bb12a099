"""Transposed convolutions over the whole space of configurations, against torch in float64.

`MLXPORT_PROPERTY_EXAMPLES` sets how many configurations are tried.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxport.layers.conv.transpose import conv_transpose

EXAMPLES = int(os.environ.get("MLXPORT_PROPERTY_EXAMPLES", "2000"))
TORCH = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class Configuration(NamedTuple):
    batch: int
    sizes: tuple[int, ...]
    kernel: tuple[int, ...]
    in_per_group: int
    out_per_group: int
    groups: int
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    seed: int

    @property
    def keywords(self) -> dict[str, Any]:
        names = ("stride", "padding", "output_padding", "groups", "dilation")
        return {name: getattr(self, name) for name in names}

    def operands(self) -> list[torch.Tensor]:
        """Input, weight and bias in torch's layout."""
        random = torch.Generator().manual_seed(self.seed)
        inputs, outputs = self.groups * self.in_per_group, self.groups * self.out_per_group
        shapes = (
            (self.batch, inputs, *self.sizes),
            (inputs, self.out_per_group, *self.kernel),
            (outputs,),
        )
        return [torch.randn(shape, generator=random) for shape in shapes]


@st.composite
def configurations(draw: st.DrawFn, least_batch: int = 0) -> Configuration:
    """Only what torch accepts: what one choice allows bounds the next."""
    rank = draw(st.integers(1, 3))

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    sizes, kernel, stride, dilation = each(1, 5), each(1, 5), each(1, 4), each(1, 3)
    output_padding = tuple(
        draw(st.integers(0, max(pair) - 1)) for pair in zip(stride, dilation, strict=True)
    )
    # The whole output is one at least, so that it can be cropped to one.
    padding = tuple(
        draw(st.integers(0, min(5, ((n - 1) * s + d * (k - 1) + extra) // 2)))
        for n, k, s, d, extra in zip(sizes, kernel, stride, dilation, output_padding, strict=True)
    )
    return Configuration(
        draw(st.integers(least_batch, 2)),
        sizes,
        kernel,
        *(draw(st.integers(1, 3)) for _ in range(3)),
        stride,
        padding,
        output_padding,
        dilation,
        draw(st.integers(0, 2**32 - 1)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("device", ["CPU", "GPU"])
def test_every_valid_configuration_matches_torch(
    device: str,
    assert_conv_transpose_parity: Callable[..., None],
    compute_as: Callable[..., None],
) -> None:
    tried = 0

    @settings(max_examples=EXAMPLES, database=None)
    @given(configurations(), st.booleans())
    def check(c: Configuration, in_slabs: bool) -> None:
        nonlocal tried
        compute_as(device, **({"slab_bytes": 1} if in_slabs else {}))
        assert_conv_transpose_parity(*c.operands(), **c.keywords)
        tried += 1

    check()
    assert tried >= EXAMPLES


def too_much_output_padding(c: Configuration, axis: int) -> Configuration:
    return _replace(c, "output_padding", axis, max(c.stride[axis], c.dilation[axis]))


def too_much_padding(c: Configuration, axis: int) -> Configuration:
    full = (c.sizes[axis] - 1) * c.stride[axis] + c.dilation[axis] * (c.kernel[axis] - 1) + 1
    return _replace(c, "padding", axis, (full + c.output_padding[axis] + 1) // 2)


def _replace(c: Configuration, name: str, axis: int, value: int) -> Configuration:
    values = list(getattr(c, name))
    values[axis] = value
    return c._replace(**{name: tuple(values)})


FAULTS: dict[str, Callable[[Configuration, int], Configuration]] = {
    "output_padding too large": too_much_output_padding,
    "output_padding negative": lambda c, axis: _replace(c, "output_padding", axis, -1),
    "nothing left of the output": too_much_padding,
    "padding negative": lambda c, axis: _replace(c, "padding", axis, -1),
    "stride 0": lambda c, axis: _replace(c, "stride", axis, 0),
    "stride negative": lambda c, axis: _replace(c, "stride", axis, -1),
    "dilation 0": lambda c, axis: _replace(c, "dilation", axis, 0),
    "empty spatial axis": lambda c, axis: _replace(c, "sizes", axis, 0),
    "empty kernel axis": lambda c, axis: _replace(c, "kernel", axis, 0),
    "no output channels": lambda c, axis: c._replace(out_per_group=0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_torch_refuses_is_refused(fault: str) -> None:
    @settings(max_examples=max(20, EXAMPLES // 100), database=None)
    @given(configurations(least_batch=1), st.integers(0, 2))
    def check(valid: Configuration, axis: int) -> None:
        c = FAULTS[fault](valid, axis % len(valid.sizes))
        x, w, b = c.operands()
        # In float64: oneDNN, which torch takes for other dtypes where it can, lets some pass.
        with pytest.raises((RuntimeError, ValueError)):
            TORCH[len(c.sizes)](x.double(), w.double(), b.double(), **c.keywords)
        inputs, outputs = c.groups * c.in_per_group, c.groups * c.out_per_group
        shapes = ((c.batch, *c.sizes, inputs), (outputs, *c.kernel, c.in_per_group), (outputs,))
        operands = [mx.zeros(shape) for shape in shapes]
        with pytest.raises(ValueError, match=r"^\[conv_transpose\] "):
            conv_transpose(*operands, **c.keywords)

    check()
