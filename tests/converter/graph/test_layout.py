"""Chains of operations on a value that is not stored in PyTorch's order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mlxport

Shape = tuple[int, ...]
Op = tuple[str, Callable[[nn.ParameterList, torch.Tensor], torch.Tensor], int]
LARGEST = 4096


class Chain(nn.Module):
    """A convolution, whose output MLX stores channels-last, and a chain of operations on it."""

    def __init__(self, ops: list[Op], weights: list[torch.Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.weights = nn.ParameterList(weights)
        self.ops = [fn for _, fn, _ in ops]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        for op in self.ops:
            x = op(self.weights, x)
        return x


def moving(draw: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> Op:
    dims = draw(st.permutations(range(x.ndim)))
    return f"permute{tuple(dims)}", lambda w, x: x.permute(dims), int(list(dims) != sorted(dims))


def swapping(draw: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> Op:
    a, b = draw(st.integers(0, x.ndim - 1)), draw(st.integers(-x.ndim, -1))
    return f"transpose({a}, {b})", lambda w, x: x.transpose(a, b), int(a != b + x.ndim)


def merging(draw: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> Op:
    start = draw(st.integers(0, x.ndim - 1))
    end = draw(st.integers(start, x.ndim - 1))
    return f"flatten({start}, {end})", lambda w, x: x.flatten(start, end), 0


def splitting(draw: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> Op:
    axis = draw(st.integers(0, x.ndim - 1))
    size = x.shape[axis]
    first = draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
    sizes = (first, size // first)
    return f"unflatten({axis}, {sizes})", lambda w, x: x.unflatten(axis, sizes), 0


def adding_an_axis(draw: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> Op:
    axis = draw(st.integers(0, x.ndim))
    return f"unsqueeze({axis})", lambda w, x: x.unsqueeze(axis), 0


def dropping_ones(draw: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> Op:
    return "squeeze", lambda w, x: x.squeeze(), 0


def pointwise(draw: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> Op:
    return "sin", lambda w, x: torch.sin(x) * 2, 0


def biased(draw: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> Op:
    rank = draw(st.integers(1, x.ndim))
    shape = [draw(st.sampled_from([1, n])) for n in x.shape[x.ndim - rank :]]
    weights.append(torch.randn(shape))
    i = len(weights) - 1
    return f"+ weights[{i}]", lambda w, x: x + w[i], 0


def softmax(draw: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> Op:
    dim = draw(st.integers(-x.ndim, x.ndim - 1))
    return f"softmax({dim})", lambda w, x: x.softmax(dim), 0


def mean(draw: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> Op:
    dim, keep = draw(st.integers(0, x.ndim - 1)), draw(st.booleans()) or x.ndim < 3
    return f"mean({dim}, {keep})", lambda w, x: x.mean(dim, keepdim=keep), 0


def normalised(draw: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> Op:
    return "layer_norm", lambda w, x: nn.functional.layer_norm(x, x.shape[-1:]) + x, 0


def sliced(draw: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> Op:
    axis = draw(st.integers(0, x.ndim - 1))
    start = draw(st.integers(0, x.shape[axis] - 1))
    return f"narrow({axis}, {start})", lambda w, x: x.narrow(axis, start, x.shape[axis] - start), 0


def taken_apart(draw: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> Op:
    axis = draw(st.integers(0, x.ndim - 1))

    def parts(w: nn.ParameterList, x: torch.Tensor) -> torch.Tensor:
        first, *_, last = x.unbind(axis) if x.shape[axis] > 1 else (x.select(axis, 0), x[:0], x)
        return first.transpose(0, -1) * last.transpose(0, -1)

    if x.ndim < 3 or x.shape[axis] < 2:
        return pointwise(draw, x, weights)
    return f"unbind({axis})", parts, 2


def joined(draw: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> Op:
    axis = draw(st.integers(0, x.ndim - 1))
    return f"cat({axis})", lambda w, x: torch.cat([x, x.sin()], axis), 0


def multiplied(draw: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> Op:
    weights.append(torch.randn(x.shape[-1], 3))
    i = len(weights) - 1
    return f"@ weights[{i}]", lambda w, x: x @ w[i], 0


def gram(draw: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> Op:
    return "x @ x.mT", lambda w, x: x.cos() @ x.transpose(-1, -2), 1


def contracted(draw: Any, x: torch.Tensor, weights: list[torch.Tensor]) -> Op:
    return "einsum", lambda w, x: torch.einsum("...ij,...kj->i...k", x, x.sin()), 0


MAKERS = [
    *(moving, swapping, merging, splitting) * 2,
    *(adding_an_axis, dropping_ones, pointwise, biased, softmax, mean, normalised, sliced),
    *(taken_apart, joined, multiplied, gram, contracted),
]


@st.composite
def chains(draw: Any) -> tuple[torch.Tensor, list[Op], list[torch.Tensor]]:
    """An input, operations that can follow one another, and the weights they take."""
    batch = draw(st.sampled_from([1, 2]))
    x = torch.randn(batch, 4, 3, 5)
    ops: list[Op] = []
    weights: list[torch.Tensor] = []
    for _ in range(draw(st.integers(1, 7))):
        op = draw(st.sampled_from(MAKERS))(draw, x, weights)
        y = op[1](weights, x)  # type: ignore[arg-type]
        if 2 <= y.ndim <= 6 and 0 < math.prod(y.shape) <= LARGEST:
            ops.append(op)
            x = y
    return torch.randn(batch, 3, 3, 5), ops, weights


@pytest.mark.slow
@given(chains())
@settings(max_examples=40)
def test_a_chain_is_right_and_moves_no_more_than_if_all_lay_in_pytorchs_order(case: Any) -> None:
    x, ops, weights = case
    torch.manual_seed(0)
    result = mlxport.convert(Chain(ops, weights).eval(), x)
    names = [name for name, _, _ in ops]
    assert result.report.passed, f"{names}\n{result.source}\n{result.report.to_text()}"
    naive = 2 + sum(moves for _, _, moves in ops)  # the convolution's input and output
    assert result.conversion.transposes <= naive, f"{names}\n{result.source}"
