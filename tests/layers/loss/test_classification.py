"""Losses over classes against torch in float64, over their configuration space and at its edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlxport.layers import CrossEntropyLoss, NLLLoss
from mlxport.layers.loss.classification import cross_entropy, linear_cross_entropy, nll_loss

sizes = st.integers(1, 4)
shapes = st.one_of(
    st.tuples(sizes),
    st.tuples(sizes, sizes),
    st.tuples(sizes, sizes, sizes),
    st.tuples(sizes, sizes, sizes, sizes, sizes),
)
arguments = st.fixed_dictionaries(
    {
        "reduction": st.sampled_from(["none", "mean", "sum"]),
        "ignore_index": st.sampled_from([-100, -1, 0, 1]),
    }
)


def drawn(shape: tuple[int, ...], weighted: bool, ignore_index: int) -> tuple[Any, Any, Any]:
    """Logits, classes of which some are ignored, and weights."""
    torch.manual_seed(0)
    axis = min(1, len(shape) - 1)
    target = torch.randint(0, shape[axis], shape[:axis] + shape[axis + 1 :])
    target[torch.rand(target.shape) < 0.3] = ignore_index if ignore_index < shape[axis] else 0
    return torch.randn(shape) * 3, target, torch.rand(shape[axis]) + 0.1 if weighted else None


@given(shapes, st.booleans(), arguments, st.sampled_from([0.0, 0.2, 1.0]))
def test_cross_entropy_of_classes(
    assert_module_parity: Callable[..., None],
    shape: tuple[int, ...],
    weighted: bool,
    given: dict[str, Any],
    label_smoothing: float,
) -> None:
    x, target, weight = drawn(shape, weighted, given["ignore_index"])
    given = {**given, "label_smoothing": label_smoothing}
    layer = CrossEntropyLoss(weight_shape=None if weight is None else tuple(weight.shape), **given)
    assert_module_parity(torch.nn.CrossEntropyLoss(weight, **given), layer, x, target)


@given(shapes, st.booleans(), st.sampled_from(["none", "mean", "sum"]), st.sampled_from([0.0, 0.3]))
def test_cross_entropy_of_probabilities(
    assert_module_parity: Callable[..., None],
    shape: tuple[int, ...],
    weighted: bool,
    reduction: str,
    label_smoothing: float,
) -> None:
    x, _, weight = drawn(shape, weighted, 0)
    target = torch.rand(shape)
    given = {"reduction": reduction, "label_smoothing": label_smoothing}
    layer = CrossEntropyLoss(weight_shape=None if weight is None else tuple(weight.shape), **given)
    assert_module_parity(torch.nn.CrossEntropyLoss(weight, **given), layer, x, target)


@given(shapes, st.booleans(), arguments)
def test_nll(
    assert_module_parity: Callable[..., None],
    shape: tuple[int, ...],
    weighted: bool,
    given: dict[str, Any],
) -> None:
    x, target, weight = drawn(shape, weighted, given["ignore_index"])
    layer = NLLLoss(weight_shape=None if weight is None else tuple(weight.shape), **given)
    assert_module_parity(torch.nn.NLLLoss(weight, **given), layer, x, target)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_empty_batch(assert_module_parity: Callable[..., None], reduction: str) -> None:
    x, target = torch.zeros(0, 3, 2), torch.zeros(0, 2, dtype=torch.int64)
    module, layer = torch.nn.CrossEntropyLoss(reduction=reduction), CrossEntropyLoss(reduction)
    assert_module_parity(module, layer, x, target, gradients=False)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_many_classes(assert_module_parity: Callable[..., None], label_smoothing: float) -> None:
    x, target = torch.randn(4, 50000), torch.randint(0, 50000, (4,))
    arguments = {"label_smoothing": label_smoothing}
    module = torch.nn.CrossEntropyLoss(**arguments)
    assert_module_parity(module, CrossEntropyLoss(**arguments), x, target)


@pytest.mark.parametrize("offset", [1e4, -1e4, 1e30])
def test_large_logits(assert_module_parity: Callable[..., None], offset: float) -> None:
    x = torch.randn(4, 5) + offset
    target = torch.tensor([0, 1, 2, 3])
    assert_module_parity(torch.nn.CrossEntropyLoss(), CrossEntropyLoss(), x, target)


def test_class_that_is_ruled_out(assert_module_parity: Callable[..., None]) -> None:
    x = torch.tensor([[1.0, -torch.inf, 2.0], [-torch.inf, 0.0, -torch.inf]])
    module, layer = torch.nn.CrossEntropyLoss(reduction="none"), CrossEntropyLoss("none")
    assert_module_parity(module, layer, x, torch.tensor([0, 1]))
    assert_module_parity(module, layer, x, torch.tensor([1, 0]), gradients=False)


@pytest.mark.parametrize("dtype", [mx.uint8, mx.int8, mx.int32, mx.uint32, mx.int64], ids=str)
@pytest.mark.parametrize("loss", [cross_entropy, nll_loss])
def test_integers_of_every_kind(loss: Callable[..., mx.array], dtype: mx.Dtype) -> None:
    x = mx.log(mx.softmax(mx.random.normal((200, 200)), axis=1))
    target = mx.arange(200).astype(dtype)
    want = -mx.take_along_axis(x, target.astype(mx.int64)[:, None], axis=1).squeeze(1)
    got = loss(x, target, reduction="none")
    known = target.astype(mx.int64) >= 0  # of int8 some have become negative
    np.testing.assert_allclose(
        np.array(mx.where(known, got, 0)), np.array(mx.where(known, want, 0)), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("weight", [None, mx.ones(3)], ids=["plain", "weighted"])
@pytest.mark.parametrize("loss", [cross_entropy, nll_loss])
def test_class_out_of_range_is_nan(loss: Callable[..., mx.array], weight: mx.array | None) -> None:
    target = mx.array([0, 3, -1, -100])
    got = loss(mx.zeros((4, 3)), target, weight, reduction="none")
    assert mx.isnan(got).tolist() == [False, True, True, False]
    assert mx.isnan(loss(mx.zeros((4, 3)), target, weight)).item()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_linear_is_linear_then_cross_entropy(label_smoothing: float) -> None:
    x, weight, bias = mx.random.normal((4, 3)), mx.random.normal((5, 2, 3)), mx.ones((5, 2))
    target = mx.array([[0, 1], [4, -100], [2, 2], [3, 0]])
    logits = (x @ weight.reshape(10, 3).T).reshape(4, 5, 2) + bias
    got = linear_cross_entropy(x, weight, target, bias, label_smoothing=label_smoothing)
    want = cross_entropy(logits, target, label_smoothing=label_smoothing)
    assert got.item() == pytest.approx(want.item(), rel=1e-6)


CLASSES = mx.array([0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cross_entropy(mx.zeros((2, 3)), mx.zeros((3, 2), mx.int32)), "shape \\(2,\\)"),
        (lambda: cross_entropy(mx.zeros((2, 3)), mx.zeros((2,))), "must hold integers"),
        (lambda: cross_entropy(mx.zeros((2, 3)), mx.zeros((2, 3), mx.int32)), "must be floating"),
        (lambda: cross_entropy(mx.zeros((2, 3)), CLASSES, mx.ones(2)), "'weight' \\(C,\\)"),
        (lambda: cross_entropy(mx.zeros(()), mx.array(0)), "input must be"),
        (
            lambda: cross_entropy(mx.zeros((2, 3)), mx.zeros((2, 3)), ignore_index=1),
            "not for probabilities",
        ),
        (
            lambda: cross_entropy(mx.zeros((2, 3)), CLASSES, label_smoothing=1.1),
            "from 0 to 1 but got 1.1",
        ),
        (
            lambda: cross_entropy(mx.zeros((2, 3)), CLASSES, reduction="median"),
            "'reduction' must be one of",
        ),
        (lambda: nll_loss(mx.zeros((2, 3)), mx.zeros((2, 3), mx.int32)), "shape \\(2,\\)"),
        (
            lambda: linear_cross_entropy(
                mx.zeros((2, 3)), mx.ones((5, 3)), mx.zeros((2, 5)), ignore_index=-100
            ),
            "not for probabilities",
        ),
    ],
    ids=range(10),
)
def test_refuses(call: Callable[[], mx.array], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
