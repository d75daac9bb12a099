"""Rows shortened to a norm, against what torch leaves in its table."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers import Embedding
from mlxport.layers.embedding.embedding import renormalised


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 2.5, float("inf")])
def test_renormalised(norm_type: float) -> None:
    rows = torch.randn(20, 4)
    table = rows.clone()
    torch.embedding_renorm_(table, torch.arange(20), 2.0, norm_type)
    got = np.array(renormalised(mx.array(rows.numpy()), 2.0, norm_type))
    np.testing.assert_allclose(got, table.numpy(), rtol=1e-6)
    assert (got == rows.numpy()).all(axis=1).any(), "no row is short enough to stay"


def test_null_row_stays() -> None:
    assert renormalised(mx.zeros((2, 3)), 1.0).tolist() == [[0.0] * 3] * 2


def test_gradients_pass_as_if_nothing_was_shortened() -> None:
    layer = Embedding(5, 3, max_norm=0.01)
    gradient = mx.grad(lambda w: (layer.update({"weight": w}), layer(mx.array([1, 1])).sum())[1])
    got = gradient(mx.ones((5, 3)))
    np.testing.assert_allclose(np.array(got), np.eye(5)[:, 1:2] * np.full((1, 3), 2.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((3, 4, 3), "padding_idx"), ((3, 4, -4), "padding_idx"), ((-1, 4), "num_embeddings=-1")],
    ids=str,
)
def test_what_cannot_be_is_refused(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^\[Embedding\].*{message}"):
        Embedding(*arguments)


def test_padding_starts_as_zeros_and_is_shown() -> None:
    layer = Embedding(3, 4, padding_idx=-1, max_norm=2.0)
    assert layer(mx.array([2])).tolist() == [[0.0] * 4]
    assert repr(layer) == "Embedding(3, 4, padding_idx=2, max_norm=2.0, norm_type=2.0)"
