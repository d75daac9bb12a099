"""The gradients that PyTorch's autograd gives, and how far they move by roundings."""

from __future__ import annotations

import numpy as np
import torch

from mlxport.converter.parity.reference.record_reference import record_reference
from mlxport.converter.parity.reference.torch_gradients import (
    perturbed_gradients,
    record_gradients,
)


class Kinked(torch.nn.Module):
    """Adds two numbers of which the ReLU is given a 0, and looks a row up."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor([-1.0, 3.0]))
        self.rows = torch.nn.Embedding(3, 2)

    def forward(self, x: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.shift) + self.rows(row)


def test_a_gradient_at_a_kink_moves_and_no_other() -> None:
    torch.manual_seed(0)
    module, call = Kinked().eval(), (torch.tensor([1.0, 2.0]), torch.tensor(1))
    reference = record_reference(module, call, paths=[])
    before = record_gradients(module, call, reference=reference)
    after = perturbed_gradients(module, call, reference=reference, gradients=before)
    assert [None if x is None else x.shape for x in after.inputs] == [(2,), None]
    for old, new in (
        (before.inputs[0], after.inputs[0]),
        (before.parameters["shift"], after.parameters["shift"]),
    ):
        assert old is not None
        assert new is not None
        np.testing.assert_array_equal(new.native != old.native, [True, False])
        np.testing.assert_array_equal(new.reference, old.reference)
    rows = after.parameters["rows.weight"]
    np.testing.assert_array_equal(rows.native, before.parameters["rows.weight"].native)
