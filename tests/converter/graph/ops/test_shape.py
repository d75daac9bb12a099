"""Axes moved, added, removed, repeated; arrays joined and taken apart."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

Fn = Callable[..., Any]
LAST = (0, 2, 3, 1)

CASES: dict[str, tuple[Fn, tuple[int, ...]]] = {
    "permute": (lambda x: x.permute(0, 2, -1, 1), (2, 3, 4, 5)),
    "transpose": (lambda x: x.transpose(1, -1), (2, 3, 4, 5)),
    "t": (lambda x: x.t(), (2, 3)),
    "t of 1-d": (lambda x: x.t(), (3,)),
    "mT": (lambda x: x.mT, (2, 3, 4)),
    "movedim": (lambda x: x.movedim(1, -1), (2, 3, 4, 5)),
    "swapaxes": (lambda x: x.swapaxes(0, 2), (2, 3, 4)),
    "squeeze dim": (lambda x: x.squeeze(2), (2, 3, 1, 5)),
    "squeeze negative dim": (lambda x: x.squeeze(-1), (2, 3, 1)),
    "squeeze dims": (lambda x: x.squeeze((1, 3)), (2, 1, 3, 1, 4)),
    "squeeze all": (lambda x: x.squeeze(), (1, 3, 1, 5)),
    "squeeze what is not one": (lambda x: x.squeeze(1), (2, 3)),
    "squeeze 0-d": (lambda x: x.squeeze(0), ()),
    "unsqueeze in front": (lambda x: x.unsqueeze(0), (2, 3, 4)),
    "unsqueeze inside": (lambda x: x.unsqueeze(2), (2, 3, 4, 5)),
    "unsqueeze at the end": (lambda x: x.unsqueeze(-1), (2, 3, 4, 5)),
    "unsqueeze by None": (lambda x: x[:, None, :, None], (2, 3, 4)),
    "unsqueeze 0-d": (lambda x: x.unsqueeze(0), ()),
    "expand": (lambda x: x.expand(2, 3, -1, 5), (2, 1, 4, 1)),
    "expand to more axes": (lambda x: x.expand(6, 2, 3, 4), (2, 1, 4)),
    "expand nothing": (lambda x: x.expand(2, 3), (2, 3)),
    "expand 0-d": (lambda x: x.expand(2, 3), ()),
    "repeat": (lambda x: x.repeat(1, 2, 3), (2, 3, 4)),
    "repeat to more axes": (lambda x: x.repeat(2, 1, 3, 1), (2, 3, 4)),
    "repeat once": (lambda x: x.repeat(1, 1), (2, 3)),
    "tile": (lambda x: x.tile(2), (2, 3, 4)),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), (2, 3, 4)),
    "repeat_interleave flat": (lambda x: x.repeat_interleave(2), (2, 3, 4)),
    "split": (lambda x: x.split(2, 1), (2, 5, 3)),
    "split evenly": (lambda x: x.split(2, -1), (2, 5, 4)),
    "split into one": (lambda x: x.split(5, 1), (2, 5, 3)),
    "split with sizes": (lambda x: x.split([1, 3, 1], 1), (2, 5, 3)),
    "chunk": (lambda x: x.chunk(3, 1), (2, 7, 3)),
    "tensor_split": (lambda x: x.tensor_split((1, 4), 1), (2, 6, 3)),
    "unbind": (lambda x: x.unbind(1), (2, 3, 4)),
    "unbind first": (lambda x: x.unbind(), (2, 3)),
    "unbind one": (lambda x: x.unbind(1), (2, 1, 4)),
    "meshgrid": (lambda x: torch.meshgrid(x[0], x[1], indexing="ij"), (2, 3)),
    "meshgrid xy": (lambda x: torch.meshgrid(x[0], x[1], indexing="xy"), (2, 3)),
    "diff": (lambda x: x.diff(dim=1), (2, 3, 4)),
    "clone": (lambda x: x.clone(), (2, 3)),
    "contiguous": (lambda x: x.transpose(0, 1).contiguous(), (2, 3)),
    "detach": (lambda x: x.detach() * 2, (2, 3)),
    "unflatten": (lambda x: x.unflatten(1, (2, -1)), (2, 6, 4)),
    "flatten": (lambda x: x.flatten(1, 2), (2, 3, 4, 5)),
    "empty": (lambda x: x.unsqueeze(1).expand(0, 2, 3), (0, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_of_one(name: str, assert_op_parity: Fn) -> None:
    fn, shape = CASES[name]
    assert_op_parity(fn, torch.randn(shape))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.bfloat16], ids=str)
def test_of_other_dtypes(dtype: torch.dtype, assert_op_parity: Fn) -> None:
    x = torch.randint(0, 2, (2, 4, 3)).to(dtype)
    assert_op_parity(lambda x: (x.repeat(1, 2, 1), x.split(2, 1), x.expand(3, 2, 4, 3)), x)


@pytest.mark.parametrize("dim", [0, 1, 2, 3, -1])
def test_cat_and_stack(dim: int, assert_op_parity: Fn) -> None:
    x, y = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    assert_op_parity(lambda x, y: torch.cat([x, y, x], dim), x, y)
    assert_op_parity(lambda x, y: torch.stack([x, y], dim), x, y)


def test_cat_of_sizes_that_differ(assert_op_parity: Fn) -> None:
    x, y = torch.randn(2, 3, 4, 5), torch.randn(2, 1, 4, 5)
    assert_op_parity(lambda x, y: torch.cat([x, y], 1), x, y)
    assert_op_parity(lambda x, y: torch.cat([x, y], 1), x, y, parameters=[0])
    assert_op_parity(lambda x, y: torch.cat([x, y[:0]], 0), x, x)


def test_cat_leaves_empty_vectors_out(assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x, e: torch.cat([e, x], 1), torch.randn(2, 3), torch.zeros(0))
    assert_op_parity(lambda x, e: torch.cat([x, e]), torch.zeros(0), torch.zeros(0))


EMPTIES: dict[str, list[tuple[int, ...]]] = {
    "one": [(0,)],
    "vectors": [(0,), (0,), (0,)],
    "a vector first": [(0,), (2, 0)],
    "a vector last": [(0, 3), (0,)],
    "none along the axis": [(0, 3), (0, 3)],
    "sizes that add up": [(0, 3), (0, 2), (0,)],
    "three axes": [(2, 0, 4), (0,), (2, 0, 4)],
}


@pytest.mark.parametrize("name", EMPTIES)
def test_cat_of_nothing_but_empty_arrays(name: str, assert_op_parity: Fn) -> None:
    arrays = [torch.zeros(shape) for shape in EMPTIES[name]]
    dims = {"sizes that add up": [1, -1]}.get(name, [0])
    for dim in dims:
        assert_op_parity(lambda *given, dim=dim: torch.cat(given, dim), *arrays)


@pytest.mark.parametrize("dtypes", [(torch.int64, torch.float32), (torch.float16, torch.float32)])
def test_cat_of_empty_arrays_has_the_dtype_of_all(
    dtypes: tuple[torch.dtype, torch.dtype], assert_op_parity: Fn
) -> None:
    for shapes in ([(0,), (0,)], [(0,), (0, 2)], [(0, 2), (0,)]):
        arrays = [torch.zeros(s, dtype=d) for s, d in zip(shapes, dtypes, strict=True)]
        assert_op_parity(lambda x, y: torch.cat([x, y]), *arrays)


@pytest.mark.parametrize("other", [torch.int64, torch.bool, torch.float32, torch.bfloat16], ids=str)
def test_joins_promote(other: torch.dtype, assert_op_parity: Fn) -> None:
    x, y = torch.randn(2, 3).half(), torch.ones(2, 3).to(other)
    assert_op_parity(lambda x, y: torch.cat([x, y]), x, y)
    assert_op_parity(lambda x, y: torch.stack([x, y]), x, y)


def test_the_other_joins(assert_op_parity: Fn) -> None:
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    assert_op_parity(lambda x, y: torch.vstack([x, y]), x, y)
    assert_op_parity(lambda x, y: torch.hstack([x, y]), x, y)
    assert_op_parity(lambda x, y: torch.concatenate([x, y], 1), x, y)


def test_broadcast_tensors(assert_op_parity: Fn) -> None:
    x, y = torch.randn(2, 3, 4), torch.randn(3, 1)
    assert_op_parity(lambda x, y: torch.broadcast_tensors(x, y), x, y)
    assert_op_parity(lambda x, y: y.expand_as(x), x, y)


SOURCES = {
    "permute": (lambda x: x.permute(0, 2, 3, 1), [], (0, 1, 2, 3)),
    "squeeze": (
        lambda x: x[:, :, :1].squeeze(2),
        ["x1 = a[:, :1]", "x2 = mx.squeeze(x1, 1)"],
        None,
    ),
    "unsqueeze": (lambda x: x.unsqueeze(2), ["x1 = mx.expand_dims(a, 1)"], (0, 2, 3, 4, 1)),
    "two new axes": (
        lambda x: x[:, None, :, :, None],
        ["x1 = mx.expand_dims(a, 3)", "x2 = mx.expand_dims(a, (2, 4))"],
        (),
    ),
    "cat": (lambda x: torch.cat([x, x], 1), ["x1 = mx.concatenate([a, a], axis=-1)"], LAST),
    "cat of batches": (lambda x: torch.cat([x, x]), ["x1 = mx.concatenate([a, a])"], LAST),
    "stack": (lambda x: torch.stack([x, x]), ["x1 = mx.stack([a, a])"], (0, 1, 3, 4, 2)),
    "halves": (lambda x: x.split(2, 1)[0], ["x1, x2 = mx.split(a, 2, axis=-1)"], LAST),
    "pieces": (lambda x: x.split([1, 3], 1)[0], ["x1, x2 = mx.split(a, [1], axis=-1)"], LAST),
    "unbind": (lambda x: x.unbind(0)[0], ["x1, x2 = mx.unstack(a)"], (1, 2, 0)),
    "clone": (lambda x: x.clone().detach(), [], LAST),
}


@pytest.mark.parametrize("name", SOURCES)
def test_source_of_channels_last(name: str, lower_op: Fn) -> None:
    fn, body, order = SOURCES[name]
    lowered = lower_op(fn, torch.randn(2, 4, 5, 6), orders=[LAST])
    assert lowered.body == body
    assert not order or lowered.orders == [order]


def test_the_skip_joins_the_path_in_its_order(lower_op: Fn) -> None:
    x, skip = torch.randn(2, 3, 4, 5), torch.randn(2, 8, 4, 5)
    lowered = lower_op(lambda x, s: torch.cat([x, s], 1), x, skip, orders=[LAST, None])
    assert lowered.body == ["x1 = b.transpose(0, 2, 3, 1)", "x2 = mx.concatenate([a, x1], axis=-1)"]
