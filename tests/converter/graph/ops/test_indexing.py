"""Elements picked, replaced and added by arrays of indices and by masks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mlxport.converter.graph.ir.context import Unsupported

Fn = Callable[..., Any]
X = torch.randn(2, 5, 4, 6)
I = torch.tensor([0, 3, -1, 3])  # noqa: E741
J = torch.tensor([[1, 0], [2, 3]])

PICKS: dict[str, Fn] = {
    "one axis": lambda x: x[:, I],
    "first axis": lambda x: x[J % 2],
    "last axis": lambda x: x[..., I],
    "by a matrix": lambda x: x[:, J],
    "by a 0-d index": lambda x: x[:, torch.tensor(2)],
    "adjacent axes": lambda x: x[:, I, I],
    "first axes": lambda x: x[J % 2, J],
    "apart axes": lambda x: x[:, I, :, I],
    "broadcast": lambda x: x[:, I[:, None], I],
    "all axes": lambda x: x[I % 2, I, I, I],
    "int32": lambda x: x[:, I.int()],
    "with a slice": lambda x: x[:, I, 1:3],
    "by a list": lambda x: x[:, [2, 0]],
    "index_select": lambda x: x.index_select(1, I.abs()),
    "index_select of 0-d": lambda x: x.index_select(-1, torch.tensor(2)),
    "take": lambda x: x.take(J),
    "empty": lambda x: x[:, torch.zeros(0, dtype=torch.int64)],
}


@pytest.mark.parametrize("name", PICKS)
def test_picking(name: str, assert_op_parity: Fn) -> None:
    assert_op_parity(PICKS[name], X)


def test_picking_by_an_input(assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x, i: x[:, i], X, J)
    assert_op_parity(lambda x, i: x[i], torch.arange(5), J)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_gather(dim: int, assert_op_parity: Fn) -> None:
    x = torch.randn(4, 5, 6)
    places = torch.randint(0, 4, (4, 5, 6))
    assert_op_parity(lambda x, i: x.gather(dim, i), x, places)
    assert_op_parity(lambda x, i: x.gather(dim, i), x, places[:2, :1, :3])
    assert_op_parity(lambda x, i: torch.take_along_dim(x, i, dim), x, places)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_scatter(dim: int, assert_op_parity: Fn) -> None:
    x, source = torch.randn(4, 5, 6), torch.randn(4, 5, 6)
    places = torch.rand(4, 5, 6).argsort(dim)
    fn = torch.scatter
    assert_op_parity(lambda x, i, s: fn(x, dim, i, s), x, places.clamp(max=9), source)
    assert_op_parity(lambda x, i, s: fn(x, dim, i[:2, :3, :2], s), x, places, source)
    assert_op_parity(lambda x, i: fn(x, dim, i[:2, :3, :2], 7.0), x, places)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_scatter_add(dim: int, assert_op_parity: Fn) -> None:
    x, source = torch.randn(4, 5, 6), torch.randn(4, 5, 6)
    places = torch.randint(0, 4, (4, 5, 6))
    assert_op_parity(lambda x, i, s: x.scatter_add(dim, i, s), x, places, source)
    assert_op_parity(lambda x, i, s: x.scatter_add(dim, i[:2, :3, :2], s), x, places, source)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_index_add(dim: int, assert_op_parity: Fn) -> None:
    x, source = torch.zeros(4, 4, 4), torch.randn(4, 4, 4)
    places = torch.tensor([0, 2, 2, 1])
    assert_op_parity(lambda x, i, s: x.index_add(dim, i, s), x, places, source)


def put(*index: Any, accumulate: bool = False) -> Fn:
    def fn(x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        places = tuple(i(x) if callable(i) else i for i in index)
        return torch.ops.aten.index_put(x, places, value, accumulate)

    return fn


A, B = torch.tensor([0, 1]), torch.tensor([3, 0])
PUTS = {
    "first axis": (put(A), (2, 5, 4, 6)),
    "two axes": (put(A, B), (2, 4, 6)),
    "later axis": (put(None, B), (2, 2, 4, 6)),
    "apart axes": (put(None, B, None, B), (2, 2, 4)),
    "broadcast value": (put(A, B), (6,)),
    "one value": (put(None, B), ()),
    "added": (put(A, B, accumulate=True), (2, 4, 6)),
    "added twice": (put(None, torch.tensor([1, 1]), accumulate=True), (2, 2, 4, 6)),
    "mask": (put(lambda x: x > 0), ()),
    "mask of one value": (put(lambda x: x > 0), (1,)),
    "mask added": (put(lambda x: x > 0, accumulate=True), ()),
    "mask of fewer axes": (put(lambda x: x[..., 0] > 0), ()),
    "mask with a row": (put(lambda x: x[..., 0] > 0), (6,)),
    "mask with a broadcast row": (put(lambda x: x[:, :, 0, 0] > 0), (1, 4, 6)),
}


@pytest.mark.parametrize("name", PUTS)
def test_putting(name: str, assert_op_parity: Fn) -> None:
    fn, shape = PUTS[name]
    assert_op_parity(fn, X, torch.randn(shape))


WIDE: dict[str, Fn] = {
    "index_put": lambda x, i, s: torch.ops.aten.index_put(x, [i], s),
    "index_put added": lambda x, i, s: torch.ops.aten.index_put(x, [i], s, True),
    "index_put added, later axis": lambda x, i, s: torch.ops.aten.index_put(
        x, [None, i], s[:, :3], True
    ),
    "index_add": lambda x, i, s: x.index_add(0, i, s),
    "index_add, times a number": lambda x, i, s: x.index_add(1, i, s[:, :3], alpha=3),
    "index_add, doubled": lambda x, i, s: x.index_add(1, i, s[:, :3], alpha=2),
    "scatter": lambda x, i, s: x.scatter(0, i[:, None].expand(3, 4), s),
    "scatter_add": lambda x, i, s: x.scatter_add(0, i[:, None].expand(3, 4), s),
    "diagonal": lambda x, i, s: x.diagonal_scatter(s[:, 0]),
}


@pytest.mark.parametrize("name", WIDE)
def test_large_integers_are_exact(name: str, assert_op_parity: Fn) -> None:
    x, source = (torch.randint(-(1 << 61), 1 << 61, (3, 4)) for _ in range(2))
    places = (
        torch.tensor([1, 2, 0]) if name in ("index_put", "scatter") else torch.tensor([2, 0, 2])
    )
    assert_op_parity(WIDE[name], x, places, source)


def test_what_is_added_in_32_bits_stays_an_expression(lower_op: Fn) -> None:
    places = torch.tensor([0, 2])
    for dtype in (torch.int32, torch.float32):
        x = torch.ones(3, 4, dtype=dtype)
        lowered = lower_op(lambda x, i: x.index_add(0, i, x[:2]), x, places)
        assert lowered.body[-1].endswith(".at[b].add(x1)")


def test_assignment_by_a_mask(assert_op_parity: Fn) -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[x < 0] = 0.0
        x[:, [1, 3]] = 2.0
        return x

    assert_op_parity(fn, X)


def test_one_hot(assert_op_parity: Fn) -> None:
    assert_op_parity(lambda i: F.one_hot(i, 5), J)
    assert_op_parity(lambda i: F.one_hot(i.transpose(0, 1), 5).float(), J)


@pytest.mark.parametrize("diagonal", [0, 1, -2])
def test_triangles(diagonal: int, assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x: (x.tril(diagonal), x.triu(diagonal)), X)
    assert_op_parity(lambda x: (x.tril(diagonal), x.triu(diagonal)), X[0, 0] > 0)


def test_other_dtypes(assert_op_parity: Fn) -> None:
    for dtype in (torch.bool, torch.int64, torch.bfloat16):
        x = (torch.rand(3, 4) > 0.5).to(dtype)
        one = torch.ones((), dtype=dtype)
        i = torch.tensor([[0, 1, 1, 0]])
        assert_op_parity(lambda x, i, v: (x[:, i[0]], x.gather(0, i), put(A)(x, v)), x, i, one)


OF_0D: dict[str, Fn] = {
    "gather": lambda x, i: x.gather(0, i),
    "scatter": lambda x, i: x.scatter(0, i, 7.0),
    "scatter an array": lambda x, i: x.scatter(0, i, x * 2),
    "scatter_add": lambda x, i: x.scatter_add(0, i, x * 2),
    "index_add": lambda x, i: x.index_add(0, i, x * 2, alpha=3),
    "index_select": lambda x, i: x.index_select(0, i),
}


@pytest.mark.parametrize("name", OF_0D)
def test_0d_arrays(name: str, assert_op_parity: Fn) -> None:
    assert_op_parity(OF_0D[name], torch.tensor(1.5), torch.tensor(0))


@pytest.mark.parametrize("name", ["gather", "index_select"])
def test_vectors_by_0d_indices(name: str, assert_op_parity: Fn) -> None:
    assert_op_parity(OF_0D[name], torch.randn(4), torch.tensor(2))


COUNT = int((X > 0).sum())
REFUSED: dict[str, tuple[str, Fn, tuple[int, ...]]] = {
    "values per element": ("one value per element", put(lambda x: x > 0), (COUNT,)),
    "mask among others": ("among other", put(A, lambda x: x[0, :2, 0, 0] > 0), (2, 4, 6)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str, lower_op: Fn) -> None:
    match, fn, shape = REFUSED[name]
    with pytest.raises(Unsupported, match=match):
        lower_op(fn, X, torch.randn(shape))


def test_a_mask_that_picks_is_refused(lower_op: Fn) -> None:
    with pytest.raises(Unsupported, match=r"known only at run time|depends on the data"):
        lower_op(lambda x: x[x > 0], X)
    with pytest.raises(Unsupported, match="size depends on the data"):
        lower_op(lambda x: x.nonzero(), X)
    with pytest.raises(Unsupported, match="size depends on the data"):
        lower_op(lambda x: x.masked_select(x > 0), X)


@pytest.mark.parametrize("alpha", [0, 2, -1.5])
def test_index_add_scaled(alpha: float, assert_op_parity: Fn) -> None:
    x, source = torch.randn(3, 4, 5), torch.randn(3, 2, 5)
    assert_op_parity(lambda x, s: x.index_add(1, A, s, alpha=alpha), x, source)


def test_no_places_at_all(assert_op_parity: Fn) -> None:
    x, none = torch.randn(3, 4), torch.zeros(0, dtype=torch.int64)
    assert_op_parity(lambda x: (x.gather(0, none), x.scatter(0, none, 1.0)), x)
    assert_op_parity(lambda x: x.index_add(0, none, x[:0]), x)


NOTHING: dict[str, Fn] = {
    "filled": lambda x: x.index_fill(0, A, 2),
    "put": lambda x: torch.ops.aten.index_put(x, [A], x[A]),
    "added": lambda x: torch.ops.aten.index_put(x, [A], x[A], True),
    "index_add": lambda x: x.index_add(0, A, x[A]),
    "reduced": lambda x: x.index_reduce(0, A, x[A], "amax"),
    "scatter_reduced": lambda x: x.scatter_reduce(0, x[:2].long(), x[:2], "sum"),
    "scattered": lambda x: x.scatter(0, x[:2].long(), 1.0),
}


@pytest.mark.parametrize("name", NOTHING)
def test_writing_into_nothing(name: str, assert_op_parity: Fn) -> None:
    assert_op_parity(NOTHING[name], torch.randn(4, 3, 1, 0))


def test_writing_into_a_slice_of_nothing(assert_op_parity: Fn) -> None:
    def fn(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[-1, 1:1, [1]] += 1.0
        return x

    assert_op_parity(fn, X)
