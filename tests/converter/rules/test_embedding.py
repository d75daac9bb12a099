from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
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


@pytest.mark.parametrize("padding", [2, -1])
@pytest.mark.parametrize("max_norm", [None, 1.5])
def test_padding_index_is_a_row_that_is_not_learnt(
    assert_layer_parity: Callable[..., None], padding: int, max_norm: float | None
) -> None:
    module = torch.nn.Embedding(7, 4, padding_idx=padding, max_norm=max_norm)
    with torch.no_grad():
        module.weight.normal_()
    assert_layer_parity(module, torch.tensor([[2, 0], [2, 6]]), gradients=True)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_max_norm(
    assert_layer_parity: Callable[..., None], norm_type: float, dtype: torch.dtype
) -> None:
    module = torch.nn.Embedding(7, 4, max_norm=1.5, norm_type=norm_type)
    exact = dtype is torch.float32
    assert_layer_parity(module, torch.tensor([[2, 0], [2, 5]]), dtype=dtype, gradients=exact)


def test_max_norm_leaves_the_table() -> None:
    module = torch.nn.Embedding(7, 4, max_norm=0.1)
    layer = build_layer(module)
    before = np.array(layer.weight)
    mx.eval(layer(mx.arange(7)))
    np.testing.assert_array_equal(np.array(layer.weight), before)


BAGS = {
    "fixed": (torch.tensor([[1, 2, 2], [5, 0, 3]]),),
    "offsets": (torch.tensor([1, 2, 2, 5, 0, 3, 6]), torch.tensor([0, 3, 4])),
    "int32": (
        torch.tensor([1, 2, 2, 5], dtype=torch.int32),
        torch.tensor([0, 3], dtype=torch.int32),
    ),
    "empty_bags": (torch.tensor([1, 2, 5]), torch.tensor([0, 0, 2, 2, 3, 3])),
    "nothing": (torch.tensor([], dtype=torch.int64), torch.tensor([0, 0])),
}


@pytest.mark.parametrize("padding_idx", [None, 2, -2])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("name", BAGS)
def test_embedding_bag(
    assert_layer_parity: Callable[..., None], name: str, mode: str, padding_idx: int | None
) -> None:
    module = torch.nn.EmbeddingBag(7, 4, mode=mode, padding_idx=padding_idx)
    torch.nn.init.normal_(module.weight)
    assert_layer_parity(module, *BAGS[name], gradients=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bag_dtypes(
    assert_layer_parity: Callable[..., None], mode: str, dtype: torch.dtype
) -> None:
    module = torch.nn.EmbeddingBag(7, 40, mode=mode)
    assert_layer_parity(module, torch.randint(0, 7, (3, 200)), dtype=dtype)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_last_offset_ends_the_last_bag(assert_layer_parity: Callable[..., None], mode: str) -> None:
    module = torch.nn.EmbeddingBag(7, 4, mode=mode, include_last_offset=True)
    inputs = torch.tensor([1, 2, 2, 5, 0]), torch.tensor([0, 3, 3, 5])
    assert_layer_parity(module, *inputs, gradients=True)


@pytest.mark.parametrize("padding_idx", [None, 2])
def test_weights_of_samples(
    assert_layer_parity: Callable[..., None], padding_idx: int | None
) -> None:
    module = torch.nn.EmbeddingBag(7, 4, mode="sum", padding_idx=padding_idx)
    inputs = torch.tensor([1, 2, 2, 5]), torch.tensor([0, 3]), torch.randn(4)
    assert_layer_parity(module, *inputs, gradients=True)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bag_with_max_norm(assert_layer_parity: Callable[..., None], mode: str) -> None:
    module = torch.nn.EmbeddingBag(7, 4, mode=mode, max_norm=1.0, norm_type=1.0)
    assert_layer_parity(module, *BAGS["offsets"], gradients=True)


def test_of_equal_maxima_the_first_takes_the_gradient(
    assert_layer_parity: Callable[..., None],
) -> None:
    module = torch.nn.EmbeddingBag(3, 2, mode="max")
    torch.nn.init.ones_(module.weight)
    assert_layer_parity(module, torch.tensor([[1, 0, 2], [2, 2, 0]]), gradients=True)


def test_unknown_mode_is_refused() -> None:
    module = torch.nn.EmbeddingBag(7, 4)
    module.mode = "median"
    with pytest.raises(UnsupportedError, match="mode='median' is not one of"):
        build_layer(module)
