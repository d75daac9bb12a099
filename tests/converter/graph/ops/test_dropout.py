"""Dropout at inference is nothing; where it is active it is refused."""

import pytest
import torch
import torch.nn.functional as F

from mlxport.converter.graph.ir.context import Unsupported

KINDS = [F.dropout, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout]


@pytest.mark.parametrize("fn", KINDS)
def test_inference_gives_the_input_back(assert_op_parity, lower_op, fn):
    def drop(x):
        return fn(x, 0.5, training=False) + 1

    x = torch.randn(2, 3, 4, 5, 6)
    assert_op_parity(drop, x)
    assert lower_op(drop, x).source == "a + 1"


def test_active_dropout_is_refused(lower_op):
    with pytest.raises(Unsupported, match=r"p=0\.5 is active: its result is random"):
        lower_op(lambda x: F.dropout(x, 0.5), torch.randn(2, 3))


def test_active_dropout_that_drops_nothing(assert_op_parity):
    def fn(x):
        return torch.ops.aten.native_dropout(x, 0.0, True)

    assert_op_parity(fn, torch.randn(2, 3, 4))
