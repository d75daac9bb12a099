"""Islands of float64 are computed in float32, which is said, or refused where none judges it."""

import mlx.core as mx
import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.errors import UnsupportedError

X = torch.linspace(-2, 2, 24).reshape(2, 3, 4)


class Net(nn.Module):
    """Runs a function given as ``run``."""

    def __init__(self, run):
        super().__init__()
        self.run, self.linear = run, nn.Linear(4, 4)

    def forward(self, x):
        return self.run(self, x)


def rotary(m, x):
    frequencies = 100 ** -(torch.arange(0, 4, dtype=torch.float64) / 4)
    angles = x[..., :1] * frequencies
    return m.linear(x) * angles.cos().float() + angles.sin().to(x.dtype)


def variance(m, x):
    wide = m.linear(x).double()
    return (wide - wide.mean(-1, keepdim=True)).pow(2).mean(-1).float()


def rotated(m, x):
    turns = torch.polar(torch.ones(2, dtype=torch.float64), torch.tensor([0.1, 1]).double())
    pairs = torch.view_as_complex(m.linear(x).double().reshape(2, 3, 2, 2))
    return torch.view_as_real(pairs * turns).flatten(2).float()


def summed(m, x):
    return m.linear(x).sum(-1, dtype=torch.float64).float() + x.half().sum(-1).double().float()


def created(m, x):
    return m.linear(x) * torch.arange(x.shape[1], dtype=torch.float64)[:, None].exp().float()


ISLANDS = {
    "rotary": rotary,
    "variance": variance,
    "complex128": rotated,
    "sums": summed,
}


@pytest.mark.parametrize("run", ISLANDS.values(), ids=ISLANDS)
def test_computed_in_float32_and_said(run):
    torch.manual_seed(0)
    result = mlxport.convert(Net(run).eval(), X)
    assert result.report.passed, result.report.to_text()
    assert "64" not in result.source.replace("complex64", "")
    (note,) = result.notes
    assert "computed in float32" in note
    assert f"{__file__}:" in note


def test_of_an_open_size():
    """No constant: its length is known when the model runs."""
    result = mlxport.convert(Net(created).eval(), X, dynamic={"x": (1,)})
    assert result.report.passed, result.report.to_text()
    assert result.model(mx.zeros((2, 7, 4))).shape == (2, 7, 4)
    assert result.notes


def deciding(m, x):
    return m.linear(x) * (x.double() * 3).floor().long()


def comparing(m, x):
    return m.linear(x) * (x.double() > 0.1)


def drawing(m, x):
    return m.linear(x) + torch.rand(4, dtype=torch.float64).float()


def reading_bits(m, x):
    return m.linear(x) + (x.double().view(torch.int64) >> 52).float()


def tiny(m, x):
    return (m.linear(x).double().abs() + 1e-300).log().float()


def tiny_tensor(m, x):
    least = torch.tensor(1e-300, dtype=torch.float64)
    return torch.maximum(m.linear(x).double(), least).float()


def beyond(m, x):
    table = torch.tensor([1.0, 1e300, 1.0, 1.0], dtype=torch.float64)
    return (m.linear(x).double() * table).sign().float()


REFUSED = {
    "integers": (deciding, "_to_copy.*decide integers or truth values"),
    "truth values": (comparing, "gt.*decide integers or truth values"),
    "draws": (drawing, "rand.*float64 on the CPU only"),
    "bits": (reading_bits, "view.dtype.*float64 on the CPU only"),
    "a number": (tiny, "1e-300 is beyond float32"),
    "a tensor without axes": (tiny_tensor, "values beyond the range of float32"),
    "a table": (beyond, "values beyond the range of float32"),
    "a result": (lambda m, x: m.linear(x).double(), "a result.*float64 on the CPU only"),
}


@pytest.mark.parametrize(("run", "why"), REFUSED.values(), ids=REFUSED)
def test_refused(run, why):
    with pytest.raises(UnsupportedError, match=why) as raised:
        mlxport.convert(Net(run).eval(), X)
    assert f"{__file__}:" in str(raised.value) or "a result" in str(raised.value)


def test_an_input_of_float64_is_refused():
    with pytest.raises(UnsupportedError, match=r"argument x.*float64 on the CPU only"):
        mlxport.convert(Net(lambda m, x: m.linear(x.float())).eval(), X.double())


def test_a_model_of_float64_is_refused():
    with pytest.raises(UnsupportedError, match=r"argument x.*model.float\(\)"):
        mlxport.convert(Net(lambda m, x: m.linear(x)).eval().double(), X.double())


@pytest.mark.parametrize(
    "inner",
    [nn.Embedding(4, 4).double(), Net(lambda m, x: m.linear.weight[x].double())],
    ids=["a layer", "a class"],
)
def test_float64_between_modules_is_refused(inner):
    """What PyTorch gives there is of another dtype than MLX's would be."""
    model = Net(lambda m, x: m.inner(x.long().clamp(0, 3)).float()).eval()
    model.inner = inner
    with pytest.raises(UnsupportedError, match="float64"):
        mlxport.convert(model, X)


def test_a_layer_within_float64_is_refused():
    model = Net(lambda m, x: m.linear(x.double()).float()).eval()
    model.linear.double()
    with pytest.raises(UnsupportedError, match="float64"):
        mlxport.convert(model, X)
