"""Tensors that a model keeps beside its state dict and that were computed of its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.errors import StateDictError

X = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Computes something of its weights, in ``setup`` or at its first call, and keeps it."""

    def __init__(self, setup: Callable[[Net], object], read: Callable[[Net], torch.Tensor]) -> None:
        super().__init__()
        self.linear, self.inner, self.cache = nn.Linear(4, 4), nn.Module(), {}
        self.read = read
        setup(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.read(self)


def nothing(net: Net) -> None:
    pass


def cached(net: Net) -> torch.Tensor:
    """Keep a table as timm's efficientformer does."""
    if "cpu" not in net.cache:
        net.cache["cpu"] = net.linear.bias[torch.tensor([3, 2, 1, 0])] * 2
    return net.cache["cpu"]


def long(net: Net) -> torch.Tensor:
    if "cpu" not in net.cache:
        net.cache["cpu"] = net.linear.weight.repeat(2, 2) * 2
    return net.cache["cpu"][0, 3:7]


WEIGHT, BIAS = "linear.weight", "linear.bias"
# what is kept, how it is read, its name and what it is made of
DERIVED = {
    "a short cache": (nothing, cached, {"cache": (BIAS,)}),
    "a long cache": (nothing, long, {"cache": (WEIGHT,)}),
    "an attribute of both": (
        lambda n: setattr(n.inner, "table", n.linear.weight @ n.linear.bias),
        lambda n: n.inner.table,
        {"inner.table": (BIAS, WEIGHT)},
    ),
    "a buffer in no state dict": (
        lambda n: n.register_buffer("table", n.linear.bias * 3, persistent=False),
        lambda n: n.table,
        {"table": (BIAS,)},
    ),
    "a view": (
        lambda n: setattr(n, "row", n.linear.weight.detach()[1]),
        lambda n: n.row,
        {"row": (WEIGHT,)},
    ),
    "data of a parameter": (
        lambda n: setattr(n, "rows", [n.linear.bias.data]),
        lambda n: n.rows[0],
        {"rows": (BIAS,)},
    ),
}


def other_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return nn.ModuleDict({"linear": nn.Linear(4, 4)}).state_dict()


@pytest.mark.parametrize(("setup", "read", "derived"), DERIVED.values(), ids=DERIVED)
def test_other_weights_are_refused_by_a_plan(
    setup: Callable[[Net], object],
    read: Callable[[Net], torch.Tensor],
    derived: dict[str, tuple[str, ...]],
) -> None:
    net = Net(setup, read).eval()
    expected = net(X).detach()  # fills the cache, with a history
    result = mlxport.convert(net, X)
    assert result.report is not None
    assert result.report.passed
    np.testing.assert_allclose(np.array(result.model(mx.array(X.numpy()))), expected, rtol=1e-5)
    plan = result.conversion.plan
    assert {name: tuple(sorted(of)) for name, of in plan.derived.items()} == derived
    assert any(all(name in note for name in derived) for note in result.notes)
    again = type(plan).from_json(plan.to_json())
    assert again.derived == plan.derived
    for given in (plan, again):
        with pytest.raises(StateDictError, match=f"{next(iter(derived))}: of linear"):
            mlxport.convert_state_dict(other_weights(), given)


def test_as_it_is_before_its_first_call_a_plan_computes_it(tmp_path: Path) -> None:
    net, other = Net(nothing, cached).eval(), other_weights()
    torch.save(net.state_dict(), tmp_path / "x.pt")
    torch.save(other, tmp_path / "y.pt")
    result = mlxport.convert_checkpoint(tmp_path / "x.pt", tmp_path / "out", model=net, inputs=[X])
    assert result.conversion.plan.derived == {}
    assert net.cache == {}
    by_plan = mlxport.convert_checkpoint(tmp_path / "y.pt", tmp_path / "two", plan=tmp_path / "out")
    net.load_state_dict(other)
    assert by_plan.model is not None
    given = np.array(by_plan.model(mx.array(X.numpy())))
    np.testing.assert_allclose(given, net(X).detach().numpy(), rtol=1e-5, atol=1e-6)


CONSTANTS = {
    "a plain attribute": lambda n: setattr(n, "table", torch.arange(24.0)[::2]),
    "a buffer in no state dict": lambda n: n.register_buffer(
        "table", torch.arange(24.0)[::2], persistent=False
    ),
    "a leaf with a gradient": lambda n: setattr(n, "table", torch.arange(12.0, requires_grad=True)),
}


@pytest.mark.parametrize("setup", CONSTANTS.values(), ids=CONSTANTS)
def test_other_constants_come_along_and_that_is_said(
    setup: Callable[[Net], object], tmp_path: Path
) -> None:
    net, other = Net(setup, lambda n: n.table[4:8]).eval(), other_weights()
    torch.save(net.state_dict(), tmp_path / "x.pt")
    torch.save(other, tmp_path / "y.pt")
    mlxport.convert_checkpoint(tmp_path / "x.pt", tmp_path / "out", model=net, inputs=[X])
    by_plan = mlxport.convert_checkpoint(tmp_path / "y.pt", tmp_path / "two", plan=tmp_path / "out")
    assert any("in no checkpoint: table." in note for note in by_plan.notes)
    net.load_state_dict(other)
    assert by_plan.model is not None
    given = np.array(by_plan.model(mx.array(X.numpy())))
    np.testing.assert_allclose(given, net(X).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_state_is_recorded_by_its_name_in_pytorch_and_in_mlx() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count = self.count + 1
            return x * self.count

    converted = mlxport.convert(nn.Sequential(Counter()).eval(), X, verify=False)
    (record,) = converted.conversion.state
    assert (record.path, record.target) == ("0.count", "layers.0.count")
    assert record.layout.shape == ()
