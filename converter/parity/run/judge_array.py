"""Judge one MLX array by the value PyTorch computed in its place."""

from __future__ import annotations

import mlx.core as mx

from mlxport.converter.parity.run.axis_orders import to_torch_order
from mlxport.converter.parity.run.trace import mlx_dtype_name
from mlxport.converter.parity.verdict.compare import Verdict, judge
from mlxport.converter.parity.verdict.judgement import Judgement
from mlxport.converter.parity.verdict.reference_data import ReferenceValue
from mlxport.converter.plan.record import Layout


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
        value.own,
        dtype=value.dtype,
        shape=value.shape,
        indices=value.indices,
        actual_dtype=mlx_dtype_name(array),
        judgement=judgement,
        reference_dtype=value.reference_dtype,
    )
