"""Gradients of converted models, right ones and wrong ones."""

import json

import mlx.core as mx
import mlx.nn
import numpy as np
import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.parity.reference.record_reference import record_reference
from mlxport.converter.parity.reference.torch_gradients import record_gradients
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.run.gradients import judge_gradients
from mlxport.converter.parity.verdict.entry import BACKWARD


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv3d(1, 4, 3, stride=2, padding=1)
        self.norm = nn.InstanceNorm3d(4, affine=True)
        self.up = nn.ConvTranspose3d(4, 3, 3, stride=2, padding=1, output_padding=1, groups=1)
        self.head = nn.Conv3d(4, 2, 1)

    def forward(self, x):
        y = nn.functional.leaky_relu(self.norm(self.down(x)), inplace=True)
        return self.head(torch.cat([self.up(y), x], 1))


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.out = nn.Linear(8, 11, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids):
        return self.out(self.layer(self.embed(ids)))


class Recurs(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True)

    def forward(self, x):
        y, (h, _) = self.lstm(x)
        return {"y": y, "last": h, "best": y.argmax(-1)}


class Scales(nn.Module):
    """Parameters that are no layer's, and an input by name."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, groups=2)
        self.gamma = nn.Parameter(torch.randn(1, 4, 1, 1))
        self.frozen = nn.Parameter(torch.randn(4, 1, 1), requires_grad=False)

    def forward(self, x, *, mask):
        return self.conv(x) * self.gamma + self.frozen * mask


class Grouped(nn.Sequential):
    def __init__(self):
        up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)
        super().__init__(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), up)


NETWORKS = {
    "U-Net": (UNet, (torch.randn(1, 1, 4, 6, 8),), {}),
    "transformer with tied weights": (Attends, (torch.randint(0, 11, (2, 7)),), {}),
    "LSTM": (Recurs, (torch.randn(2, 4, 3),), {}),
    "parameters of its own": (
        Scales,
        (torch.randn(1, 2, 5, 6),),
        {"mask": torch.randn(1, 4, 3, 4)},
    ),
    "grouped transposed convolution": (Grouped, (torch.randn(2, 2, 5, 6),), {}),
}


# what picks values by places that come from the values
PICKS = {
    "sort": lambda x: x.sort(-1).values,
    "sort descending": lambda x: x.sort(0, descending=True).values,
    "topk": lambda x: x.topk(2, -1).values,
    "argsort": lambda x: torch.take_along_dim(x, x.argsort(1), 1),
    "median": lambda x: x.median(-1).values,
    "nanmedian": lambda x: x.nanmedian(-1).values,
    "kthvalue": lambda x: x.kthvalue(2, 1).values,
    "mode": lambda x: x.mode(-1).values,
    "max": lambda x: x.max(-1).values,
    "cummax": lambda x: x.cummax(-1).values,
}


def converted(net, *inputs, **options):
    return mlxport.convert(net.eval(), inputs, **options)


def named(report):
    return {entry.name.removeprefix("gradient of "): entry for entry in report.gradients}


def failing(report):
    return {name for name, entry in named(report).items() if entry.failing}


class TestARightModel:
    @pytest.mark.parametrize("channels_last", [False, True])
    @pytest.mark.parametrize(("make", "inputs", "kwargs"), NETWORKS.values(), ids=NETWORKS)
    def test_passes(self, make, inputs, kwargs, channels_last):
        net = make()
        options = {"channels_last": channels_last, "gradients": True}
        report = mlxport.convert(net.eval(), inputs, kwargs, **options).report
        assert report.passed, report.to_text()
        parameters = {name for name, _ in net.named_parameters()}
        floating = sum(x.is_floating_point() for x in [*inputs, *kwargs.values()])
        judged = {name for name, entry in named(report).items() if entry.judged}
        assert parameters <= judged
        assert len(judged) == len(parameters) + floating

    @pytest.mark.parametrize("pick", PICKS.values(), ids=PICKS)
    def test_passes_where_it_picks(self, pick):
        class Picks(nn.Module):
            def forward(self, x):
                return pick(x)

        report = converted(Picks(), torch.randn(3, 4, 6), gradients=True).report
        assert report.passed, report.to_text()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_passes_in_half_precision(self, dtype):
        net, x = Grouped().to(dtype), torch.randn(2, 2, 5, 6, dtype=dtype)
        report = converted(net, x, gradients=True).report
        assert report.passed, report.to_text()
        assert {v.verdicts[BACKWARD].dtype for v in report.gradients} == {str(dtype)[6:]}

    def test_passes_where_it_draws(self):
        class Noisy(nn.Linear):
            def forward(self, x):
                return super().forward(x * torch.randn_like(x))

        assert converted(Noisy(3, 4), torch.randn(2, 3), gradients=True).report.passed

    def test_is_left_as_it_was(self):
        net = Grouped().eval()
        before = {name: p.clone() for name, p in net.named_parameters()}
        result = converted(net, torch.randn(2, 2, 5, 6))
        weights = {name: np.array(a) for name, a in mlx.utils.tree_flatten(result.model)}
        mlxport.verify(result.model, net, torch.randn(2, 2, 5, 6), gradients=True)
        for name, array in mlx.utils.tree_flatten(result.model):
            assert np.array_equal(array, weights[name])
        for name, parameter in net.named_parameters():
            assert torch.equal(parameter, before[name])
            assert parameter.grad is None

    def test_has_no_gradients_unless_asked(self):
        report = converted(Grouped(), torch.randn(2, 2, 5, 6)).report
        assert report.gradients == ()
        assert "gradient" not in report.to_text() + report.to_markdown()

    def test_lists_them_by_the_order_of_calls(self):
        report = converted(UNet(), torch.randn(1, 1, 4, 6, 8), gradients=True).report
        layers = ("down", "norm", "up", "head")
        native = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
        assert [*named(report)] == ["x", *native]
        assert [entry.path for entry in report.gradients[1:3]] == ["down", "down"]
        assert [entry.output for entry in report.gradients[1:3]] == [0, 1]
        # in the layout of MLX
        assert named(report)["down.weight"].verdicts[BACKWARD].shape == (4, 3, 3, 3, 1)
        assert named(report)["x"].verdicts[BACKWARD].shape == (1, 1, 4, 6, 8)


def stopped(cls):
    class Stopped(cls):
        def __call__(self, x):
            return super().__call__(mx.stop_gradient(x))

    return Stopped


def frozen(cls):
    """The weight has no gradient, all else has."""

    class Frozen(cls):
        def __call__(self, x):
            weight = self.weight
            self.weight = mx.stop_gradient(weight)
            try:
                return super().__call__(x)
            finally:
                self.weight = weight

    return Frozen


def off(cls):
    """A derivative that is 1 % too large."""

    @mx.custom_function
    def same(x):
        return x

    @same.vjp
    def same_vjp(x, cotangent, output):
        return cotangent * 1.01

    class Off(cls):
        def __call__(self, x):
            return super().__call__(same(x))

    return Off


FAULTS = {
    "no gradient of the input of a layer": (
        "up",
        stopped,
        {"x", "down.weight", "down.bias", "norm.weight", "norm.bias"},
        "norm",
    ),
    "no gradient of a weight": ("norm", frozen, {"norm.weight"}, "norm"),
    "a derivative that is a little off": (
        "norm",
        off,
        {"x", "down.weight"},  # the bias has none but noise
        "down",
    ),
}


class TestAWrongGradient:
    @pytest.mark.parametrize(("layer", "spoil", "expected", "culprit"), FAULTS.values(), ids=FAULTS)
    def test_is_found_by_name(self, layer, spoil, expected, culprit):
        net, x = UNet().eval(), torch.randn(1, 1, 4, 6, 8)
        model = converted(net, x).model
        module = getattr(model, layer)
        module.__class__ = spoil(type(module))
        report = mlxport.verify(model, net, x, gradients=True)
        # the bias before an instance norm has no gradient but rounding
        assert failing(report) | {"down.bias"} == expected | {"down.bias"}
        assert not report.passed
        assert not any(entry.failing for entry in [*report.entries, *report.outputs])
        assert report.culprit == culprit
        assert f"parity FAILED at gradient of {culprit}." in report.verdict
        assert "backwards it is not" in report.verdict

    def test_that_cannot_be_computed_fails(self):
        net, x = UNet().eval(), torch.randn(1, 1, 4, 6, 8)
        model = converted(net, x).model

        @mx.custom_function
        def refuses(x):
            return x

        @refuses.vjp
        def refuses_vjp(x, cotangent, output):
            raise ValueError("no derivative")

        class Refusing(type(model.norm)):
            def __call__(self, x):
                return super().__call__(refuses(x))

        model.norm.__class__ = Refusing
        report = mlxport.verify(model, net, x, gradients=True)
        assert not report.passed
        assert "MLX fails to differentiate: ValueError: no derivative" in report.verdict
        assert "MLX gives no gradient" in report.verdict

    def test_where_pytorch_detaches_is_found(self):
        class Detaches(nn.Linear):
            def forward(self, x):
                return super().forward(x) + x.detach()

        report = converted(Detaches(3, 3), torch.randn(2, 3), gradients=True).report
        assert failing(report) == {"x"}


class TestWhatIsNotJudged:
    def reasons(self, net, *inputs):
        report = converted(net, *inputs, gradients=True).report
        return report, {n: e.skipped[BACKWARD] for n, e in named(report).items() if e.skipped}

    def test_a_folded_norm(self):
        net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Linear(4, 2))
        report, reasons = self.reasons(net, torch.randn(2, 3))
        assert report.passed
        assert "1 gradient not judged" in report.verdict
        (reason,) = reasons.values()
        assert "fold_weight_norm" in reason
        assert "not judged gradient" in report.to_text()

    def test_an_integer_input(self):
        report, reasons = self.reasons(nn.Sequential(nn.Embedding(5, 3)), torch.tensor([1, 4]))
        assert report.passed
        assert reasons == {"input": "it is no floating number"}

    def test_a_model_that_gives_none(self):
        class Chooses(nn.Module):
            def forward(self, x):
                return x.argmax(-1)

        report, reasons = self.reasons(Chooses(), torch.randn(2, 3))
        assert not report.passed
        assert [*reasons] == ["gradients"]
        assert report.verdict == (
            "parity NOT SHOWN: of the model's gradients no value was compared"
        )


@pytest.fixture(scope="module")
def report():
    return converted(Grouped(), torch.randn(2, 2, 5, 6), gradients=True).report


class TestReports:
    def test_go_through_json(self, report):
        data = json.loads(json.dumps(report.to_json(), allow_nan=False))
        assert ParityReport.from_json(data) == report

    def test_of_before_have_none(self, report):
        data = report.to_json()
        del data["gradients"]
        assert ParityReport.from_json(data).gradients == ()

    @pytest.mark.parametrize("form", ["to_text", "to_markdown", "to_html"])
    def test_show_them(self, report, form):
        page = getattr(report, form)()
        assert "gradient of 3.weight" in page
        assert "gradient of 0.bias" in page

    def test_count_them(self, report):
        assert "1 output, 4 layer calls and 7 gradients within" in report.verdict


class Kinked(nn.Module):
    """Units whose sums are 0 but for rounding, on the input it was made with."""

    def __init__(self, x, units=3):
        super().__init__()
        weight = torch.randn(units, x.shape[-1], dtype=torch.float64)
        weight[:, -1] = -(weight[:, :-1] @ x[0, :-1].double()) / x[0, -1].double()
        self.weight = nn.Parameter(weight.float())

    def forward(self, x):
        return torch.relu((x[:, None] * self.weight).sum(-1))


def test_a_value_at_a_kink_is_no_fault():
    """Where rounding decides the side of a ReLU, either gradient is right."""
    first_look = 0
    for seed in range(8):
        torch.manual_seed(seed)
        x = torch.randn(1, 512)
        net = Kinked(x).eval()
        result = converted(net, x, gradients=True)
        assert not failing(result.report), (seed, result.report.to_text())
        reference = record_reference(net, (x,), paths=())
        plain = record_gradients(net, (x,), reference=reference)
        entries = judge_gradients(result.model, result.conversion, reference, plain)
        first_look += any(entry.failing for entry in entries)
    assert first_look  # the second look is what passes them


def test_of_a_model_from_a_checkpoint_with_other_keys(tmp_path):
    net, x = Grouped().eval(), torch.randn(2, 2, 5, 6)
    state = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save(state, tmp_path / "net.pt")
    result = mlxport.convert_checkpoint(
        tmp_path / "net.pt", tmp_path / "out", model=net, inputs=[x], gradients=True
    )
    again = mlxport.verify(result.model, net, x, gradients=True)
    for report in (result.report, again):
        assert report.passed
        assert {*named(report)} == {"input", *dict(net.named_parameters())}
