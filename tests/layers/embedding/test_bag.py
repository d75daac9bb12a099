"""Bags of rows where the rule's tests do not reach: every configuration, odd bags, odd shapes."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlxport.layers import EmbeddingBag
from mlxport.layers.embedding.bag import embedding_bag


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=5),
    st.sampled_from(["sum", "mean", "max"]),
    st.booleans(),
    st.sampled_from([None, 0, 3]),
    st.integers(0, 100),
)
def test_bags_of_every_size(
    assert_module_parity: Callable[..., None],
    sizes: list[int],
    mode: str,
    include_last_offset: bool,
    padding_idx: int | None,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    indices = torch.randint(0, 5, (sum(sizes),))
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    arguments = {
        "mode": mode,
        "include_last_offset": include_last_offset,
        "padding_idx": padding_idx,
    }
    module = torch.nn.EmbeddingBag(5, 3, **arguments)
    torch.nn.init.normal_(module.weight)
    layer = EmbeddingBag(5, 3, **arguments)
    assert_module_parity(module, layer, indices, offsets if include_last_offset else offsets[:-1])


def test_bag_of_negative_rows_is_not_raised_to_0() -> None:
    got = embedding_bag(-mx.ones((3, 2)), mx.array([[0, 1], [2, 2]]), mode="max")
    np.testing.assert_array_equal(np.array(got), -np.ones((2, 2)))


def test_nan_shows() -> None:
    table = mx.array([[1.0], [float("nan")], [2.0]])
    got = embedding_bag(table, mx.array([[0, 1], [1, 2], [0, 2]]), mode="max")
    assert mx.isnan(got).tolist() == [[True], [True], [False]]


def test_large_half_precision_bags_do_not_overflow() -> None:
    table = mx.full((2, 3), 1000.0, mx.float16)
    got = embedding_bag(table, mx.zeros((1, 500), mx.int32), mode="mean")
    assert got.dtype == mx.float16
    np.testing.assert_array_equal(np.array(got), np.full((1, 3), 1000.0))


TABLE, ROW, OFFSETS = mx.ones((3, 2)), mx.array([0, 1]), mx.array([0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: embedding_bag(TABLE, ROW), r"must be \(I,\) with offsets"),
        (lambda: embedding_bag(TABLE, ROW[None], OFFSETS), r"\(B, L\) without"),
        (lambda: embedding_bag(TABLE, ROW[None, None]), r"\(B, L\) without"),
        (lambda: embedding_bag(TABLE, ROW, OFFSETS[None]), r"must be \(I,\) with offsets"),
        (lambda: embedding_bag(TABLE, ROW, OFFSETS, "median"), "'mode' must be one of"),
        (
            lambda: embedding_bag(TABLE, ROW, OFFSETS, "mean", mx.ones(2)),
            "go with mode='sum'",
        ),
        (
            lambda: embedding_bag(TABLE, ROW, OFFSETS, "sum", mx.ones(3)),
            r"shape of the indices, \(2,\), but got \(3,\)",
        ),
    ],
    ids=["no_offsets", "offsets", "axes", "offset_axes", "mode", "weights", "weight_shape"],
)
def test_refuses(call: Callable[[], mx.array], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
