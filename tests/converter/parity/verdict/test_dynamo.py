"""PyTorch's criterion, in NumPy, says what ``torch._dynamo.utils.same`` says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlxport.converter.parity.verdict.compare import judge
from mlxport.converter.parity.verdict.dynamo import dynamo_passes

SHAPES = [(), (3,), (10,), (11,), (20, 25), (30, 30), (1001,), (2, 600, 1, 1), (40, 50)]


def by_torch(actual: torch.Tensor, reference: torch.Tensor, native: torch.Tensor) -> bool:
    from torch._dynamo.utils import same

    return same(
        native,
        actual,
        reference,
        equal_nan=True,
        use_larger_multiplier_for_smaller_tensor=True,
        log_error=lambda *_: None,
    )


@given(
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    noise=st.sampled_from([0.0, 1e-3, 1e-2]),
    times=st.sampled_from([0.5, 1.5, 2.5, 2.9, 3.5, 7.5, 9.0, 11.0, 1e3]),
    special=st.sampled_from(["", "nan in both", "nan in torch", "nan in mlx", "infinity in both"]),
    seed=st.integers(0, 5),
)
def test_agrees_with_torch(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    noise: float,
    times: float,
    special: str,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    reference = torch.randn(shape, dtype=torch.float64) * 10
    sign = torch.randn(shape, dtype=torch.float64).sign()
    native = (reference + noise * sign).to(dtype)
    actual = (reference - times * noise * sign).to(dtype)
    for name, tensors in {
        "nan in both": [reference, native, actual],
        "nan in torch": [native],
        "nan in mlx": [actual],
        "infinity in both": [reference, native, actual],
    }.items():
        if name == special:
            for tensor in tensors:
                tensor.view(-1)[0] = torch.inf if name.startswith("inf") else torch.nan
    arrays = [x.double().numpy() for x in (actual, reference, native)]
    name = str(dtype).removeprefix("torch.")
    assert dynamo_passes(name, shape, *arrays) == by_torch(actual, reference, native)


def test_stands_beside_our_verdict() -> None:
    reference = np.linspace(1e-5, 2e-5, 50)
    native = reference.astype(np.float32).astype(np.float64)
    verdict = judge(native * 2, reference, native, dtype="float32")
    assert (verdict.passed, verdict.dynamo) == (False, True)  # whatever is small passes there
    reference = np.linspace(1, 2, 5000)
    native = reference + 1e-3
    verdict = judge(reference + 4e-3, reference, native, dtype="float32")
    assert (verdict.passed, verdict.dynamo) == (True, False)


@pytest.mark.parametrize(
    ("dtype", "wrong", "passes"),
    [("int64", 1, False), ("int64", 0, True), ("bool", 1, False)],
)
def test_integers_and_booleans(dtype: str, wrong: int, passes: bool) -> None:
    values = np.array([0, 1, 1]).astype(dtype)
    other = values.copy()
    other[0] = wrong
    assert judge(other, values, values, dtype=dtype).dynamo is passes
