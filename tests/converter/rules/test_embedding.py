from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mlxport.converter.errors import UnsupportedError
from mlxport.converter.rules.build import build_layer

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)], ids=str)
@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
def test_embedding(
    assert_layer_parity: Callable[..., None],
    shape: tuple[int, ...],
    index: torch.dtype,
    dtype: torch.dtype,
) -> None:
    indices = torch.randint(0, 7, shape, dtype=index)
    assert_layer_parity(torch.nn.Embedding(7, 4), indices, dtype=dtype, gradients=True)


def test_padding_index_is_a_row_like_any_other(assert_layer_parity: Callable[..., None]) -> None:
    module = torch.nn.Embedding(7, 4, padding_idx=2)
    with torch.no_grad():
        module.weight.normal_()
    assert_layer_parity(module, torch.tensor([2, 0, 2]))


def test_max_norm_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="rewrites the table"):
        build_layer(torch.nn.Embedding(7, 4, max_norm=1.0))
