"""Places in sorted sequences against torch."""

import mlx.core as mx
import numpy as np
import pytest
import torch

from mlxport.layers.arrays.searching import searchsorted

CASES = {
    "one sequence": ((7,), (3, 4)),
    "a sequence each": ((3, 7), (3, 5)),
    "batches": ((2, 3, 7), (2, 3, 5)),
    "a number": ((7,), ()),
    "no sequence": ((0,), (3,)),
    "no values": ((3, 7), (3, 0)),
}


@pytest.mark.parametrize("right", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_places(name: str, right: bool) -> None:
    sequence, values = (torch.randint(0, 9, shape).float() for shape in CASES[name])
    sequence = sequence.sort(dim=-1).values
    got = searchsorted(mx.array(sequence.numpy()), mx.array(values.numpy()), right)
    want = torch.searchsorted(sequence, values, right=right)
    assert torch.equal(torch.tensor(np.array(got)), want)


@pytest.mark.parametrize("right", [False, True])
def test_infinite_and_nan(right: bool) -> None:
    sequence = torch.tensor([-torch.inf, 0.0, 1.0, torch.inf])
    values = torch.tensor([-torch.inf, torch.inf, torch.nan, -0.0])
    got = searchsorted(mx.array(sequence.numpy()), mx.array(values.numpy()), right)
    want = torch.searchsorted(sequence, values, right=right)
    assert torch.equal(torch.tensor(np.array(got)), want)
