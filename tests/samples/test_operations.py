"""Every op's samples compute in MLX what they compute in PyTorch, or are refused with a reason.

A few samples of each op by default; `MLXPORT_SWEEP=20` takes twenty, in seven dtypes.
"""

from collections.abc import Callable

import op_parity
import pytest
import torch
from op_database import SWEEP, OpSample, op_samples, ops
from op_refused import REFUSED

from mlxport.converter.graph.context import Unsupported


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of how its samples use it
@pytest.mark.parametrize(("op", "dtype"), list(ops()), ids=str)
def test_op(op: str, dtype: torch.dtype, record_property: Callable[[str, object], None]) -> None:
    reasons = [reason for sample in op_samples(op, dtype) if (reason := _run(sample))]
    for reason in set(reasons):
        record_property("note", f"refused: {op}: {reason}")
    if not SWEEP:
        assert bool(reasons) == (op in REFUSED), (
            reasons or f"{op} is served now: take it off the list in op_refused.py"
        )


def _run(sample: OpSample) -> str:
    """Compare a sample with PyTorch; return why it is refused, empty where it is not."""
    function, tensors = sample.call()
    with torch.no_grad():
        try:
            exact = sample.exact()
        except Exception as error:
            return f"PyTorch itself: {type(error).__name__}"
        return _refusal(function, tensors, exact)


def _refusal(function: Callable[..., object], tensors: list[torch.Tensor], exact: bool) -> str:
    """Compare the sample with PyTorch; return why it is refused, empty where it is not."""
    try:
        program = op_parity.exported(function, tensors)
    except Exception as error:  # whatever torch.export cannot follow
        return f"torch.export: {type(error).__name__}"
    missing = op_parity.unhandled(program.graph)
    if missing:
        return f"no handler of {', '.join(missing)}"
    try:
        op_parity.assert_op_parity(function, *tensors, exact=exact)
    except Unsupported as reason:
        return str(reason)
    return ""
