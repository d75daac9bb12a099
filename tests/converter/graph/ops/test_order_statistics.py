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


def test_quantiles(assert_op_parity):
    assert_op_parity(lambda x: torch.quantile(x, 0.3, dim=1), torch.randn(2, 7, 3))
    assert_op_parity(lambda x: torch.nanquantile(x, 0.5, dim=1), torch.randn(2, 7, 3))


def test_refused(lower_op):
    with pytest.raises(Unsupported, match="sorter"):
        lower_op(lambda x: torch.searchsorted(x, x, sorter=torch.argsort(x)), torch.randn(4))
