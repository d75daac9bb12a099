"""Loops over the elements of a list, and what is none."""

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

import mlxport

X = torch.tensor([[1.0, -2.0, 3.0]])


class Visits(nn.Module):
    """Calls elements of a list in a sequence, each with what the last one gave."""

    def __init__(self, sequence: tuple[int, ...]) -> None:
        super().__init__()
        self.sequence = sequence
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in self.sequence:
            x = self.layers[i](x)
        return x


# elements in the sequence in which they are called, and how many loops that makes
SEQUENCES = {(0, 1, 2): 1, (0, 0): 0, (0, 0, 1): 1, (1, 0): 0, (0, 1, 1, 2): 2}


@pytest.mark.parametrize(("sequence", "loops"), SEQUENCES.items(), ids=map(str, SEQUENCES))
def test_elements_are_called_in_the_sequence_of_the_model(
    sequence: tuple[int, ...], loops: int
) -> None:
    model = Visits(sequence).eval()
    converted = mlxport.convert(model, X, verify=False)
    given = np.array(converted.model(mx.array(X.numpy())))
    expected = model.double()(X.double()).detach().numpy()
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-5)
    body = converted.source.split("def __call__")[1].split("def ")[0]
    assert body.count("for layer in") == loops
