"""Values of a given rank, running extremes, places in sorted sequences."""

import pytest
import torch

from mlxport.converter.graph.ir.context import Unsupported

CASES = {
    "kthvalue": lambda x: torch.kthvalue(x, 2, 1),
    "median": lambda x: torch.median(x, 1),
    "median keepdim": lambda x: torch.median(x, -1, keepdim=True),
    "median of all": torch.median,
    "nanmedian": lambda x: torch.nanmedian(x, 1),
    "nanmedian of all": torch.nanmedian,
    "mode": lambda x: torch.mode(x, 1),
    "cummax": lambda x: torch.cummax(x, 1),
    "cummin": lambda x: torch.cummin(x, -1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_distinct(name, dtype, assert_op_parity):
    assert_op_parity(CASES[name], torch.randperm(120).reshape(2, 3, 4, 5).to(dtype))


@pytest.mark.parametrize("name", ["median", "median of all", "nanmedian", "cummax", "cummin"])
def test_nan(name, assert_op_parity):
    x = torch.randperm(120).reshape(2, 3, 4, 5).float()
    x[0, 1, 2, 3] = torch.nan
    assert_op_parity(CASES[name], x)


@pytest.mark.parametrize("name", ["median", "nanmedian", "mode", "cummax"])
def test_0d(name, assert_op_parity):
    dims = {"median": torch.median, "nanmedian": torch.nanmedian, "mode": torch.mode}
    fn = dims.get(name, torch.cummax)
    assert_op_parity(lambda x: fn(x, 0), torch.tensor(3.0))


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64], ids=str)
def test_places(dtype, right, assert_op_parity):
    sequence = torch.randint(0, 50, (3, 7)).sort(-1).values.to(dtype)
    values = torch.randint(0, 50, (3, 4)).to(dtype)
    assert_op_parity(lambda s, v: torch.searchsorted(s, v, right=right), sequence, values)
    assert_op_parity(lambda s, v: torch.bucketize(v, s, right=right), sequence[0], values)
    assert_op_parity(lambda s: torch.searchsorted(s, 20, right=right), sequence[0])
    assert_op_parity(
        lambda s, v: torch.searchsorted(s, v, side="right", out_int32=True), sequence, values
    )


INTERPOLATIONS = ["linear", "lower", "higher", "midpoint", "nearest"]
QUANTILES = {"quantile": torch.quantile, "nanquantile": torch.nanquantile}


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [None, 0, 1, -1])
@pytest.mark.parametrize("name", QUANTILES)
def test_quantiles_of_axes(name, dim, keepdim, assert_op_parity):
    def some(x, q):
        several = QUANTILES[name](x, q, dim, keepdim)
        return (
            several,
            QUANTILES[name](x, q[1], dim, keepdim),
            QUANTILES[name](x, 0.3, dim, keepdim),
        )

    assert_op_parity(some, torch.randn(2, 7, 3, 4), torch.tensor([0.0, 0.21, 1.0, 0.5]))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("name", QUANTILES)
def test_interpolations(name, interpolation, assert_op_parity):
    # 0.25 of nine intervals and 0.5 of eleven lie just between two values
    q = torch.tensor([0.0, 0.125, 0.25, 0.3, 0.5, 0.75, 0.9, 1.0])
    for length in (1, 2, 7, 11, 12):
        x = torch.randn(3, length)
        assert_op_parity(lambda x, q: QUANTILES[name](x, q, 1, interpolation=interpolation), x, q)
        assert_op_parity(lambda x: QUANTILES[name](x, 0.7, 1, interpolation=interpolation), x)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("name", QUANTILES)
def test_quantiles_of_nan_and_infinity(name, interpolation, assert_op_parity):
    x = torch.randn(6, 8)
    x[0, 3] = x[1, :7] = x[2] = x[3, 0] = torch.nan
    x[3, 1], x[4, 5], x[5, :] = torch.inf, -torch.inf, torch.inf
    q = torch.tensor([0.0, 0.3, 0.5, 0.95, 1.0])
    assert_op_parity(lambda x, q: QUANTILES[name](x, q, 1, interpolation=interpolation), x, q)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [None, 0])
def test_quantiles_of_a_scalar(dim, keepdim, assert_op_parity):
    x, q = torch.tensor(2.0), torch.tensor([0.2, 0.8])
    assert_op_parity(lambda x: torch.quantile(x, 0.3, dim, keepdim), x)
    assert_op_parity(lambda x, q: torch.nanquantile(x, q, dim, keepdim), x, q)


def test_a_quantile_is_one_statement(lower_op):
    lowered = lower_op(lambda x: torch.quantile(x, 0.3, 1, True), torch.randn(2, 5))
    # the places of quantiles are not rounded to float32 from torch 2.14 on
    places = ", exact_places=True" if torch.__version__ >= "2.14" else ""
    assert lowered.source == f"quantile(a, 0.3, axis=-1, keepdims=True{places})"


def test_refused(lower_op):
    with pytest.raises(Unsupported, match="sorter"):
        lower_op(lambda x: torch.searchsorted(x, x, sorter=torch.argsort(x)), torch.randn(4))
