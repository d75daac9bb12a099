import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mlxport
from mlxport.converter.errors import CaptureError, UnsupportedError
from mlxport.converter.graph import ops
from mlxport.converter.graph.capture.capture import capture
from mlxport.converter.graph.capture.leaves import plain_path


class Harmless(nn.Conv3d):
    def __init__(self, channels):
        super().__init__(channels, channels, 3, padding=1)

    def extra_repr(self):
        return "harmless"


class OwnForward(nn.Conv3d):
    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1, 1, 1)))


class OwnConvForward(nn.Conv3d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight * 2, bias)


class OtherStride(nn.Conv3d):
    def forward(self, x):
        return F.conv3d(x, self.weight, self.bias, stride=2)


def doubled():
    layer = nn.Conv3d(4, 4, 3)
    layer.register_forward_hook(lambda module, args, output: output * 2)
    return layer


def normed():
    return nn.utils.parametrizations.weight_norm(nn.Conv3d(4, 4, 3))


def normed_by_hook():
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(nn.Conv3d(4, 4, 3))


def normed_and_doubled():
    layer = normed()
    layer.register_forward_hook(lambda module, args, output: output * 2)
    return layer


def normed_own_forward():
    return nn.utils.parametrizations.weight_norm(OwnForward(4, 4, 3))


class Negative(nn.Module):
    def forward(self, weight):
        return -weight


def parametrised_otherwise():
    layer = nn.Conv3d(4, 4, 3)
    nn.utils.parametrize.register_parametrization(layer, "weight", Negative())
    return layer


@pytest.mark.parametrize(
    ("make", "is_leaf"),
    [
        (lambda: nn.Conv3d(4, 4, 3), True),
        (lambda: nn.ConvTranspose3d(4, 4, 3, 2, 1, 1), True),
        (lambda: nn.BatchNorm3d(4), True),
        (lambda: nn.ReLU(inplace=True), True),
        (lambda: Harmless(4), True),
        (lambda: OwnForward(4, 4, 3), False),
        (lambda: OwnConvForward(4, 4, 3), False),
        (lambda: OtherStride(4, 4, 3), False),
        (doubled, False),
        (normed, True),
        (normed_by_hook, True),
        (normed_and_doubled, False),
        (normed_own_forward, False),
        (parametrised_otherwise, False),
    ],
    ids=[
        "conv", "transposed conv", "batch norm", "in-place relu", "harmless subclass",
        "own forward", "own _conv_forward", "other stride", "hook", "weight norm",
        "weight norm by hook", "weight norm and hook", "weight norm and own forward",
        "another parametrisation",
    ],
)  # fmt: skip
def test_a_leaf_is_what_does_only_what_its_class_stands_for(make, is_leaf, volume):
    captured = capture(nn.Sequential(make()).eval(), (volume,), handled=ops.registry.OPS)
    assert ("0" in captured.leaves) is is_leaf


def test_call_numbers_are_stripped():
    assert plain_path("encoder@1.conv@12.weight") == "encoder.conv.weight"


class Reads(nn.Module):
    """Calls a layer, and reads what its weight is made of besides."""

    def __init__(self):
        super().__init__()
        self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))

    def forward(self, x):
        return self.layer(x) * self.layer.parametrizations.weight.original0.sum()


def test_what_a_fold_takes_away_is_read_by_nobody_else():
    captured = capture(Reads().eval(), (torch.ones(2, 4),), handled=ops.registry.OPS)
    assert "layer" not in captured.leaves


class Bounded(nn.Module):
    """An embedding whose rows are kept short, and whatever else reads its table."""

    def __init__(self, run, **options):
        super().__init__()
        self.run = run
        self.table = nn.Embedding(9, 4, max_norm=0.5, **options)
        self.head = nn.Linear(4, 9, bias=False)

    def forward(self, x):
        return self.run(self, x)


IDS = torch.tensor([[1, 3, 3], [0, 8, 1]])


@pytest.mark.parametrize("norm_type", [1.0, 2.0])
def test_rows_of_bounded_length(norm_type):
    model = Bounded(lambda m, x: m.head(m.table(x)) + m.table(x[:, :1]).sum(), norm_type=norm_type)
    before = model.table.weight.detach().clone()
    result = mlxport.convert(model.eval(), IDS)
    assert result.report.passed, result.report.to_text()
    assert "Embedding(9, 4, max_norm=0.5" in result.source
    assert torch.equal(model.table.weight, before)


@pytest.mark.parametrize(
    "run",
    [
        lambda m, x: F.linear(m.table(x), m.table.weight),  # which reads the shortened rows
        lambda m, x: F.embedding(x, m.head.weight, max_norm=0.5),
    ],
    ids=["its table is read", "not the module"],
)
def test_a_table_that_is_written_into_is_refused(run):
    with pytest.raises(UnsupportedError, match="changes its argument's memory"):
        mlxport.convert(Bounded(run).eval(), IDS)


class Clamps(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5, 2.0, 0.5, 2.0]))

    def forward(self, x):
        with torch.no_grad():
            self.scale.clamp_(max=1)
        return x * self.scale


def test_a_model_that_changes_its_parameters_is_refused():
    with pytest.raises(CaptureError, match=r"changes its own .*\n.*scale"):
        mlxport.convert(Clamps().eval(), torch.ones(2, 4))


OBSTACLES = {
    "its own forward": (OwnForward(4, 4, 3), "OwnForward overrides forward of Conv3d"),
    "another method": (OwnConvForward(4, 4, 3), "OwnConvForward overrides _conv_forward of Conv3d"),
    "a hook": (
        doubled(),
        "a call computes aten.conv3d.default, aten.mul.Tensor, "
        "where Conv3d is one op (it has hooks)",
    ),
    "no rule": (Negative(), "no rule is registered for it (a class of its own)"),
    "a rule for layers alone": (nn.Flatten(), "in whole models Flatten is lowered op by op"),
}


@pytest.mark.parametrize(("layer", "reason"), OBSTACLES.values(), ids=OBSTACLES)
def test_why_a_module_is_no_leaf(layer, reason):
    model = nn.Sequential(layer, nn.ReLU())
    captured = capture(model.eval(), (torch.randn(2, 4, 6, 5, 4),), handled=ops.registry.OPS)
    assert captured.obstacles == {"0": reason}
    assert [*captured.leaves] == ["1"]


INTEGERS = {
    "clipped": (nn.ReLU6(), nn.ReLU6),
    "clipped as well": (nn.Hardtanh(), nn.Hardtanh),
    "averaged": (nn.AvgPool2d(2), nn.AvgPool2d),
}


@pytest.mark.parametrize(("layer", "source"), INTEGERS.values(), ids=INTEGERS)
def test_layers_that_make_floats_of_integers_are_no_leaves(layer, source):
    x = torch.randint(-9, 9, (1, 2, 4, 4))
    model = nn.Sequential(layer, nn.Identity()).eval()
    captured = capture(model, (x,), handled=ops.registry.OPS)
    why = f"a call of it computes integers, where MLX's {source.__name__} gives floats"
    assert captured.obstacles["0"] == why
    if source is nn.AvgPool2d:
        with pytest.raises(UnsupportedError, match=r"pooling of torch\.int64"):
            mlxport.convert(model, x)
    else:
        assert mlxport.convert(model, x).report.passed


class ReadsAnothersWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.table = nn.Embedding(4, 4, max_norm=0.5)

    def forward(self, x):
        scale = self.norm.parametrizations.weight.original0.sum()
        return self.norm(self.table(x)) * scale + self.table.weight.sum()


def test_tensors_that_are_read_elsewhere_keep_modules_from_being_leaves():
    model = ReadsAnothersWeight().eval()
    captured = capture(model, (torch.tensor([[1, 2]]),), handled=ops.registry.OPS)
    assert captured.obstacles == {
        "norm": "other modules read its parametrizations.weight.original0, which the layer changes",
        "table": "other modules read its weight, which the layer changes",
    }


class Scale(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return x * self.scale.sum()


@pytest.mark.parametrize("names", ["layer first", "layer last"])
def test_a_tied_tensor_is_read_by_whichever_name_it_bears(names):
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    parts = {"layer": layer, "scale": Scale(layer.parametrizations.weight.original0)}
    order = ["layer", "scale"] if names == "layer first" else ["scale", "layer"]
    model = nn.Sequential()
    for name in order:
        model.add_module(name, parts[name])
    x = torch.randn(2, 4)
    captured = capture(model.eval(), (x,), handled=ops.registry.OPS)
    read = "other modules read its parametrizations.weight.original0, which the layer changes"
    assert captured.obstacles["layer"] == read
    assert mlxport.convert(model, x).report.passed
