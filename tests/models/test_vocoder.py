"""A HiFi-GAN-like vocoder: transposed convolutions whose weights are normalised as it runs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import mlxport
from mlxport.converter.plan.tensor import to_mlx
from mlxport.converter.plan.torch_tensor import tensor_from_torch
from mlxport.converter.plan.weight_plan import WeightPlan

Norm = Callable[[nn.Module], nn.Module]


class Residual(nn.Module):
    def __init__(self, norm: Norm, channels: int) -> None:
        super().__init__()
        self.wide = nn.ModuleList(
            norm(nn.Conv1d(channels, channels, 3, dilation=d, padding=d)) for d in (1, 3)
        )
        self.narrow = nn.ModuleList(norm(nn.Conv1d(channels, channels, 3, padding=1)) for _ in "ab")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for wide, narrow in zip(self.wide, self.narrow, strict=True):
            x = x + narrow(F.leaky_relu(wide(F.leaky_relu(x, 0.1)), 0.1))
        return x


class Vocoder(nn.Module):
    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.first = norm(nn.Conv1d(8, 16, 7, padding=3))
        self.up = nn.ModuleList(
            norm(nn.ConvTranspose1d(channels, channels // 2, 4, 2, 1)) for channels in (16, 8)
        )
        self.residual = nn.ModuleList(Residual(norm, channels) for channels in (8, 4))
        self.last = norm(nn.Conv1d(4, 1, 7, padding=3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for up, residual in zip(self.up, self.residual, strict=True):
            x = residual(up(F.leaky_relu(x, 0.1)))
        return torch.tanh(self.last(F.leaky_relu(x)))


NORMS: dict[str, Norm] = {
    "weight_norm": parametrizations.weight_norm,
    "old_weight_norm": torch.nn.utils.weight_norm,
    "weight_norm_of_all": lambda module: parametrizations.weight_norm(module, dim=None),
    "spectral_norm": parametrizations.spectral_norm,
    "old_spectral_norm": torch.nn.utils.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
}


def vocoder(norm: Norm) -> Vocoder:
    """A vocoder whose normalised tensors have norms of their own, as after training."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", FutureWarning)  # the old form is deprecated
        model = Vocoder(norm).eval()
        for name, tensor in model.named_parameters():
            if name.endswith(("original0", "weight_g")):
                tensor.mul_(torch.rand_like(tensor) + 0.5)
            elif name.endswith(("original", "weight_orig")):
                tensor.mul_(1.5).add_(0.1)  # its vectors no longer give its own norm
    return model


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_converts_with_parity(norm: Norm) -> None:
    model, x = vocoder(norm), torch.randn(2, 8, 12)
    result = mlxport.convert(model, (x,))
    assert result.report is not None
    assert result.report.passed, result.report.to_text()
    judged = {entry.path for entry in result.report.entries if entry.judged}
    assert {"first", "up.0", "up.1", "residual.1.wide.1", "last"} <= judged


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_reads_as_if_no_weight_had_been_normalised(norm: Norm) -> None:
    x = torch.randn(2, 8, 12)
    plain = mlxport.convert(Vocoder(lambda module: module).eval(), (x,), verify=False)
    assert mlxport.convert(vocoder(norm), (x,), verify=False).source == plain.source


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_the_plan_folds_the_weights_of_another_checkpoint(norm: Norm) -> None:
    model, other, x = vocoder(norm), vocoder(norm), torch.randn(2, 8, 12)
    result = mlxport.convert(model, (x,), verify=False)
    plan = WeightPlan.from_json(json.loads(json.dumps(result.conversion.plan.to_json())))
    state = {key: tensor_from_torch(value) for key, value in other.state_dict().items()}
    result.model.load_weights([(name, to_mlx(tensor)) for name, tensor in plan.apply(state)])
    assert mlxport.verify(result.model, other, (x,)).passed
    assert not mlxport.verify(result.model, model, (x,)).passed
