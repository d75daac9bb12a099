"""Gradients of ports by hand: right ones pass, wrong ones are found, the rest says why not."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch

import mlxport
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.verdict.entry import BACKWARD


class Torch(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.rand(4) + 0.5)
        self.conv = torch.nn.Conv2d(3, 6, 3, padding=1)
        self.up = torch.nn.ConvTranspose2d(6, 6, 2, stride=2)
        self.norm = torch.nn.BatchNorm2d(6)
        self.head = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.GELU())
        self.last = torch.nn.Linear(5, 4)

    def forward(self, x: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.up(torch.tanh(self.conv(x)))).mean((2, 3)) * count[:, None]
        return self.last(self.head(x)) * self.scale


class Port(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = mx.ones((4,))
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(6, 6, 2, stride=2)
        self.norm = nn.BatchNorm(6)
        self.head = nn.Sequential(nn.Linear(6, 5), nn.GELU())
        self.last = nn.Linear(5, 4)

    def __call__(self, x: mx.array, count: mx.array) -> mx.array:
        x = self.norm(self.up(mx.tanh(self.first(x)))).mean((1, 2)) * count[:, None]
        return self.last(self.head(x)) * self.scale


RENAME, NAMES = {"conv.*": "first.*"}, {"conv": "first"}
PARAMETERS = {
    *("conv.weight", "conv.bias", "up.weight", "up.bias", "norm.weight", "norm.bias"),
    *("head.0.weight", "head.0.bias", "last.weight", "last.bias", "scale"),
}


def given() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 3, 6, 7), torch.tensor([2, 3])


def pair(port: Any = None) -> tuple[Any, torch.nn.Module]:
    torch.manual_seed(0)
    module = Torch().eval()
    module.norm.running_mean.normal_()
    port = Port() if port is None else port
    mlxport.load_weights(port, module.state_dict(), rename=RENAME)
    return port.eval(), module


def verify(port: Any, module: torch.nn.Module, **options: Any) -> ParityReport:
    options = {"names": NAMES, "gradients": True, **options}
    return mlxport.verify(port, module, given(), **options)


def judged(report: ParityReport) -> set[str]:
    found = [entry for entry in report.gradients if entry.verdicts]
    return {entry.name.removeprefix("gradient of ") for entry in found}


def reasons(report: ParityReport) -> dict[str, str]:
    left = [entry for entry in report.gradients if entry.skipped]
    return {entry.name.removeprefix("gradient of "): entry.skipped[BACKWARD] for entry in left}


def test_right_gradients_pass() -> None:
    report = verify(*pair())
    assert report.passed, report.verdict
    assert judged(report) == PARAMETERS | {"x"}
    assert reasons(report) == {"count": "it is no floating number"}
    assert "12 gradients within" in report.verdict


class Detached(Port):
    def __call__(self, x: mx.array, count: mx.array) -> mx.array:
        return super().__call__(mx.stop_gradient(x), count)


class Skewed(nn.ConvTranspose2d):
    """Right forwards; backwards its weight's gradient is off by a tenth."""

    def __call__(self, x: mx.array) -> mx.array:
        off = 0.1 * self.weight.sum()
        return super().__call__(x) - (off - mx.stop_gradient(off))


def test_an_input_that_is_cut_off_is_found() -> None:
    report = verify(*pair(Detached()))
    assert not report.passed
    assert [entry.name for entry in report.gradients if entry.failing] == ["gradient of x"]


def test_a_wrong_derivative_is_found_at_its_layer() -> None:
    port, module = pair()
    port.up.__class__ = Skewed
    report = verify(port, module)
    assert not any(entry.failing for entry in (*report.entries, *report.outputs))
    assert report.culprit == "up"
    assert [entry.name for entry in report.gradients if entry.failing] == ["gradient of up.weight"]


def test_parameters_without_a_counterpart_are_listed() -> None:
    class Folded(Port):
        """Multiplies by the scale's numbers, which are no parameter."""

        def __init__(self, module: Torch) -> None:
            super().__init__()
            del self["scale"]
            self._scale = mx.array(module.scale.detach().numpy())

        def __call__(self, x: mx.array, count: mx.array) -> mx.array:
            x = self.norm(self.up(mx.tanh(self.first(x)))).mean((1, 2)) * count[:, None]
            return self.last(self.head(x)) * self._scale

    _, module = pair()
    port = Folded(module)
    weights = {k: v for k, v in module.state_dict().items() if k != "scale"}
    mlxport.load_weights(port, weights, rename=RENAME)
    report = verify(port.eval(), module)
    assert report.passed
    assert reasons(report)["scale"] == "no parameter of the MLX model stands for it"


def test_a_layer_of_unknown_layout_is_not_guessed() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = mx.zeros((5, 4)), mx.zeros((4,))

        def __call__(self, x: mx.array) -> mx.array:
            return x @ self.weight + self.bias

    port, module = pair()
    native = Own()
    native.weight, native.bias = port.last.weight.T, port.last.bias
    port.last = native.eval()
    report = verify(port, module)
    assert report.passed
    assert reasons(report)["last.weight"] == "its MLX layer is none whose layout is known"
    assert "last.bias" in judged(report)


def test_a_layer_that_computes_otherwise_says_so() -> None:
    class Torch(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(64, 64), torch.nn.Linear(64, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.tanh(self.a(x)))

    class Quantized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 4)

        def __call__(self, x: mx.array) -> mx.array:
            return self.b(mx.tanh(self.a(x)))

    module, port = Torch().eval(), Quantized()
    mlxport.load_weights(port, module.state_dict())
    nn.quantize(port, bits=8, class_predicate=lambda path, _: path == "a")
    report = mlxport.verify(port.eval(), module, torch.randn(3, 64), gradients=True)
    quantised = "it is quantised: load the weights first, then quantise"
    assert {name: reasons(report)[name] for name in ("a.weight", "a.bias")} == {
        "a.weight": quantised,
        "a.bias": quantised,
    }


def test_arrays_of_ones_own_leave_the_inputs_gradients_open() -> None:
    port, module = pair()

    def arrays(x: mx.array, count: mx.array) -> tuple[mx.array, mx.array]:
        return x.transpose(0, 2, 3, 1), count

    report = verify(port, module, mlx_inputs=arrays)
    assert report.passed
    assert judged(report) == PARAMETERS


def test_one_parameter_of_pytorchs_that_is_two_in_mlx_is_not_judged() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.tanh(self.a(x)))

    class Untied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def __call__(self, x: mx.array) -> mx.array:
            return self.b(mx.tanh(self.a(x)))

    module, port = Tied(), Untied()
    mlxport.load_weights(port, module.state_dict())
    report = mlxport.verify(port.eval(), module, torch.randn(3, 4), gradients=True)
    assert report.passed, report.verdict
    assert set(reasons(report)) == {"a.weight", "b.weight"}
    assert judged(report) == {"x", "a.bias", "b.bias"}


@pytest.mark.parametrize("kinds", [[], ["impulse"]], ids=["alone", "beside other inputs"])
def test_what_mlx_cannot_differentiate_fails(kinds: list[str]) -> None:
    class Odd(Port):
        def __call__(self, x: mx.array, count: mx.array) -> mx.array:
            y = super().__call__(x, count)
            return mx.array(np.array(y))

    report = verify(*pair(Odd()), input_kinds=kinds)
    assert not report.passed
    assert all(entry.failing for entry in report.gradients if entry.verdicts)
