"""A converted model trains as PyTorch's does: ten steps of SGD and AdamW, in train mode.

Both begin with the same weights and see the same batches. The weights after the last step are held
to PyTorch's in float64, by what PyTorch's own float32 loses on the way.
"""

import copy
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as mlx_nn
import mlx.optimizers as optim
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mlxport
from mlxport.examples.unet3d import UNet3d

STEPS = 10
MULTIPLE = 8  # of PyTorch's own noise, over all weights: a single small one may be right by luck


class Frozen(nn.Module):
    """A trunk that is not trained, with batch statistics that move all the same."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.norm = nn.BatchNorm2d(6, momentum=0.3)
        self.head = nn.Conv2d(6, 4, 1)
        self.trunk.requires_grad_(False)

    def forward(self, x):
        return self.head(F.relu(self.norm(self.up(self.trunk(x)))))


class Tied(nn.Module):
    """A table that is the last layer's weight as well, around an encoder."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids):
        return self.head(self.encoder(self.table(ids))).transpose(1, 2)


class Recurrent(nn.Module):
    """An LSTM over batch norms of its features."""

    def __init__(self):
        super().__init__()
        self.norm, self.lstm = nn.BatchNorm1d(5), nn.LSTM(5, 7, batch_first=True)
        self.head = nn.Linear(7, 4)

    def forward(self, x):
        return self.head(self.lstm(self.norm(x))[0]).transpose(1, 2)


@dataclass
class Case:
    build: Any
    batch: Any  # makes a batch of inputs
    spec: str  # of the inputs
    classes: int
    shape: tuple[int, ...]  # of the targets


CASES = {
    "U-Net": Case(
        lambda: UNet3d(1, 3, widths=(2, 4)),
        lambda: torch.randn(2, 1, 8, 8, 8),
        "2,1,8,8,8",
        3,
        (2, 8, 8, 8),
    ),
    "frozen trunk": Case(Frozen, lambda: torch.randn(4, 3, 5, 5), "4,3,5,5", 4, (4, 10, 10)),
    "tied table": Case(Tied, lambda: torch.randint(0, 11, (3, 6)), "int64:3,6:0..10", 11, (3, 6)),
    "LSTM": Case(Recurrent, lambda: torch.randn(4, 5, 5), "4,5,5", 4, (4, 5)),
}
OPTIMIZERS = {
    "SGD": (
        lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=1e-3),
        lambda: optim.SGD(0.05, momentum=0.9, weight_decay=1e-3),
    ),
    "AdamW": (
        lambda parameters: torch.optim.AdamW(parameters, 1e-3, eps=1e-4, weight_decay=0.02),
        lambda: optim.AdamW(1e-3, eps=1e-4, weight_decay=0.02, bias_correction=True),
    ),
}


def train_torch(model, make, batches):
    """Return the state dict after the steps, and the mean loss of each."""
    optimizer, losses = make([p for p in model.parameters() if p.requires_grad]), []
    for x, target in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {name: value.detach().double() for name, value in model.state_dict().items()}, losses


def train_mlx(model, make, batches):
    def loss(model, x, target):
        return mlx_nn.losses.cross_entropy(model(x), target, axis=1, reduction="mean")

    optimizer, losses = make(), []
    for x, target in batches:
        given = mx.array(x.numpy()), mx.array(target.numpy())
        value, gradients = mlx_nn.value_and_grad(model, loss)(model, *given)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        losses.append(value.item())
    return losses


def double(batches):
    return [(x.double() if x.is_floating_point() else x, target) for x, target in batches]


@pytest.mark.parametrize(("make_torch", "make_mlx"), OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_ten_steps_agree_with_pytorch(case, make_torch, make_mlx, tmp_path):
    torch.manual_seed(0)
    model = case.build()
    batches = [(case.batch(), torch.randint(0, case.classes, case.shape)) for _ in range(STEPS)]
    torch.save(model.state_dict(), tmp_path / "model.pt")
    out = tmp_path / "out"
    mlxport.convert_checkpoint(tmp_path / "model.pt", out, model=model, inputs=[case.spec])
    converted = mlxport.load(out)

    converted.train()
    found = train_mlx(converted, make_mlx, batches)
    exact, expected = train_torch(
        copy.deepcopy(model).double().train(), make_torch, double(batches)
    )
    native, _ = train_torch(copy.deepcopy(model).train(), make_torch, batches)
    assert found == pytest.approx(expected, rel=1e-4)

    mlxport.restore(out, tmp_path / "tuned.pt", from_live=converted)
    weights = torch.load(tmp_path / "tuned.pt")
    before = model.state_dict()
    assert exact.keys() == weights.keys()
    names = [name for name in exact if exact[name].ndim]  # not the counts of batches
    moved, error, noise = (
        torch.cat([(one[name].double() - other[name]).flatten() for name in names])
        for one, other in ((before, exact), (weights, exact), (native, exact))
    )
    assert error.norm() <= MULTIPLE * noise.norm()
    assert error.abs().max() <= 1e-3 * moved.norm()
    for name in names:
        frozen = name.startswith("trunk") and "running" not in name
        assert frozen == torch.equal(before[name], weights[name]), name

    restored = case.build()
    restored.load_state_dict(weights)
    converted.eval()
    x = batches[0][0]
    expected = restored.eval().double()(*double([(x, None)])[0][:1]).detach().numpy()
    got = np.array(converted(mx.array(x.numpy())))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
