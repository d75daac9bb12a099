"""Values moved by a few roundings."""

import math

import pytest
import torch

from mlxport.converter.parity.reference.copies import JITTER_ROUNDINGS, jittered

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(300, 250), (7,)], ids=["blocks", "few"])
def test_values_move_by_at_most_a_few_roundings_to_both_sides(dtype, shape) -> None:
    generator = torch.Generator().manual_seed(0)
    values = (1 + torch.rand(shape, dtype=torch.float64, generator=generator)).to(dtype)
    found = jittered(values, generator)
    assert (found.dtype, found.shape) == (dtype, values.shape)
    rounding = torch.finfo(dtype).eps / 2
    moves = (found.double() - values.double()) / values.double() / rounding
    # rounding the result may take it one further
    assert moves.abs().max() <= JITTER_ROUNDINGS + 1
    assert moves.min() < -1
    assert moves.max() > 1
    if moves.numel() > 1000:
        # evenly spread over what is allowed
        assert abs(float(moves.mean())) < 0.1
        assert float(moves.std()) == pytest.approx(JITTER_ROUNDINGS / math.sqrt(3), rel=0.1)
        one, other = moves.flatten()[:-1], moves.flatten()[1:]
        assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.05


def test_the_same_seed_moves_by_the_same() -> None:
    values = torch.randn(5, 40000)
    first, again, other = (
        jittered(values, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


KINDS = {
    "a scalar": torch.tensor(3.0),
    "no values": torch.empty(0, 3),
    "a view that is not dense": torch.randn(3, 4).t()[1:],
    "expanded": torch.ones(1, 3).expand(4, 3),
    "channels-last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "sparse": torch.eye(3).to_sparse(),
    "float8": torch.randn(3, 3).to(torch.float8_e4m3fn),
}


@pytest.mark.parametrize("value", KINDS.values(), ids=KINDS)
def test_any_tensor_moves_and_stays_as_it_was_given(value: torch.Tensor) -> None:
    before = value.clone()
    found = jittered(value, torch.Generator().manual_seed(3))
    assert (found.dtype, found.shape, found.layout) == (value.dtype, value.shape, value.layout)
    assert torch.equal(_dense(value), _dense(before))
    bound = 2 * JITTER_ROUNDINGS * torch.finfo(value.dtype).eps
    torch.testing.assert_close(_dense(found), _dense(value), rtol=bound, atol=0)


def test_infinity_nan_and_zero_stay() -> None:
    values = torch.tensor([math.inf, -math.inf, math.nan, 0.0, -0.0])
    found = jittered(values, torch.Generator())
    torch.testing.assert_close(found, values, rtol=0, atol=0, equal_nan=True)


def test_what_is_no_floating_tensor_is_given_back() -> None:
    for value in (torch.arange(3), torch.tensor([True]), 2.5, "text", None):
        assert jittered(value, torch.Generator()) is value


def _dense(value: torch.Tensor) -> torch.Tensor:
    return value.to_dense().double()
