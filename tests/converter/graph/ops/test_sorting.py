"""Values in order, and their places."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mlxport.converter.graph.ir.context import Unsupported

Fn = Callable[..., Any]

CASES: dict[str, Fn] = {
    "sort": lambda x: torch.sort(x),
    "sort channels": lambda x: torch.sort(x, 1),
    "sort descending": lambda x: torch.sort(x, 1, descending=True),
    "sort stable": lambda x: torch.sort(x, dim=1, stable=True),
    "sort stable descending": lambda x: torch.sort(x, dim=0, stable=True, descending=True),
    "argsort": lambda x: torch.argsort(x, 1),
    "argsort stable": lambda x: torch.argsort(x, dim=1, descending=True, stable=True),
    "msort": torch.msort,
    "topk": lambda x: torch.topk(x, 2),
    "topk channels": lambda x: torch.topk(x, 3, 1),
    "topk smallest": lambda x: torch.topk(x, 2, 1, largest=False),
    "topk none": lambda x: torch.topk(x, 0, 1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_distinct_values(name: str, dtype: torch.dtype, assert_op_parity: Fn) -> None:
    x = torch.randperm(120).reshape(2, 3, 4, 5).to(dtype)
    assert_op_parity(lambda x: CASES[name](x), x)


@pytest.mark.parametrize("descending", [False, True])
def test_equal_values_keep_their_sequence(descending: bool, assert_op_parity: Fn) -> None:
    x = torch.randint(0, 3, (2, 50))
    assert_op_parity(lambda x: torch.sort(x, stable=True, descending=descending), x)
    assert_op_parity(lambda x: torch.sort(x, stable=True, descending=descending), x.to(torch.uint8))


@pytest.mark.parametrize("descending", [False, True])
def test_nan_is_the_largest(descending: bool, assert_op_parity: Fn) -> None:
    x = torch.tensor([1.0, torch.nan, -torch.inf, torch.inf, 0.0])
    assert_op_parity(lambda x: torch.sort(x, descending=descending), x)
    assert_op_parity(lambda x: torch.topk(x, 3, largest=descending), x)


def test_0d(assert_op_parity: Fn, lower_op: Fn) -> None:
    x = torch.tensor(1.0)
    assert_op_parity(lambda x: torch.sort(x, 0), x)
    assert_op_parity(lambda x: torch.argsort(x), x)
    assert_op_parity(lambda x: torch.topk(x, 1), x)
    with pytest.raises(Unsupported, match="0-d"):
        lower_op(lambda x: torch.topk(x, 0), x)
