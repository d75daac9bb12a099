"""The fixtures that the tests of all handlers share."""

from __future__ import annotations

from collections.abc import Callable

import op_parity
import pytest


@pytest.fixture
def assert_op_parity() -> Callable[..., None]:
    """`assert_op_parity(fn, *inputs, orders=None, dtype=None, parameters=())`.

    Args:
        fn: takes tensors, returns a tensor or a (nested) tuple or list of them.
        inputs: torch tensors.
        orders: the order each input is stored in (None: PyTorch's own); by default several
            combinations are tried one after the other.
        dtype: cast floating inputs to it first.
        parameters: which inputs stand for parameters of the model (by index).
    """
    return op_parity.assert_op_parity


@pytest.fixture
def lower_op() -> Callable[..., op_parity.Lowered]:
    """`lower_op(fn, *inputs, orders=None, parameters=()) -> Lowered`: what was emitted."""
    return op_parity.lower_op
