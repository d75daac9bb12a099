"""Sums, extremes and their places, norms, truth, running sums."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mlxport.converter.graph.ir.context import Unsupported

Fn = Callable[..., Any]
FLOATS = [torch.float32, torch.float16, torch.bfloat16]
DIMS = [None, 1, -1, (0,), (2, 3), (1, -1), (0, 1, 2, 3)]

REDUCTIONS: dict[str, Fn] = {
    "sum": lambda x, d, k: x.sum(d, keepdim=k),
    "mean": lambda x, d, k: x.mean(d, keepdim=k),
    "amax": lambda x, d, k: x.amax(() if d is None else d, keepdim=k),
    "amin": lambda x, d, k: x.amin(() if d is None else d, keepdim=k),
    "var": lambda x, d, k: x.var(d, keepdim=k),
    "var biased": lambda x, d, k: x.var(d, correction=0, keepdim=k),
    "std": lambda x, d, k: x.std(d, keepdim=k),
    "var_mean": lambda x, d, k: torch.var_mean(x, d, keepdim=k),
    "norm": lambda x, d, k: torch.linalg.vector_norm(x, dim=d, keepdim=k),
    "logsumexp": lambda x, d, k: x.logsumexp((0, 1, 2, 3) if d is None else d, keepdim=k),
    "any": lambda x, d, k: (x > 1.5).any(d, keepdim=k),
    "all": lambda x, d, k: (x > -1.5).all(d, keepdim=k),
}


@pytest.mark.parametrize("keepdim", [False, True], ids=["drop", "keep"])
@pytest.mark.parametrize("dims", DIMS, ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reduction(name: str, dims: Any, keepdim: bool, assert_op_parity: Fn) -> None:
    fn = REDUCTIONS[name]
    assert_op_parity(lambda x: fn(x, dims, keepdim), torch.randn(2, 3, 4, 5))


@pytest.mark.parametrize("dtype", FLOATS[1:], ids=str)
@pytest.mark.parametrize("name", [n for n in REDUCTIONS if n not in ("any", "all")])
def test_reduction_of_half(name: str, dtype: torch.dtype, assert_op_parity: Fn) -> None:
    fn = REDUCTIONS[name]
    assert_op_parity(lambda x: fn(x, (1, 2), False), torch.randn(2, 30, 40, 5) + 1, dtype=dtype)


def test_the_mean_of_half_does_not_overflow(assert_op_parity: Fn) -> None:
    x = torch.full((40, 50), 300.0)
    assert_op_parity(lambda x: (x.mean(), x.var(1), x.mean(0)), x, dtype=torch.float16)


@pytest.mark.parametrize("name", ["sum", "mean", "var", "norm"])
def test_long_sums_are_as_precise_as_torch(name: str, assert_op_parity: Fn) -> None:
    fn = REDUCTIONS[name]
    x = torch.rand(2, 3, 40, 50, 60) + 1
    assert_op_parity(lambda x: fn(x, (2, 3, 4), False), x)
    assert_op_parity(lambda x: fn(x, None, False), x)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.int64], ids=str)
def test_sums_of_integers(dtype: torch.dtype, assert_op_parity: Fn) -> None:
    x = torch.randint(0, 100, (3, 4, 500)).to(dtype)
    assert_op_parity(lambda x: (x.sum(), x.sum(-1), x.sum(1, keepdim=True), x.cumsum(1)), x)
    y = torch.randint(1, 3, (3, 4, 5)).to(dtype)
    assert_op_parity(lambda x: (x.prod(1), x.prod(), x.cumprod(-1)), y)


def test_integer_sums_do_not_overflow(assert_op_parity: Fn) -> None:
    x = torch.full((8,), (1 << 30), dtype=torch.int32)
    assert_op_parity(lambda x: (x.sum(), x.cumsum(0), x.prod()), x)


def test_sums_in_another_dtype(assert_op_parity: Fn) -> None:
    x = torch.randint(0, 9, (3, 4))
    assert_op_parity(lambda x: x.sum(1, dtype=torch.float32), x)
    assert_op_parity(lambda x: x.mean(1, dtype=torch.float32), x)
    assert_op_parity(lambda x: x.cumsum(1, dtype=torch.float32), x)


@pytest.mark.parametrize("correction", [0, 1, 2, 5], ids=str)
def test_corrections(correction: int, assert_op_parity: Fn) -> None:
    x = torch.randn(3, 4) + 100
    assert_op_parity(lambda x: x.var(1, correction=correction), x)
    assert_op_parity(lambda x: x.std((0, 1), correction=correction), x)


def test_a_broken_correction_is_refused(lower_op: Fn) -> None:
    with pytest.raises(Unsupported, match=r"correction of 0\.5"):
        lower_op(lambda x: x.var(1, correction=0.5), torch.randn(2, 3))


def test_unbiased_flags(assert_op_parity: Fn) -> None:
    x = torch.randn(3, 4)
    assert_op_parity(lambda x: (x.var(False), x.var(), x.std(True), x.var(1, False)), x)


EMPTY: dict[str, Fn] = {
    "sum": lambda x: x.sum(-1),
    "prod": lambda x: x.prod(-1),
    "mean": lambda x: x.mean(-1),
    "any": lambda x: (x > 0).any(-1),
    "all": lambda x: (x > 0).all(-1),
    "of both axes": lambda x: x.sum(),
    "norm": lambda x: torch.linalg.vector_norm(x, dim=-1),
    "var": lambda x: x.var(-1),
}


@pytest.mark.parametrize("name", EMPTY)
def test_over_no_values_of_a_view(name: str, assert_op_parity: Fn, lower_op: Fn) -> None:
    """MLX, reading an empty view, ends at times only: the text has to show that it reads none."""

    def reduced(x: torch.Tensor) -> Any:
        return EMPTY[name](x[:0].t())

    assert_op_parity(reduced, torch.randn(6, 8))
    assert "mx.contiguous(" in str(lower_op(reduced, torch.randn(6, 8)).body)


def test_logsumexp_of_nothing(assert_op_parity: Fn) -> None:
    x = torch.zeros(2, 0, 3)
    assert_op_parity(lambda x: (x.logsumexp(1), x.logsumexp(2, keepdim=True)), x)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int16], ids=str)
@pytest.mark.parametrize("reduced", [torch.sum, torch.prod], ids=["sum", "prod"])
def test_in_small_integers(reduced: Fn, dtype: torch.dtype, assert_op_parity: Fn) -> None:
    x = torch.tensor([[0, 2, 3], [100, 90, 80]])
    assert_op_parity(lambda x: (reduced(x, dtype=dtype), reduced(x, 1, dtype=dtype)), x)


@pytest.mark.parametrize("order", [0, 1, 2, 3, 0.5, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("dims", [None, 1, (1, 2), (1, 2, 3)], ids=str)
def test_norms(order: float, dims: Any, assert_op_parity: Fn) -> None:
    x = torch.randn(2, 3, 4, 5)
    assert_op_parity(lambda x: torch.linalg.vector_norm(x, order, dims), x)


def test_norms_by_other_names(assert_op_parity: Fn) -> None:
    x = torch.randn(2, 3, 4)
    assert_op_parity(lambda x: (x.norm(), x.norm(dim=1), x.norm(p=1, dim=(0, 2))), x)
    assert_op_parity(lambda x: torch.nn.functional.normalize(x, dim=1), x)


@pytest.mark.parametrize("keepdim", [False, True], ids=["drop", "keep"])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_extremes_and_places(dim: int, keepdim: bool, assert_op_parity: Fn) -> None:
    x = torch.randn(2, 3, 4, 5)
    assert_op_parity(lambda x: (x.max(dim, keepdim), x.min(dim, keepdim)), x)
    assert_op_parity(lambda x: (x.argmax(dim, keepdim), x.argmin(dim, keepdim)), x)


def test_extremes_of_all(assert_op_parity: Fn) -> None:
    x = torch.randn(2, 3, 4, 5)
    assert_op_parity(lambda x: (x.max(), x.min(), x.argmax(), x.argmin()), x)
    assert_op_parity(lambda x: x.argmax(keepdim=True), x)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16], ids=str)
def test_extremes_of_other_dtypes(dtype: torch.dtype, assert_op_parity: Fn) -> None:
    x = torch.randint(0, 9, (3, 4)).to(dtype)
    assert_op_parity(lambda x: (x.max(), x.amax(1), x.amin(0)), x)
    assert_op_parity(lambda x: x.max(1)[0], x)


@pytest.mark.parametrize("keepdim", [False, True], ids=["drop", "keep"])
def test_places_in_nothing(keepdim: bool, assert_op_parity: Fn) -> None:
    x = torch.randn(0, 3, 4)
    assert_op_parity(lambda x: (x.argmax(1, keepdim), x.argmin(2, keepdim), x.max(1, keepdim)), x)


def test_the_first_of_equal_values_is_named(assert_op_parity: Fn) -> None:
    x = torch.randint(0, 3, (4, 50))
    assert_op_parity(lambda x: (x.argmax(1), x.argmin(1), x.max(0).indices), x)


def test_nan_wins(assert_op_parity: Fn) -> None:
    x = torch.tensor([[1.0, torch.nan, 2.0], [3.0, 1.0, torch.nan]])
    assert_op_parity(lambda x: (x.max(1), x.min(1), x.amax(), x.argmax(1), x.sum(1)), x)


def test_truth_of_numbers(assert_op_parity: Fn) -> None:
    x = torch.tensor([[0.0, 1.0, torch.nan], [0.0, -0.0, 0.0]])
    assert_op_parity(lambda x: (x.any(1), x.all(1), x.any(), x.all()), x)
    assert_op_parity(lambda x: (x.any(0), x.all(1)), torch.tensor([[0, 2], [3, 1]]))
    assert_op_parity(lambda x: (x.any(0), x.all()), torch.tensor([[0, 2]]).to(torch.uint8))
    assert_op_parity(lambda x: torch.any(x, (0, 1)), x)
    for dtype in (torch.bool, torch.uint8, torch.float32):
        counted = (x * 3).to(dtype)
        assert_op_parity(lambda x: (torch.any(x, ()), torch.all(x, (), keepdim=True)), counted)


def test_histograms(assert_op_parity: Fn) -> None:
    x = torch.randn(4, 5, 6)
    assert_op_parity(lambda x: (x.histc(7), x.histc(4, -1, 1), x[0].histc(3, 0, 2)), x)
    assert_op_parity(lambda x: (x.histc(5), x.histc(5, 2, 2)), torch.full((3,), 2.0))
    assert_op_parity(lambda x: x.histc(3, 0, 3), torch.tensor([0.0, 1, 2, 3, torch.nan, 4, -1]))


HISTOGRAMS: dict[str, dict[str, Any]] = {
    "counts": {},
    "a range": {"range": (-1.0, 1.5)},
    "a range of no width": {"range": (0.5, 0.5)},
    "shares": {"density": True},
}


@pytest.mark.parametrize("weighted", [False, True], ids=["counted", "weighted"])
@pytest.mark.parametrize("name", HISTOGRAMS)
def test_bins_and_edges(name: str, weighted: bool, assert_op_parity: Fn) -> None:
    x, weight = torch.randn(2, 3, 4, 5), torch.rand(2, 3, 4, 5)

    def of_count(x: torch.Tensor, weight: torch.Tensor) -> Any:
        given = {"weight": weight} if weighted else {}
        return tuple(torch.histogram(x, 6, **given, **HISTOGRAMS[name]))

    assert_op_parity(of_count, x, weight)


def test_bins_of_edges(assert_op_parity: Fn) -> None:
    x, edges = torch.randn(2, 3, 4), torch.tensor([-1.0, -0.5, 0.0, 2.0])
    assert_op_parity(lambda x, e: tuple(torch.histogram(x, e)), x, edges)
    assert_op_parity(lambda x, e: torch.histogram(x, e, weight=x.abs(), density=True)[0], x, edges)


def test_infinities_in_logsumexp(assert_op_parity: Fn) -> None:
    inf = torch.inf
    x = torch.tensor([[-inf, -inf], [inf, 0.0], [inf, -inf], [100.0, 100.0]])
    assert_op_parity(lambda x: (x.logsumexp(1), x.logcumsumexp(1)), x)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_running(dim: int, dtype: torch.dtype, assert_op_parity: Fn) -> None:
    x = torch.rand(4, 300, 3) + 0.5
    assert_op_parity(lambda x: x.cumsum(dim), x, dtype=dtype)
    assert_op_parity(lambda x: x[:, :9].cumprod(dim), x, dtype=dtype)


def test_of_empty_and_0d(assert_op_parity: Fn) -> None:
    assert_op_parity(lambda x: (x.sum(0), x.sum(), x.amax(1), x.any()), torch.zeros(0, 3))
    assert_op_parity(lambda x: (x.mean(0), x.var(0)), torch.zeros(0, 3))
    zero = torch.tensor(2.0)
    assert_op_parity(lambda x: (x.sum(), x.mean(0), x.max(), x.cumsum(0)), zero)


SOURCES = {
    "mx.mean(a, axis=(1, 2))": lambda x: x.mean((2, 3)),
    "mx.mean(a, axis=-1, keepdims=True)": lambda x: x.mean(1, keepdim=True),
    "mx.sum(a)": lambda x: x.sum(),
    "mx.max(a, axis=1)": lambda x: x.amax(2),
    "mx.argmax(a, axis=-1).astype(mx.int64)": lambda x: x.argmax(1),
    "mx.linalg.norm(a, axis=-1, keepdims=True)": lambda x: torch.linalg.vector_norm(
        x, dim=1, keepdim=True
    ),
}


@pytest.mark.parametrize("source", SOURCES)
def test_source_of_channels_last(source: str, lower_op: Fn) -> None:
    lowered = lower_op(SOURCES[source], torch.randn(2, 3, 4, 5), orders=[(0, 2, 3, 1)])
    assert lowered.source == source


def test_sources_of_half_and_of_long_sums(lower_op: Fn) -> None:
    mean = "mean(a, axis=(1, 2))"
    lowered = lower_op(lambda x: x.mean((2, 3)), torch.randn(2, 3, 64, 65), orders=[(0, 2, 3, 1)])
    assert lowered.source == mean
    assert lowered.cx.model.imports == {"mean": "arrays.reduction"}
    assert lower_op(lambda x: x.mean((1, 2)), torch.randn(2, 3, 4).half()).source == mean
