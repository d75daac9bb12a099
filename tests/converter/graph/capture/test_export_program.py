"""Whose fault a failed capture is, and what torch prints on the way."""

import sys

import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.errors import CaptureError, InternalError
from mlxport.converter.graph.capture.export_program import export_failure, quiet, torch_step


class Branches(nn.Module):
    def forward(self, x):
        print("from the model", file=sys.stderr)
        return x * 2 if x.sum() > 0 else x - 1


def test_torch_prints_no_graphs_before_the_message(capfd):
    with pytest.raises(CaptureError, match="decides by the values"):
        mlxport.convert(Branches(), torch.ones(2, 3))
    told = capfd.readouterr()
    assert set(told.err.split("\n")) == {"from the model", ""}
    assert told.out == ""


def test_torch_export_is_not_blamed_for_what_it_can_do():
    failure = export_failure(nn.Linear(2, 2), (torch.ones(1, 2),), {}, None, ValueError("ours"))
    assert isinstance(failure, InternalError)
    assert "ValueError: ours" in str(failure)


def test_torch_export_is_blamed_for_what_it_cannot():
    failure = export_failure(Branches(), (torch.ones(1, 2),), {}, None, ValueError("theirs"))
    assert isinstance(failure, CaptureError)
    assert "torch.export cannot capture Branches" in str(failure)


def test_a_step_of_torchs_that_fails_is_named():
    def fails():
        raise RuntimeError("no such thing")

    with pytest.raises(CaptureError, match=r"Linear, but torch cannot fly, at .*: RuntimeError"):
        torch_step(nn.Linear(2, 2), "fly", fails)


def test_quiet_lets_everything_else_through(capsys):
    with quiet():
        print("mine")
    print("after")
    assert capsys.readouterr().out == "mine\nafter\n"


class TakesMore(nn.Module):
    def forward(self, x, *others, scale=1.0, **more):
        for other in (*others, *more.get("rest", []), more.get("bias", 0.0)):
            x = x + other
        return x * scale


X = torch.ones(2, 3)

MORE = {
    "keywords": ((X,), {"bias": X}),
    "keywords behind positions": ((X, X * 2), {"bias": X}),
    "a list by keyword": ((X,), {"rest": [X, X * 3], "bias": X}),
    "a number by keyword": ((X,), {"scale": 2.0, "bias": X}),
    "positions alone": ((X, X * 2), {}),
    "another order": ((), {"bias": X, "scale": 2.0, "x": X}),
}


@pytest.mark.parametrize("name", MORE)
def test_dynamic_sizes_of_what_forward_does_not_name(name):
    args, kwargs = MORE[name]
    model = TakesMore().eval()
    before = dict(vars(model))
    converted = mlxport.convert(model, args, kwargs, dynamic=0)
    assert converted.report.passed
    assert converted.report.others[0].sizes != converted.report.sizes
    assert vars(model) == before


@pytest.mark.parametrize("name", MORE)
def test_fixed_sizes_of_what_forward_does_not_name(name):
    args, kwargs = MORE[name]
    assert mlxport.convert(TakesMore().eval(), args, kwargs).report.passed
