"""What `layers.MultiheadAttention` refuses: what torch's does, with all that is wrong listed."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
import torch

from mlxport import layers

EMBED = 8
X = torch.zeros(4, 3, EMBED)
TRUE, ZERO = torch.ones(1, dtype=torch.bool), torch.zeros(1)
REFUSED: dict[str, tuple[dict[str, Any], tuple[Any, ...], dict[str, Any], str]] = {
    "one_dimension": ({}, (X[0, 0],) * 3, {}, "dimensions"),
    "four_dimensions": ({}, (X[None],) * 3, {}, "dimensions"),
    "batch_in_the_query_only": ({}, (X, X[:, 0], X[:, 0]), {}, "dimensions"),
    "batch_in_the_key_only": ({}, (X[:, 0], X, X), {}, "dimensions"),
    "query_features": ({}, (X[..., :4], X, X), {}, "has 4 features, expected 8"),
    "key_features": ({"kdim": 5}, (X, X, X), {}, "key of shape .* expected 5"),
    "value_features": ({"vdim": 5}, (X, X, X), {}, "value of shape .* expected 5"),
    "value_shorter_than_key": ({}, (X, X, X[:3]), {}, "differ in length"),
    "separate_value_shorter": ({"kdim": EMBED, "vdim": 5}, (X, X, X[:3, :, :5]), {}, "differ in"),
    "batches_differ": ({}, (X, X[:, :2], X[:, :2]), {}, "differ in batch"),
    "hint_without_mask": ({}, (X, X, X), {"is_causal": True}, "causal"),
    "integer_mask": ({}, (X,) * 3, {"attn_mask": torch.zeros(4, 4).int()}, "int32"),
    "integer_padding": ({}, (X,) * 3, {"key_padding_mask": torch.zeros(3, 4).int()}, "int32"),
    "mask_of_one_dimension": ({}, (X,) * 3, {"attn_mask": ZERO.expand(4)}, "attn_mask has shape"),
    "mask_of_four_dimensions": ({}, (X,) * 3, {"attn_mask": ZERO.expand(3, 2, 4, 4)}, "attn_mask"),
    "mask_transposed": ({}, (X, X[:3], X[:3]), {"attn_mask": TRUE.expand(3, 4)}, r"\(4, 3\)"),
    "mask_per_batch": ({}, (X,) * 3, {"attn_mask": ZERO.expand(3, 4, 4)}, r"\(6, 4, 4\)"),
    "mask_to_broadcast": ({}, (X,) * 3, {"attn_mask": TRUE.expand(1, 4, 4)}, r"\(6, 4, 4\)"),
    "mask_per_head_without_batch": (
        {},
        (X[:, 0],) * 3,
        {"attn_mask": ZERO.expand(3, 4, 4)},
        r"\(2, 4, 4\)",
    ),
    "padding_transposed": ({}, (X,) * 3, {"key_padding_mask": TRUE.expand(4, 3)}, r"\(3, 4\)"),
    "padding_without_batch": ({}, (X,) * 3, {"key_padding_mask": TRUE.expand(4)}, r"\(3, 4\)"),
    "padding_with_batch": ({}, (X[:, 0],) * 3, {"key_padding_mask": TRUE.expand(1, 4)}, r"\(4,\)"),
    "half_mask": ({}, (X,) * 3, {"attn_mask": torch.zeros(4, 4).half()}, "float16"),
    "half_padding": ({}, (X,) * 3, {"key_padding_mask": torch.zeros(3, 4).half()}, "float16"),
}


def mlx(value: Any) -> Any:
    return mx.array(value.numpy()) if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("need_weights", [True, False], ids=["weights", "no_weights"])
@pytest.mark.parametrize(
    ("arguments", "inputs", "keywords", "message"), REFUSED.values(), ids=REFUSED
)
def test_what_torch_refuses_is_refused(
    arguments: dict[str, Any],
    inputs: tuple[Any, ...],
    keywords: dict[str, Any],
    message: str,
    need_weights: bool,
) -> None:
    module = torch.nn.MultiheadAttention(EMBED, 2, **arguments)
    layer = layers.MultiheadAttention(EMBED, 2, **arguments)
    with pytest.raises((AssertionError, RuntimeError)):
        module(*inputs, **keywords, need_weights=need_weights)
    keywords = {name: mlx(value) for name, value in keywords.items()}
    with pytest.raises(ValueError, match=message):
        layer(*map(mlx, inputs), **keywords, need_weights=need_weights)


@pytest.mark.parametrize(
    "arguments",
    [(8, 3), (0, 1), (8, 0), (-8, 2), (8, -2)],
    ids=str,
)
def test_constructors_refuse_alike(arguments: tuple[int, int]) -> None:
    with pytest.raises((ValueError, AssertionError)):
        torch.nn.MultiheadAttention(*arguments)
    with pytest.raises(ValueError, match="must be"):
        layers.MultiheadAttention(*arguments)


@pytest.mark.parametrize("dropout", [-0.1, 1.1])
def test_dropout_is_a_probability(dropout: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        layers.MultiheadAttention(8, 2, dropout=dropout)


def test_all_problems_are_listed_at_once() -> None:
    layer = layers.MultiheadAttention(EMBED, 2)
    x = mx.zeros((4, 3, EMBED))
    masks = {"attn_mask": mx.zeros((4, 5)), "key_padding_mask": mx.zeros((3, 9), mx.int32)}
    with pytest.raises(ValueError, match=r"\(4, 5\).*\(3, 9\).*int32"):
        layer(x, x, x, **masks)
