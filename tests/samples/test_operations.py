"""Every op's samples compute in MLX what they compute in PyTorch, or are refused with a reason.

A few samples of each op by default; `MLXPORT_SWEEP=20` takes twenty, in seven dtypes.
"""

import itertools
from collections.abc import Callable

import op_parity
import pytest
import torch
from op_database import SWEEP, OpSample, op_samples, ops
from op_refused import REFUSED

from mlxport.converter.graph.ir.context import Unsupported

# What code raises that looks for what is not there: this one's own, where PyTorch has moved
# something. No op is refused by that.
HARNESS_ERRORS = (AttributeError, ImportError, NameError)


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of how its samples use it
@pytest.mark.parametrize(("op", "dtype"), list(ops()), ids=str)
def test_op(op: str, dtype: torch.dtype, record_property: Callable[[str, object], None]) -> None:
    samples = op_samples(op, dtype)
    reasons = [] if _agree_at_once(samples) else [r for sample in samples if (r := _run(sample))]
    for reason in set(reasons):
        record_property("note", f"refused: {op}: {reason}")
    if not SWEEP:
        assert bool(reasons) == (op in REFUSED), (
            reasons or f"{op} is served now: take it off the list in op_refused.py"
        )


def _agree_at_once(samples: list[OpSample]) -> bool:
    """Whether several samples agree with PyTorch in one program: exporting takes most of the time.

    Where they do not, each is to be run alone.
    """
    if len(samples) < 2:
        return False
    calls = [sample.call() for sample in samples]

    def together(*tensors: torch.Tensor) -> list[object]:
        given = iter(tensors)
        return [function(*itertools.islice(given, len(own))) for function, own in calls]

    with torch.no_grad():
        try:
            if not all(sample.exact() for sample in samples):
                return False
            return not _refusal(together, [x for _, own in calls for x in own], exact=True)
        except Exception:
            return False


def _run(sample: OpSample) -> str:
    """Compare a sample with PyTorch; return why it is refused, empty where it is not."""
    function, tensors = sample.call()
    with torch.no_grad():
        try:
            exact = sample.exact()
        except HARNESS_ERRORS:
            raise
        except Exception as error:
            return f"PyTorch itself: {type(error).__name__}"
        return _refusal(function, tensors, exact)


def _refusal(function: Callable[..., object], tensors: list[torch.Tensor], exact: bool) -> str:
    """Compare the sample with PyTorch; return why it is refused, empty where it is not."""
    try:
        program = op_parity.exported(function, tensors)
    except HARNESS_ERRORS:
        raise
    except Exception as error:  # whatever torch.export cannot follow
        return f"torch.export: {type(error).__name__}"
    missing = op_parity.unhandled(program.graph)
    if missing:
        return f"no handler of {', '.join(missing)}"
    try:
        op_parity.assert_op_parity(function, *tensors, exact=exact, program=program)
    except Unsupported as reason:
        return str(reason)
    return ""


@pytest.mark.parametrize("place", ["exported", "exact"])
@pytest.mark.parametrize("error", [AttributeError, ModuleNotFoundError])
def test_an_error_of_the_harness_is_no_refusal(
    place: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(*_: object) -> None:
        raise error("PyTorch has moved it")

    (sample, *_) = op_samples("sin", torch.float32)
    monkeypatch.setattr(op_parity if place == "exported" else OpSample, place, moved)
    with pytest.raises(error, match="moved"):
        _run(sample)
    monkeypatch.undo()
    assert _run(sample) == ""
