"""CTC against torch in float64: values, gradients, impossible alignments, what is out of range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxport.layers import CTCLoss
from mlxport.layers.loss.ctc import ctc_loss

REDUCTIONS = ("none", "mean", "sum")


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    steps, samples = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    lengths = [draw(st.integers(0, 4)) for _ in range(samples)]
    return {
        "steps": steps,
        "classes": draw(st.integers(2, 4)),
        "input_lengths": [draw(st.integers(0, steps)) for _ in range(samples)],
        "target_lengths": lengths,
        "padding": draw(st.integers(0, 2)),
        "in_a_row": draw(st.booleans()),
        "reduction": draw(st.sampled_from(REDUCTIONS)),
        "blank": draw(st.integers(0, 1)),
        "seed": draw(st.integers(0, 1000)),
    }


@settings(max_examples=60)
@given(problems())
def test_every_configuration(assert_module_parity: Callable[..., None], p: dict[str, Any]) -> None:
    torch.manual_seed(p["seed"])
    count, longest = len(p["target_lengths"]), max(p["target_lengths"]) + p["padding"]
    labels = torch.randint(0, p["classes"], (count, longest))
    labels[labels == p["blank"]] = 1 - p["blank"]
    if p["in_a_row"]:
        rows = zip(labels, p["target_lengths"], strict=True)
        labels = torch.cat([row[:length] for row, length in rows])
    # a log_softmax with all that is impossible left out, whose gradient would be NaN
    log_probs = (torch.randn(p["steps"], count, p["classes"]) * 2).log_softmax(-1)
    arguments = {name: p[name] for name in ("reduction", "blank")} | {"zero_infinity": True}
    assert_module_parity(
        torch.nn.CTCLoss(**arguments),
        CTCLoss(**arguments),
        log_probs,
        labels,
        torch.tensor(p["input_lengths"]),
        torch.tensor(p["target_lengths"]),
    )


@pytest.mark.parametrize("in_a_row", [False, True])
@pytest.mark.parametrize("lengths", ["sequences", "arrays"])
def test_long_sequences(
    assert_module_parity: Callable[..., None], in_a_row: bool, lengths: str
) -> None:
    log_probs = torch.randn(60, 3, 20).log_softmax(-1)
    targets = torch.randint(1, 20, (45,) if in_a_row else (3, 15))
    both = (60, 50, 41), (15, 14, 16 if in_a_row else 9)
    given = [torch.tensor(n) for n in both] if lengths == "arrays" else both
    assert_module_parity(torch.nn.CTCLoss(), CTCLoss(), log_probs, targets, *given)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_without_a_batch(assert_module_parity: Callable[..., None], reduction: str) -> None:
    log_probs, targets = torch.randn(9, 5).log_softmax(-1), torch.tensor([1, 1, 4])
    module, layer = torch.nn.CTCLoss(reduction=reduction), CTCLoss(reduction)
    assert_module_parity(module, layer, log_probs, targets, torch.tensor(8), torch.tensor(3))


def test_impossible_alignment_is_infinite_and_has_no_gradient() -> None:
    log_probs = mx.array(torch.randn(2, 2, 3).log_softmax(-1).numpy())
    targets = mx.array([[1, 1, 1], [1, 2, 2]])

    def loss(x: mx.array) -> mx.array:
        return ctc_loss(x, targets, (2, 2), (3, 1), reduction="sum")

    assert loss(log_probs).item() == float("inf")
    gradient = mx.grad(loss)(log_probs)
    assert mx.all(gradient[:, 0] == 0).item()
    assert mx.all(mx.isfinite(gradient)).item()


def test_probability_0_is_no_way(assert_module_parity: Callable[..., None]) -> None:
    log_probs = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0], [-0.7, -0.7]])
    for target in ([1], [1, 1]):
        labels, lengths = torch.tensor(target), torch.tensor(len(target))
        module, layer = torch.nn.CTCLoss(reduction="none"), CTCLoss("none")
        arguments = log_probs, labels, torch.tensor(3), lengths
        assert_module_parity(module, layer, *arguments, gradients=False)
        got = mx.grad(lambda x, y=labels: ctc_loss(x, mx.array(y), (3,), (y.numel(),)))(
            mx.array(log_probs.numpy())
        )
        assert mx.all(mx.isfinite(got)).item()


def test_half_precision_is_computed_in_float32() -> None:
    log_probs = torch.randn(40, 2, 6).log_softmax(-1)
    targets = torch.randint(1, 6, (2, 9))
    got = ctc_loss(
        mx.array(log_probs.numpy()).astype(mx.float16), mx.array(targets), (40, 30), (9, 5)
    )
    want = F.ctc_loss(log_probs.half().double(), targets, (40, 30), (9, 5))
    assert got.dtype == mx.float16
    assert got.item() == pytest.approx(want.item(), rel=1e-3)


@pytest.mark.slow
def test_compiles() -> None:
    log_probs = mx.array(torch.randn(6, 2, 4).log_softmax(-1).numpy())
    targets = mx.array([[1, 2, 3], [3, 3, 1]])
    compiled = mx.compile(mx.grad(lambda x, n: ctc_loss(x, targets, (6, 5), n)))
    got, want = (
        f(log_probs, mx.array([3, 1]))
        for f in (compiled, mx.grad(lambda x, n: ctc_loss(x, targets, (6, 5), n)))
    )
    np.testing.assert_allclose(np.array(got), np.array(want), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("targets", "input_lengths", "target_lengths", "unsound"),
    [
        ([[1, 2], [5, 1]], (4, 4), (2, 2), [False, True]),
        ([[1, 2], [-1, 1]], (4, 4), (2, 2), [False, True]),
        ([[1, -1], [5, 1]], (4, 4), (1, 0), [False, False]),
        ([[1, 2], [1, 2]], (5, -1), (1, 1), [True, True]),
        ([[1, 2], [1, 2]], (4, 4), (3, -1), [True, True]),
    ],
    ids=["class", "negative", "behind_the_end", "input_lengths", "target_lengths"],
)
def test_out_of_range_gives_nan(
    targets: list[list[int]],
    input_lengths: Sequence[int],
    target_lengths: Sequence[int],
    unsound: list[bool],
) -> None:
    log_probs = mx.zeros((4, 2, 3))
    got = ctc_loss(log_probs, mx.array(targets), input_lengths, target_lengths, reduction="none")
    assert mx.isnan(got).tolist() == unsound


@pytest.mark.parametrize(
    ("log_probs", "targets", "lengths", "blank", "message"),
    [
        ((4,), (2,), ((4,), (2,)), 0, "needs log_probs"),
        ((4, 2, 3), (3, 2), ((4, 4), (2, 2)), 0, "needs log_probs"),
        ((4, 2, 3), (2, 2), ((4,), (2, 2)), 0, "needs log_probs"),
        ((4, 2, 3), (3,), ((4, 4), (2, 2)), 0, "add up to 4, but 'targets' holds 3"),
        ((4, 2, 3), (2, 2), ((4, 4), (2, 2)), 3, "'blank' must be one of 3"),
        ((4, 0, 3), (0, 2), ((), ()), 0, "at least one sample"),
        ((4, 0, 3), (2,), ((), ()), 0, "at least one sample"),
    ],
    ids=["axes", "samples", "lengths", "too_few", "blank", "no_samples", "no_samples_in_a_row"],
)
def test_refuses(
    log_probs: tuple[int, ...],
    targets: tuple[int, ...],
    lengths: tuple[tuple[int, ...], tuple[int, ...]],
    blank: int,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        ctc_loss(mx.zeros(log_probs), mx.ones(targets, mx.int64), *lengths, blank)


def test_refuses_a_reduction() -> None:
    with pytest.raises(ValueError, match="'reduction' must be one of"):
        ctc_loss(mx.zeros((4, 2, 3)), mx.ones((2, 1), mx.int64), (4, 4), (1, 1), 0, "median")
