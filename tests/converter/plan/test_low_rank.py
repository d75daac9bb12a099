"""What an adapter adds to a weight: the layer of the sum does what layer and adapter do apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mlxport.converter.errors import ConversionError
from mlxport.converter.plan import low_rank
from mlxport.converter.plan.fold_steps import AddScaled, MergeLowRank
from mlxport.converter.plan.json_data import from_data, to_data
from mlxport.converter.plan.low_rank import WeightAxes
from mlxport.converter.plan.steps import Step, folds
from mlxport.converter.plan.tensor import TensorSpec, to_float64
from mlxport.converter.plan.torch_tensor import tensor_from_torch, tensor_to_torch

Layer = Callable[[int, int], torch.nn.Module]

KINDS: dict[str, tuple[WeightAxes, Callable[..., Any], tuple[int, ...]]] = {
    "linear": ("out_in", torch.nn.Linear, (2, 5)),
    "1-d": ("out_in", lambda i, o, k=3, **b: torch.nn.Conv1d(i, o, k, **b), (2, 5, 7)),
    "2-d": ("out_in", lambda i, o, k=(2, 3), **b: torch.nn.Conv2d(i, o, k, **b), (2, 5, 4, 7)),
    "3-d": ("out_in", lambda i, o, k=2, **b: torch.nn.Conv3d(i, o, k, **b), (2, 5, 3, 4, 5)),
    "transposed, 1-d": (
        "transposed",
        lambda i, o, k=3, **b: torch.nn.ConvTranspose1d(i, o, k, stride=1 if k == 1 else 2, **b),
        (2, 5, 4),
    ),
    "transposed, 3-d": (
        "transposed",
        lambda i, o, k=(2, 3, 1), **b: torch.nn.ConvTranspose3d(
            i, o, k, stride=1 if k == 1 else (2, 1, 2), **b
        ),
        (2, 5, 3, 2, 2),
    ),
}


@pytest.mark.parametrize(
    ("columns", "rows"),
    [(2, [6, 5]), (4, [3, 3, 3, 2]), (12, [1] * 11), (13, [1] * 11)],
    ids=["six rows", "three rows", "one row", "a row too long"],
)
def test_a_block_is_as_many_whole_rows_as_fit(
    columns: int, rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(low_rank, "_BLOCK", 12)
    weight, down, up = np.zeros((11, columns)), np.ones((1, columns)), np.ones((11, 1))
    parts = [part for part, _ in low_rank.with_low_rank(weight, down, up, 1.0, "out_in")]
    assert [len(weight[part]) for part in parts] == rows
    assert np.array_equal(np.concatenate([np.arange(11)[part] for part in parts]), np.arange(11))


@pytest.mark.parametrize("block", [1 << 22, 7], ids=["in one block", "in many"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_is_both(kind: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(low_rank, "_BLOCK", block)
    axes, layer, shape = KINDS[kind]
    pointwise = {} if kind == "linear" else {"k": 1}
    base, down = layer(5, 6).double(), layer(5, 3, bias=False).double()
    up = layer(3, 6, **pointwise, bias=False).double()
    x = torch.randn(shape, dtype=torch.float64)
    tensors = tuple(tensor_from_torch(m.weight.detach().clone()) for m in (base, down, up))
    with torch.no_grad():
        want = base(x) + 1.5 * up(down(x))
        (merged,) = MergeLowRank(1.5, axes).apply(tensors)
        base.weight.copy_(tensor_to_torch(merged))
        torch.testing.assert_close(base(x), want, rtol=1e-12, atol=1e-12)
    back = MergeLowRank(1.5, axes).without((merged, *tensors[1:]), "F64")
    np.testing.assert_allclose(to_float64(back), to_float64(tensors[0]), rtol=1e-9, atol=1e-12)


def test_of_a_table() -> None:
    table, down, up = torch.randn(7, 4), torch.randn(3, 7), torch.randn(4, 3)
    (merged,) = MergeLowRank(0.5, "in_out").apply(tuple(map(tensor_from_torch, (table, down, up))))
    want = table.double() + 0.5 * (up.double() @ down.double()).T
    assert torch.equal(tensor_to_torch(merged), want.float())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_is_rounded_once_to_the_dtype_of_the_weight(dtype: torch.dtype) -> None:
    weight, down, up = torch.randn(6, 5).to(dtype), torch.randn(2, 5), torch.randn(6, 2)
    tensors = tuple(map(tensor_from_torch, (weight, down, up)))
    (merged,) = MergeLowRank(1.5, "out_in").apply(tensors)
    want = (weight.double() + 1.5 * up.double() @ down.double()).to(dtype)
    got = tensor_to_torch(merged)
    assert got.dtype == dtype
    # the product may add up in another order, and so round the other way at a tie
    assert int((got != want).sum()) <= 1


def test_what_follows_is_handed_on() -> None:
    weight, down, up, more = (tensor_from_torch(torch.ones(1, 1) * n) for n in (1, 2, 3, 4))
    merged, last = MergeLowRank(1.0, "out_in").apply((weight, down, up, more))
    assert float(to_float64(merged).item()) == 7
    assert last is more
    total, last = AddScaled(2.0).apply((weight, up, more))
    assert float(to_float64(total).item()) == 7
    assert last is more
    assert float(to_float64(AddScaled(2.0).without((total, up), "F32")).item()) == 1


def test_outlines_are_not_computed_with() -> None:
    shapes = ((50_000, 40_000), (8, 40_000), (50_000, 8))
    outlines = tuple(TensorSpec("F32", shape).outline() for shape in shapes)
    (merged,) = MergeLowRank(1.0, "out_in").apply(outlines)
    assert TensorSpec.of(merged) == TensorSpec("F32", shapes[0])


@pytest.mark.parametrize("step", [MergeLowRank(0.5, "transposed"), AddScaled(0.25)], ids=str)
def test_is_data_and_not_reversible(step: Step) -> None:
    assert from_data(Step, json.loads(json.dumps(to_data(step)))) == step
    assert folds(step)
    with pytest.raises(ConversionError, match="from the checkpoint that was converted"):
        step.invert((tensor_from_torch(torch.ones(2, 2)),))


def test_other_shapes_are_refused() -> None:
    tensors = (torch.ones(4, 4), torch.ones(2, 3), torch.ones(4, 2))
    with pytest.raises(ValueError, match="make another shape"):
        MergeLowRank(1.0, "out_in").apply(tuple(map(tensor_from_torch, tensors)))
