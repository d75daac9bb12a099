"""Inner modules take their arguments by the names and in the order of ``forward``."""

import re

import pytest
import torch
from torch import nn

import mlxport


class Attend(nn.Module):
    """Reads its last argument first; takes what its caller may leave out."""

    def __init__(self):
        super().__init__()
        self.q = nn.Linear(4, 4)

    def forward(self, hidden, rotary, bias=None, mask=None, **options):
        if mask is not None:
            hidden = hidden.masked_fill(~mask[..., None], 0.0)
        cos, sin = rotary
        y = self.q(hidden) * cos + hidden * sin
        y = y if "scale" not in options else y * options["scale"]
        return y if bias is None else y + bias


class Model(nn.Module):
    def __init__(self, only_captured=False, **given):
        super().__init__()
        self.attend = Attend()
        self.only_captured = only_captured
        self.given = given

    def forward(self, x):
        mask = (torch.arange(3) < 3).expand(2, 3)
        if self.only_captured and not torch.compiler.is_exporting():
            mask = None  # which would let everything through, and is not needed to run
        return self.attend(
            x, (x.cos(), x.sin()), mask=mask, **{k: f(x) for k, f in self.given.items()}
        )


CASES = {
    "given always": ({}, "hidden, rotary0, rotary1, mask"),
    "given to be captured alone": ({"only_captured": True}, "hidden, rotary0, rotary1, mask"),
    "one more": (
        {"only_captured": True, "bias": lambda x: x * 2},
        "hidden, rotary0, rotary1, bias, mask",
    ),
    "in kwargs": (
        {"scale": lambda x: x + 1},
        "hidden, rotary0, rotary1, mask, scale",
    ),
}


@pytest.mark.parametrize(("settings", "names"), CASES.values(), ids=CASES)
def test_names_are_those_of_forward(settings, names):
    result = mlxport.convert(Model(**settings), torch.randn(2, 3, 4))
    assert result.report.passed, result.report.to_text()
    signature = re.search(r"class Attend.*?def __call__\((.*?)\)", result.source, re.DOTALL)[1]
    assert ", ".join(re.findall(r"(\w+): mx.array", signature)) == names
