"""Slices, arrays turned round and shifted, windows."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

Fn = Callable[..., Any]
LAST = (0, 2, 3, 1)

READS: dict[str, Fn] = {
    "range": lambda x: x[:, 1:3],
    "from": lambda x: x[:, :, 2:],
    "up to": lambda x: x[..., :2],
    "negative start": lambda x: x[:, -2:],
    "negative end": lambda x: x[..., :-1],
    "step": lambda x: x[:, ::2],
    "start, end, step": lambda x: x[..., 1:5:2],
    "past the end": lambda x: x[:, 1:99],
    "before the start": lambda x: x[:, -99:2],
    "everything": lambda x: x[:, :, :],
    "nothing": lambda x: x[:, 2:2],
    "crossed": lambda x: x[:, 3:1],
    "several axes": lambda x: x[:1, 1:, ..., 2:4],
    "index": lambda x: x[:, 1],
    "negative index": lambda x: x[..., -1],
    "first": lambda x: x[0],
    "index and slice": lambda x: x[0, 1:, :, 2],
    "all indexed": lambda x: x[1, 2, 3, 4],
    "narrow": lambda x: x.narrow(1, 1, 2),
    "flip": lambda x: x.flip(1),
    "flip two": lambda x: x.flip(0, -1),
    "flip all": lambda x: x.flip((0, 1, 2, 3)),
    "flip none": lambda x: x.flip(()),
    "roll": lambda x: x.roll(1, 1),
    "roll back": lambda x: x.roll(-2, -1),
    "roll two": lambda x: x.roll((1, -1), (2, 1)),
    "roll flat": lambda x: x.roll(3),
    "diagonal": lambda x: x.diagonal(),
    "diagonal of other axes": lambda x: x.diagonal(1, -1, 1),
    "windows": lambda x: x.unfold(1, 2, 1),
    "windows apart": lambda x: x.unfold(-1, 2, 3),
    "one window": lambda x: x.unfold(2, 5, 1),
    "rot90": lambda x: x.rot90(1, (2, 3)),
}


@pytest.mark.parametrize("name", READS)
def test_reading(name: str, assert_op_parity: Fn) -> None:
    assert_op_parity(READS[name], torch.randn(2, 4, 5, 6))


SOURCES = {
    "range": (lambda x: x[:, 1:3], "a[..., 1:3]"),
    "batch": (lambda x: x[1:], "a[1:]"),
    "width": (lambda x: x[..., :-1], "a[:, :, :-1]"),
    "step": (lambda x: x[:, :, ::2], "a[:, ::2]"),
    "index": (lambda x: x[:, 0], "a[..., 0]"),
    "batch index": (lambda x: x[0], "a[0]"),
    "several": (lambda x: x[:, 1:, ::2, :-1], "a[:, ::2, :-1, 1:]"),
    "index of a slice": (lambda x: x[:, 1:, 3, :2], "a[:, 3, :2, 1:]"),
    "slice of an index": (lambda x: x[0, :, 2:][:, :, 1], "a[0, 2:, 1]"),
    "slice of a slice": (lambda x: x[:, 1:][:, 1:], "x1[..., 1:]"),
    "last two": (lambda x: x[:, 0, :, 1], "a[..., 1, 0]"),
    "permuted": (lambda x: x[:, 1:].permute(1, 0, 2, 3)[:, :1], "a[:1, :, :, 1:]"),
    "flip": (lambda x: x.flip(1), "mx.flip(a, axis=-1)"),
    "windows": (
        lambda x: x.unfold(2, 3, 2),
        "mx.take(a, mx.expand_dims(mx.arange(0, 4, 2), 1) + mx.arange(3), axis=1)",
    ),
    "roll": (lambda x: x.roll((1, 1), (2, 3)), "mx.roll(a, (1, 1), (1, 2))"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_source_of_channels_last(name: str, lower_op: Fn) -> None:
    fn, source = SOURCES[name]
    lowered = lower_op(fn, torch.randn(2, 4, 5, 6), orders=[LAST])
    assert lowered.body[-1].split(" = ", 1)[1] == source


@pytest.mark.parametrize("size", [0, 1])
def test_windows_of_a_0d_array(size, assert_op_parity):
    assert_op_parity(lambda x: x.unfold(0, size, 1), torch.tensor(1.5))
