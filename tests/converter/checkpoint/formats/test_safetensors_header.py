"""A header that is laid out and encoded is whole, aligned, and reads back as it was."""

from __future__ import annotations

from itertools import accumulate

import pytest

from mlxport.converter.checkpoint.formats.safetensors_header import (
    LENGTH_BYTES,
    encode,
    lay_out,
    parse,
)
from mlxport.converter.plan.tensor import STORAGE, TensorSpec


@pytest.mark.parametrize("length", range(1, 9))
def test_the_data_lies_aligned_whatever_the_length_of_names(length: int) -> None:
    header = lay_out({"x" * length: TensorSpec("F32", (2,))}, {"format": "mlx"})
    raw = encode(header)
    assert len(raw) % 8 == 0
    assert int.from_bytes(raw[:LENGTH_BYTES], "little") == len(raw) - LENGTH_BYTES
    assert parse(raw[LENGTH_BYTES:], 8, "x") == header


def test_wide_tensors_come_first_and_begin_at_their_item_size() -> None:
    specs = {dtype: TensorSpec(dtype, (3,)) for dtype in sorted(STORAGE)}
    header = lay_out(specs, {})
    widths = [STORAGE[dtype].itemsize for dtype in header.specs]
    assert widths == sorted(widths, reverse=True)
    assert [*header.offsets.values()] == [0, *accumulate(3 * width for width in widths[:-1])]
    assert all(header.offsets[dtype] % STORAGE[dtype].itemsize == 0 for dtype in specs)
