"""Judge MLX arrays by the values PyTorch computed in their place."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from mlxport.converter.parity.run.layouts import to_torch_order
from mlxport.converter.parity.run.trace import mlx_dtype_name
from mlxport.converter.parity.verdict.compare import Verdict, judge
from mlxport.converter.parity.verdict.judgement import Judgement
from mlxport.converter.parity.verdict.reference_data import ReferenceValue
from mlxport.converter.plan.record import Layout


def judge_arrays(
    arrays: Sequence[mx.array],
    layouts: Sequence[Layout],
    values: Sequence[ReferenceValue],
    judgement: Judgement,
) -> list[Verdict]:
    """Judge the tensors of one result; a wrong number of them fails every one."""
    if len(arrays) != len(values):
        return failed_verdicts(
            values, f"number of tensors: PyTorch gives {len(values)}, MLX {len(arrays)}"
        )
    return [
        judge_array(array, layout, value, judgement)
        for array, layout, value in zip(arrays, layouts, values, strict=True)
    ]


def judge_array(
    array: mx.array, layout: Layout, value: ReferenceValue, judgement: Judgement
) -> Verdict:
    """Bring an array into PyTorch's axis order and compare it.

    Args:
        array: MLX's, as stored.
        layout: says which of PyTorch's axes is stored where.
        value: PyTorch's, in its own order.
        judgement: what passes.
    """
    return judge(
        to_torch_order(array, layout),
        value.reference,
        value.native,
        dtype=value.dtype,
        shape=value.shape,
        indices=value.indices,
        actual_dtype=mlx_dtype_name(array),
        judgement=judgement,
        reference_dtype=value.reference_dtype,
        moved=value.moved,
    )


def failed_verdicts(values: Sequence[ReferenceValue], *problems: str) -> list[Verdict]:
    """Return a failed verdict for each value, where MLX has none to compare."""
    return [Verdict(problems, value.shape, value.dtype) for value in values]
