"""Orthogonal matrices, held to PyTorch's parametrisation in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrizations

from mlxport.converter.plan.orthogonal import MAPS, orthogonal


@pytest.mark.parametrize(
    "shape", [(4, 4), (6, 3), (3, 6), (5, 1), (2, 5, 4), (2, 3, 4, 6)], ids=str
)
@pytest.mark.parametrize("based", [True, False], ids=["based", "plain"])
@pytest.mark.parametrize("method", MAPS)
def test_makes_what_pytorch_makes(method: str, based: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.randn(shape, dtype=torch.float64))
    parametrizations.orthogonal(module, "weight", orthogonal_map=method, use_trivialization=based)
    parameters = module.parametrizations.weight.original  # type: ignore[union-attr]
    with torch.no_grad():
        parameters.add_(torch.randn_like(parameters) * 0.7)
        expected = module.weight.numpy()
    base = module.parametrizations.weight[0].base.numpy() if based else None  # type: ignore
    made = orthogonal(method, parameters.detach().numpy(), base)
    assert made.shape == expected.shape
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-13)
