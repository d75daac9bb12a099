"""What is taken for a model, and what the refusal of anything else says."""

import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.errors import CaptureError, ConversionError, OptionsError
from mlxport.converter.torch_model.model_kinds import as_torch_module

X = torch.randn(2, 3, 6, 5)


class Stage(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x)).relu()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stage, self.head = Stage(), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.stage(x).mean((2, 3)))


class Around(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) * 2


def exported(net):
    return torch.export.export(net.eval(), (X,))


KINDS = {
    "traced by fx": lambda net: torch.fx.symbolic_trace(net),
    "fx inside": lambda net: Around(torch.fx.symbolic_trace(net)),
    "an exported program": exported,
    "a program's module": lambda net: exported(net).module(),
    "a program's module inside": lambda net: Around(exported(net).module()),
    "a decomposed program": lambda net: exported(net).run_decompositions(),
    "an unflattened program": lambda net: torch.export.unflatten(exported(net)),
    "compiled": torch.compile,
    "compiled inside": lambda net: Around(torch.compile(net)),
    "data parallel": nn.DataParallel,
}


@pytest.mark.filterwarnings("ignore:.*(LeafSpec|script_method).*deprecated.*")
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_converts(kind):
    model = kind(Net())
    result = mlxport.convert(model, X)
    assert result.report.passed
    assert mlxport.analyze(model, X).covered


def test_a_program_is_left_as_it_was():
    program = exported(Net())
    before, keys = str(program.graph), list(program.state_dict)
    mlxport.convert(program, X)
    assert (str(program.graph), list(program.state_dict)) == (before, keys)


def scripted_inside():
    return Around(torch.jit.script(nn.Linear(4, 4)))


def on_meta():
    with torch.device("meta"):
        return Net()


def faked():
    with torch._subclasses.fake_tensor.FakeTensorMode():
        return Net()


def quantized_inside():
    return torch.ao.quantization.quantize_dynamic(Net(), {nn.Linear}, dtype=torch.qint8)


class BuiltAtFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = None

    def forward(self, x):
        if self.layer is None:
            self.layer = nn.Conv2d(x.shape[1], 2, 1)
        return self.layer(x)


REFUSED = {
    "scripted": (lambda: torch.jit.script(Net()), OptionsError, "is TorchScript"),
    "traced": (lambda: torch.jit.trace(Net().eval(), X), OptionsError, "is TorchScript"),
    "scripted inside": (scripted_inside, CaptureError, r"TorchScript.*\n  inner \("),
    "a function": (lambda: lambda x: x * 2, OptionsError, "got the function .*forward"),
    "a method": (lambda: Net().forward, OptionsError, r"got the function Net\.forward"),
    "a class": (lambda: Net, OptionsError, "got the class Net: give an instance"),
    "a state dict": (lambda: Net().state_dict(), OptionsError, "a state dict.*load_state_dict"),
    "None": (lambda: None, OptionsError, "got None"),
    "a path": (lambda: "model.pt", OptionsError, "got str"),
    "on meta": (on_meta, CaptureError, r"without values(.|\n)*stage\.conv\.weight"),
    "faked": (faked, CaptureError, r"without values(.|\n)*head\.weight"),
    "quantized by torch": (quantized_inside, CaptureError, r"torch\.ao has quantized.*\n  head"),
    "lazy": (lambda: Around(nn.LazyConv2d(2, 1)), CaptureError, r"first call:\n  inner\.weight"),
    "built at its first call": (BuiltAtFirst, CaptureError, r"makes parameters(.|\n)*layer\.bias"),
}


@pytest.mark.filterwarnings("ignore:.*(deprecated|Lazy).*", "ignore:.*TorchScript.*")
@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("call", [mlxport.convert, mlxport.analyze, mlxport.explain])
def test_is_refused_for_what_it_is(call, make, error, message):
    with pytest.raises(error, match=message):
        call(make(), X)


def test_verify_refuses_alike():
    result = mlxport.convert(Net(), X, verify=False)
    with pytest.raises(ConversionError, match="got the class Net"):
        mlxport.verify(result.model, Net, X)


def test_a_long_list_is_cut():
    with torch.device("meta"):
        deep = nn.Sequential(*(nn.Linear(2, 2) for _ in range(9)))
    with pytest.raises(CaptureError, match="and 10 more"):
        as_torch_module(deep)
