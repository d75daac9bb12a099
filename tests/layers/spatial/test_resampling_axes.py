"""`layers.resampling_axes`: nearest neighbours are torch's for every size, weights add up to 1."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mlxport.layers.spatial.resampling_axes import (
    antialiased_taps,
    cubic_taps,
    linear_taps,
    nearest_indices,
)

MODES = {"nearest": False, "nearest-exact": True}
FACTORS = [0.3, 1 / 3, 0.5, 0.7, 0.9, 1.05, 1.1, 1.5, 1.99, 2, 2.0000001, 2.05, 3.3, 7, 41, 49]
KINDS = pytest.mark.parametrize(
    ("mode", "small_image"),
    [(mode, small) for mode in MODES for small in (False, True)],
    ids=lambda value: value if isinstance(value, str) else ("small" if value else "large"),
)


def torch_indices(length: int, mode: str, small_image: bool, **target: object) -> tuple[int, ...]:
    """The elements torch copies, read off a ramp."""
    ramp = torch.arange(float(length)).reshape(1, 1, length)
    if small_image:
        ramp = ramp[..., None]
        target = {key: (value, 1) for key, value in target.items()}
    values = F.interpolate(ramp, mode=mode, **target)
    return tuple(int(value) for value in values.flatten())


@KINDS
@pytest.mark.parametrize("size", range(1, 65))
def test_nearest_of_every_size(size: int, mode: str, small_image: bool) -> None:
    for count in range(1, 128):
        got = nearest_indices(size, count, None, MODES[mode], small_image)
        assert got == torch_indices(size, mode, small_image, size=count), count


@KINDS
@pytest.mark.parametrize("factor", FACTORS)
def test_nearest_by_every_factor(factor: float, mode: str, small_image: bool) -> None:
    for size in range(1, 65):
        count = int(size * factor)
        if count < 1 or (small_image and count > 127):
            continue
        got = nearest_indices(size, count, factor, MODES[mode], small_image)
        assert got == torch_indices(size, mode, small_image, scale_factor=factor), size


@given(size=st.integers(1, 4000), count=st.integers(1, 4000), mode=st.sampled_from([*MODES]))
def test_nearest_of_long_axes(size: int, count: int, mode: str) -> None:
    got = nearest_indices(size, count, None, MODES[mode], small_image=False)
    assert got == torch_indices(size, mode, small_image=False, size=count)


@given(
    size=st.integers(1, 50),
    count=st.integers(1, 50),
    align_corners=st.booleans(),
    kind=st.sampled_from(["linear", "cubic", "antialiased linear", "antialiased cubic"]),
)
def test_weights_of_every_output_add_up_to_one(
    size: int, count: int, align_corners: bool, kind: str
) -> None:
    if kind.startswith("antialiased"):
        taps = antialiased_taps(size, count, None, align_corners, kind.endswith("cubic"))
    else:
        taps = {"linear": linear_taps, "cubic": cubic_taps}[kind](size, count, None, align_corners)
    assert {len(tap.indices) for tap in taps} == {len(tap.weights) for tap in taps} == {count}
    assert all(0 <= index < size for tap in taps for index in tap.indices)
    totals = [sum(weights) for weights in zip(*(tap.weights for tap in taps), strict=True)]
    assert totals == pytest.approx([1.0] * count)
