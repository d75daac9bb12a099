"""Run-time weights are laid out as the plan lays out those it loads."""

import mlx.core as mx
import numpy as np
import pytest

from mlxport.converter.plan.steps import TransposedConvWeight
from mlxport.converter.plan.tensor import Tensor
from mlxport.layers.conv.transpose_weight import grouped_weight


@pytest.mark.parametrize("kernel", [(3,), (2, 3), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_is_the_step_of_the_plan(kernel: tuple[int, ...], groups: int) -> None:
    weight = np.random.randn(6, 5, *kernel).astype(np.float32)
    (planned,) = TransposedConvWeight(groups).apply((Tensor(weight, "F32"),))
    got = np.array(grouped_weight(mx.array(weight), groups))
    np.testing.assert_array_equal(got, planned.bits)


@pytest.mark.parametrize("groups", [0, 4])
def test_refuses_groups_that_do_not_divide(groups: int) -> None:
    with pytest.raises(ValueError, match="must divide the 6 input channels"):
        grouped_weight(mx.zeros((6, 5, 3)), groups)
