"""Check that any name Python allows reaches ``model.py`` as Python, and that its weights load."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

from mlxport import convert, convert_checkpoint, load

_3DBlock = type(
    "_3DBlock", (nn.Linear,), {"forward": lambda self, x: nn.Linear.forward(self, x) + 1}
)


class Named(nn.Module):
    """A linear layer under any name, a parameter under any other."""

    def __init__(self, layer: str, parameter: str, kind: type[nn.Module] = nn.Linear) -> None:
        super().__init__()
        self.add_module(layer, kind(3, 3))
        self.register_parameter(parameter, nn.Parameter(torch.full((3,), 2.0)))
        self.names = layer, parameter

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer, parameter = (getattr(self, name) for name in self.names)
        return layer(x) * parameter


class Keyed(nn.Module):
    """A dict of layers with any key, and a result with any other."""

    def __init__(self, key: str, result: str) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({key: nn.Linear(3, 3)})
        self.keys = key, result

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        key, result = self.keys
        return {result: self.layers[key](x)}


def named(name: str, layer: str = "a", parameter: str = "b", module: str = __name__) -> nn.Module:
    """Return an instance of a class of any name, from a module of any name."""
    kind = type(name, (Named,), {"__module__": module, "__qualname__": name})
    return kind(layer, parameter)


ENDS = '"""\nraise SystemExit(7)\n"""'
MODELS = {
    "a class that begins with a digit": lambda: named("_3DNet"),
    "such a class within": lambda: Named("block", "scale", _3DBlock),
    "digits behind an underscore": lambda: Named("_1x1", "_3"),
    "an underscore": lambda: Named("_", "__"),
    "letters beyond ASCII": lambda: Named("層", "λ"),
    "letters that Python normalises": lambda: Named("ﬁlter", "x²"),
    "two names that become one": lambda: Named("_a", "a_"),
    "builtins": lambda: named("ValueError", "print", "len"),
    "a keyword as class": lambda: named("none", "_if", "_else"),
    "an emoji as key": lambda: Keyed("😀", "😀"),
    "an index as key": lambda: Keyed("1_0", "1_0"),
    "quotes and line feeds in a result": lambda: Keyed("a", '"""\n\\'),
    "a class that ends the docstring": lambda: named(ENDS),
    "a module that ends the docstring": lambda: named("Net", module=ENDS),
    "a module that ends in a backslash": lambda: named("Net", module="home\\"),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_any_name_converts_and_loads(model, tmp_path):
    torch_model, x = model().eval(), torch.randn(2, 3)
    torch.save(torch_model.state_dict(), tmp_path / "net.pt")
    result = convert_checkpoint(
        tmp_path / "net.pt", tmp_path / "out", model=torch_model, inputs=(x,)
    )
    assert result.report is not None
    assert result.report.passed
    loaded = load(tmp_path / "out")(mx.array(x.numpy()))
    expected = torch_model(x)
    if isinstance(expected, dict):
        assert [*loaded] == [*expected]
        (loaded,), (expected,) = loaded.values(), expected.values()
    np.testing.assert_allclose(np.array(loaded), expected.detach().numpy(), rtol=1e-5, atol=1e-6)


class Looks(nn.Module):
    """Looks up by an input and by a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 3)
        self.register_buffer("order", torch.tensor([2, 0, 1]))

    def forward(self, scale: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids)[self.order] * scale


def test_the_docstring_names_whose_values_are_looked_up() -> None:
    given = torch.ones(3), torch.tensor([1, 4, 2])
    source = " ".join(convert(Looks().eval(), given).source.split())
    assert "MLX checks no index: where a value of ids" in source
