"""Modules that differ in a few numbers become one class, which is given them."""

import ast
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.graph.source.body_numbers import differences, skeleton, with_settings
from mlxport.converter.graph.source.format import code_lines


class Heads(nn.Module):
    def __init__(self, size, heads):
        super().__init__()
        self.heads = heads
        self.qk = nn.Linear(size, size)

    def forward(self, x):
        q = self.qk(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return (q * 2.5 @ q.transpose(-1, -2)).softmax(-1) @ q


class Mean(nn.Module):
    def __init__(self, axis):
        super().__init__()
        self.axis = axis

    def forward(self, x):
        return x.mean(self.axis, keepdim=True) * 3


class Scaled(nn.Module):
    def __init__(self, *numbers):
        super().__init__()
        self.numbers = numbers

    def forward(self, x):
        for i, number in enumerate(self.numbers):
            x = torch.sin(x * number + i)
        return x


class Row(nn.Module):
    """Runs modules one after the other, each on the same input."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        return [part(x) for part in self.parts]


CASES = {
    "heads": ((Heads(8, 2), Heads(8, 4)), 1),
    "the same": ((Heads(8, 2), Heads(8, 2)), 1),
    "axes": ((Mean(1), Mean(2)), 2),
    "four": ((Scaled(0.1, 0.2, 0.3, 0.4), Scaled(0.5, 0.6, 0.7, 0.8)), 1),
    "five": ((Scaled(0.1, 0.2, 0.3, 0.4, 0.45), Scaled(0.5, 0.6, 0.7, 0.8, 0.9)), 2),
    "a number and an integer": ((Scaled(0.5), Scaled(3)), 2),
    "in a loop": (
        (
            Row(nn.Sequential(nn.Linear(8, 8), nn.Tanh()), Scaled(0.5)),
            Row(nn.Sequential(nn.Linear(8, 8), nn.Tanh()), Scaled(0.25)),
        ),
        2,  # Row and Scaled
    ),
}


@pytest.mark.parametrize(("parts", "classes"), CASES.values(), ids=CASES)
def test_classes(parts, classes, tmp_path):
    torch.manual_seed(0)
    model = Row(*parts).eval()
    result = mlxport.convert(model, torch.randn(2, 5, 8))
    assert result.report.passed, result.report.to_text()
    found = re.findall(r"^class (\w+)", result.source, re.MULTILINE)
    assert len(found) == classes + 1, result.source  # and the model's own
    (tmp_path / "model.py").write_text(result.source)
    check = ["-m", "ruff", "format", "--check", "--isolated", str(tmp_path)]
    done = subprocess.run([sys.executable, *check], capture_output=True, check=False)
    assert done.returncode == 0, result.source


def test_pytorchs_name_is_kept():
    result = mlxport.convert(Row(Heads(8, 2), Heads(8, 4)).eval(), torch.randn(2, 5, 8))
    assert "def __init__(self, heads, size):" in result.source
    assert "self.heads = heads" in result.source
    assert "(self.heads, self.size)" in result.source
    assert "[Heads(2, 4), Heads(4, 2)]" in result.source
    assert "2.5" in result.source


def code(*lines):
    return tuple(ast.parse("\n".join(lines)).body)


def test_a_body_reads_its_settings():
    one = code("x = mx.unflatten(x, 2, (2, 4)).transpose(0, 2, 1, 3)", "return x * 0.5")
    two = code("x = mx.unflatten(x, 2, (8, 4)).transpose(0, 2, 1, 3)", "return x * 0.125")
    assert skeleton(one) == skeleton(two)
    found = differences([one, two])
    assert list(found.values()) == [(2, 8), (0.5, 0.125)]
    names = dict(zip(found, ("heads", "scale"), strict=True))
    for body in (one, two):
        assert list(code_lines(with_settings(body, names), 0)) == [
            "x = mx.unflatten(x, 2, (self.heads, 4)).transpose(0, 2, 1, 3)",
            "return x * self.scale",
        ]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("return x.transpose(0, 2, 1)", "return x.transpose(0, 1, 2)"),
        ("return mx.mean(x, axis=1)", "return mx.mean(x, axis=2)"),
        ("return mx.mean(x, axis=(1, 2))", "return mx.mean(x, axis=(2, 3))"),
        ("return x.flatten(1)", "return x.flatten(2)"),
        ("return self.layers[0](x)", "return self.layers[1](x)"),
        ("return x * 2", "return x * 2.0"),
        ("return mx.array([True])", "return mx.array([False])"),
    ],
)
def test_what_is_no_size_tells_bodies_apart(one, two):
    assert skeleton(code(one)) != skeleton(code(two))
