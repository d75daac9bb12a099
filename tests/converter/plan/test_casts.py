"""Casts round as torch does, and say when they may."""

import numpy as np
import pytest
import torch

from mlxport.converter.errors import CheckpointError, ConversionError
from mlxport.converter.plan.steps import Cast
from mlxport.converter.plan.tensor import STORAGE, Tensor, TensorSpec, cast, holds, to_float64
from mlxport.converter.plan.torch_tensor import TORCH_DTYPE, tensor_from_torch, tensor_to_torch

FLOATS = ["F16", "BF16", "F32", "F64"]
EIGHT_BITS = [name for name in STORAGE if name.startswith("F8")]


def patterns(dtype: str) -> Tensor:
    """All values of a dtype of up to 16 bits; of wider ones values at every scale and ties."""
    storage = STORAGE[dtype]
    if storage.itemsize <= 2:
        bits = np.arange(256**storage.itemsize, dtype=np.uint32).astype(f"u{storage.itemsize}")
        return Tensor(bits.view(storage), dtype)
    exponents = np.arange(-160.0, 140.0)
    near = [1.0, 1 + 2.0**-11, 1 + 2.0**-11 + 2.0**-40, 1 + 2.0**-8, 1 + 2.0**-24 + 2.0**-50, 1.7]
    values = np.concatenate([sign * m * 2.0**exponents for m in near for sign in (1, -1)])
    extra = [0.0, -0.0, np.inf, -np.inf, np.nan]
    with np.errstate(over="ignore"):
        return Tensor(np.concatenate([values, extra]).astype(storage), dtype)


@pytest.mark.parametrize("target", FLOATS)
@pytest.mark.parametrize("source", [*FLOATS, *EIGHT_BITS])
def test_values_are_torchs(source: str, target: str) -> None:
    given = patterns(source)
    expected = tensor_to_torch(given).to(TORCH_DTYPE[target])
    found = tensor_to_torch(cast(given, target))
    finite = ~torch.isnan(expected)
    assert torch.equal(torch.isnan(found), ~finite)
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[expected.itemsize]
    assert torch.equal(found[finite].view(bits), expected[finite].view(bits))


@pytest.mark.parametrize("wide", [*FLOATS, *EIGHT_BITS])
@pytest.mark.parametrize("narrow", ["F16", "BF16", *EIGHT_BITS])
def test_a_dtype_holds_another_where_nothing_is_rounded(wide: str, narrow: str) -> None:
    if wide in EIGHT_BITS:
        assert holds(wide, narrow) == (wide == narrow)
        return
    values = to_float64(patterns(narrow))
    back = to_float64(cast(patterns(narrow), wide))
    assert holds(wide, narrow) == np.array_equal(values, back, equal_nan=True)


INTEGERS = [("I64", "I32", True), ("U8", "I16", True), ("I8", "U8", False), ("F32", "I8", False)]


@pytest.mark.parametrize(("narrow", "wide", "fits"), INTEGERS)
def test_integers(narrow: str, wide: str, fits: bool) -> None:
    assert holds(wide, narrow) == (fits and narrow != "I64")


@pytest.mark.parametrize(("source", "target"), [("F32", "I32"), ("I32", "F32"), ("I8", "F8_E4M3")])
def test_other_kinds_are_refused(source: str, target: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be cast"):
        cast(TensorSpec(source, (2,)).outline(), target)


@pytest.mark.parametrize("through", ["BF16", "F32", "F64"])
@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_a_cast_from_8_bits_is_undone(dtype: str, through: str) -> None:
    given = patterns(dtype)
    step = Cast((dtype,), (through,))
    assert not step.rounds
    (back,) = step.invert(step.apply((given,)))
    number = ~np.isnan(to_float64(given))
    assert np.array_equal(back.bits[number], given.bits[number])
    assert np.isnan(to_float64(back)[~number]).all()
    assert cast(TensorSpec(through, (3, 4)).outline(), dtype).shape == (3, 4)


@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_nothing_is_rounded_to_8_bits(dtype: str) -> None:
    given = Tensor(np.array([1, 1.01, np.nan, 3e38, 1e-44], np.float32), "F32")
    with pytest.raises(CheckpointError, match=f"3 of 5 F32 values are none of {dtype}'s"):
        cast(given, dtype)


@pytest.mark.parametrize("target", ["F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E8M0"])
def test_an_outline_stays_one(target: str) -> None:
    found = cast(TensorSpec("F32", (10**6, 10**6)).outline(), target)
    assert (found.shape, found.dtype) == ((10**6, 10**6), target)


def test_a_step_goes_back_and_says_whether_it_rounds() -> None:
    given = tensor_from_torch(torch.tensor([1.0, 2.5]).half())
    step = Cast(("F16",), ("F32",))
    assert not step.rounds
    assert Cast(("F32",), ("F16",)).rounds
    (back,) = step.invert(step.apply((given,)))
    assert back.bits.tolist() == given.bits.tolist()
    with pytest.raises(ConversionError, match="expected"):
        step.apply((cast(given, "F32"),))


def test_a_zero_with_a_sign_is_none_of_those_without() -> None:
    zero = Tensor(np.array([-0.0], np.float32), "F32")
    assert cast(zero, "F8_E4M3").bits.tolist() == [0x80]
    with pytest.raises(CheckpointError, match="none of F8_E4M3FNUZ's"):
        cast(zero, "F8_E4M3FNUZ")
