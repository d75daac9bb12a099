"""Models written for MLX by hand, held to their torch models: orders, names, faults, errors."""

import importlib.util
import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import pytest
import torch
from torch import nn as tnn

import mlxport
from mlxport.converter.errors import OptionsError, ParityError
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.verdict.entry import ALONE, COMPILED, IN_PLACE, WHOLE
from mlxport.examples.unet3d import UNet3d

LAST = (0, 2, 3, 1)
SQUARE, OBLONG = (2, 3, 6, 6), (2, 3, 6, 5)


def by_hand():
    """The benchmarks' module of the hand-written U-Net."""
    path = Path(__file__).parents[4] / "benchmarks" / "unet_by_hand.py"
    spec = importlib.util.spec_from_file_location("unet_by_hand", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def randomised(net, seed=0):
    """A torch network in eval mode whose norms matter."""
    torch.manual_seed(seed)
    for part in net.modules():
        if isinstance(part, tnn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            part.weight.data.normal_()
            part.bias.data.normal_()
    return net.eval()


class Net(tnn.Module):
    """Convolutions, a pool and a linear head."""

    def __init__(self):
        super().__init__()
        self.stem = tnn.Conv2d(3, 6, 3, padding=1)
        self.enc = tnn.Sequential(tnn.Conv2d(6, 6, 3, padding=1), tnn.BatchNorm2d(6), tnn.ReLU())
        self.last = tnn.Conv2d(6, 6, 1)

    def forward(self, x):
        return self.last(self.enc(self.stem(x)))


class Port(nn.Module):
    """`Net`, channels-last."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.enc = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm(6), nn.ReLU())
        self.last = nn.Conv2d(6, 6, 1)

    def __call__(self, x):
        return self.last(self.enc(self.stem(x)))


@pytest.fixture
def net():
    return randomised(Net())


def loaded(model, net, **options):
    model.eval()
    mlxport.load_weights(model, net.state_dict(), **options)
    return model


def at(report, path, call=0):
    (entry,) = [e for e in report.entries if (e.path, e.call) == (path, call)]
    return entry


class TestRight:
    @pytest.mark.parametrize("size", [(8, 8, 8), (8, 12, 16)], ids=["cube", "oblong"])
    def test_unet3d(self, size):
        net = randomised(UNet3d(widths=(2, 4, 6)))
        model = loaded(by_hand().UNet3d(widths=(2, 4, 6)), net)
        report = mlxport.verify(model, net, torch.randn(1, 1, *size))
        assert report.passed, report.to_text()
        assert {entry.path for entry in report.entries} == {
            path
            for path, part in net.named_modules()
            if path and not isinstance(part, tnn.ModuleList)
        }
        for entry in report.entries:
            assert set(entry.verdicts) == {IN_PLACE, ALONE}, entry.path
            assert entry.order == (0, 2, 3, 4, 1)
        (output,) = report.outputs
        assert set(output.verdicts) == {IN_PLACE, WHOLE, COMPILED}
        assert output.order == (0, 2, 3, 4, 1)

    @pytest.mark.parametrize("shape", [SQUARE, OBLONG, (1, 3, 6, 6)], ids=str)
    def test_channels_last(self, net, shape):
        report = mlxport.verify(loaded(Port(), net), net, torch.randn(shape))
        assert report.passed, report.to_text()
        assert {entry.order for entry in report.entries} == {LAST}
        assert at(report, "enc.1").target == "enc.layers.1"

    @pytest.mark.parametrize("shape", [SQUARE, OBLONG], ids=str)
    def test_logical_outside(self, net, shape):
        class Outside(Port):
            def __call__(self, x):
                return super().__call__(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)

        report = mlxport.verify(loaded(Outside(), net), net, torch.randn(shape))
        assert report.passed, report.to_text()
        assert report.outputs[0].order == (0, 1, 2, 3)
        assert {entry.order for entry in report.entries} == {LAST}

    @pytest.mark.parametrize("shape", [SQUARE, OBLONG], ids=str)
    def test_a_layer_inside_may_store_its_axes_in_any_order(self, net, shape):
        class Turned(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight, self.bias = mx.zeros((6, 3, 3, 6)), mx.zeros(6)

            def __call__(self, x):
                y = mx.conv2d(x, self.weight, padding=1) + self.bias
                return y.transpose(2, 0, 3, 1)

        class Inside(Port):
            def __init__(self):
                super().__init__()
                self.stem = nn.Conv2d(3, 6, 3, padding=1)
                self.turn = Turned()

            def __call__(self, x):
                y = self.turn(self.stem(x)).transpose(1, 3, 0, 2)
                return self.last(self.enc.layers[2](self.enc.layers[1](y)))

        model = Inside()
        loaded(model, net, strict=False)
        model.turn.weight = model.enc.layers[0].weight
        model.turn.bias = model.enc.layers[0].bias
        report = mlxport.verify(model, net, torch.randn(shape), names={"enc.0": "turn"})
        assert report.passed, report.to_text()
        assert at(report, "enc.0").order == (3, 0, 1, 2)
        assert ALONE in at(report, "enc.0").verdicts
        assert "(3, 0, 1, 2) in MLX: enc.0 (MLX turn)" in report.to_text(width=400)

    def test_without_a_batch_axis(self, net):
        class Single(Port):
            def __call__(self, x):
                y = self.stem(x[None])
                return self.last(self.enc(y))[0]

        report = mlxport.verify(loaded(Single(), net), net, torch.randn(1, 3, 6, 5))
        assert report.passed, report.to_text()
        assert report.outputs[0].order == (2, 3, 1)

    def test_a_batch_axis_in_mlx_alone(self):
        net = tnn.Sequential(tnn.Linear(4, 5), tnn.Linear(5, 4)).eval()
        model = loaded(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 4)), net)
        x = torch.randn(7, 4)
        report = mlxport.verify(model, net, x, mlx_inputs=lambda x: x[None])
        assert report.passed, report.to_text()
        assert report.outputs[0].order == (-1, 0, 1)
        for entry in report.entries:
            assert set(entry.verdicts) == {IN_PLACE, ALONE}

    def test_layers_without_a_batch_axis(self):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = [nn.Linear(4, 5), nn.Linear(5, 4)]

            def __call__(self, x):
                return self.layers[1](self.layers[0](x[0]))[None]

        net = tnn.Sequential(tnn.Linear(4, 5), tnn.Linear(5, 4)).eval()
        names = {"*": "layers.*"}
        model = loaded(Twice(), net, rename=names)
        report = mlxport.verify(model, net, torch.randn(1, 7, 4), names=names)
        assert report.passed, report.to_text()
        for entry in report.entries:
            assert entry.order == (1, 2)
            assert set(entry.verdicts) == {IN_PLACE, ALONE}

    def test_the_report_survives_json(self, net):
        report = mlxport.verify(loaded(Port(), net), net, torch.randn(OBLONG))
        data = json.loads(json.dumps(report.to_json()))
        again = ParityReport.from_json(data)
        assert again == report
        assert again.notes == ("inputs given to MLX with PyTorch's axes (0, 2, 3, 1)",)

    def test_half_precision(self, net):
        net = net.to(torch.bfloat16)
        model = loaded(Port(), net)
        report = mlxport.verify(model, net, torch.randn(SQUARE, dtype=torch.bfloat16))
        assert report.dtype == "bfloat16"
        assert report.passed, report.to_text()
        assert {entry.order for entry in report.entries} == {LAST}

    def test_modes_and_weights_stay(self, net):
        model = loaded(Port(), net)
        before = {id(part): type(part) for _, part in model.named_modules()}
        mlxport.verify(model, net, torch.randn(OBLONG))
        assert {id(part): type(part) for _, part in model.named_modules()} == before


class Block(tnn.Module):
    """A transformer's block, batch first."""

    def __init__(self, size=8, batch_first=True):
        super().__init__()
        self.norm1 = tnn.LayerNorm(size)
        self.attn = tnn.MultiheadAttention(size, 2, batch_first=batch_first)
        self.norm2 = tnn.LayerNorm(size)
        self.mlp = tnn.Sequential(tnn.Linear(size, 16), tnn.GELU(), tnn.Linear(16, size))

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attn(y, y, y)[0]
        return x + self.mlp(self.norm2(x))


class BlockPort(nn.Module):
    def __init__(self, size=8):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attention = nn.MultiHeadAttention(size, 2, bias=True)
        self.up, self.down = nn.Linear(size, 16), nn.Linear(16, size)

    def __call__(self, x, mask=None):
        y = self.ln1(x)
        x = x + self.attention(y, y, y, mask)
        return x + self.down(nn.gelu(self.up(self.ln2(x))))


BLOCK_NAMES = {"norm*": "ln*", "attn": "attention", "mlp.0": "up", "mlp.2": "down"}


def block_port(net):
    state = dict(net.state_dict())
    for kind in ("weight", "bias"):
        parts = state.pop(f"attn.in_proj_{kind}").chunk(3)
        for name, part in zip(("query", "key", "value"), parts, strict=True):
            state[f"attn.{name}_proj.{kind}"] = part
    model = BlockPort().eval()
    mlxport.load_weights(model, state, rename=BLOCK_NAMES)
    return model


class TestTransformer:
    @pytest.fixture(params=[True, False], ids=["batch first", "sequence first"])
    def case(self, request):
        torch.manual_seed(0)
        net = Block(batch_first=request.param).eval()
        with torch.no_grad():
            net.attn.in_proj_bias.normal_()
        order = None if request.param else (1, 0, 2)
        return net, block_port(net), order

    @pytest.mark.parametrize("shape", [(2, 5, 8), (8, 8, 8)], ids=["oblong", "cube"])
    def test_passes(self, case, shape):
        net, model, order = case
        report = mlxport.verify(
            model, net, torch.randn(shape), names=BLOCK_NAMES, inputs_order=order
        )
        assert report.passed, report.to_text()
        expected = order or (0, 1, 2)
        assert report.outputs[0].order == expected
        for path in ("norm1", "attn", "norm2", "mlp.0", "mlp.2"):
            assert at(report, path).order == expected
            assert set(at(report, path).verdicts) == {IN_PLACE, ALONE}
        assert at(report, "attn.out_proj").skipped[IN_PLACE] == "never called in PyTorch"

    def test_what_stands_alone_is_listed(self, case):
        net, model, order = case
        report = mlxport.verify(
            model, net, torch.randn(2, 5, 8), names=BLOCK_NAMES, inputs_order=order
        )
        assert at(report, "mlp.1").skipped == dict.fromkeys(
            (IN_PLACE, ALONE), "the MLX model has no mlp.1"
        )
        assert "the MLX model has no mlp" in at(report, "mlp").skipped[ALONE]
        alone = [e for e in report.entries if "in the MLX model alone" in e.skipped.get(ALONE, "")]
        assert [(e.path, e.layer) for e in alone] == [
            (f"attention.{name}_proj", "Linear") for name in ("key", "query", "value")
        ]
        assert "the MLX model has no mlp.1" in report.to_text(width=300)

    def test_a_fault_in_attention(self, case):
        net, model, order = case
        model.attention.num_heads = 4
        report = mlxport.verify(
            model, net, torch.randn(8, 8, 8), names=BLOCK_NAMES, inputs_order=order
        )
        assert report.culprit == "attn"
        assert "attn (MLX attention)" in report.verdict
        for path in ("norm2", "mlp.0", "mlp.2"):
            assert at(report, path).verdicts[ALONE].passed


def scaled(path, factor):
    def spoil(model):
        part = model
        for name in path.split("."):
            part = part[int(name)] if name.isdecimal() else getattr(part, name)
        part.weight = part.weight * factor

    return spoil


def eps(model):
    model.enc.layers[1].eps = 1e-2


def stride(model):
    model.last.stride = (2, 2)


def turned_kernel(model):
    model.stem.weight = model.stem.weight.transpose(0, 2, 1, 3)


class TestFaults:
    @pytest.mark.parametrize("shape", [SQUARE, OBLONG, (6, 3, 6, 6)], ids=str)
    @pytest.mark.parametrize(
        ("spoil", "culprit"),
        [
            (scaled("stem", 1.001), "stem"),
            (scaled("stem", -3.0), "stem"),
            (turned_kernel, "stem"),
            (scaled("enc.layers.0", -2.0), "enc.0"),
            (eps, "enc.1"),
            (scaled("last", 0.0), "last"),
            (stride, "last"),
        ],
        ids=["a little", "much", "kernel turned", "in a Sequential", "eps", "zeros", "stride"],
    )
    def test_the_culprit_is_found(self, net, spoil, culprit, shape):
        model = loaded(Port(), net)
        spoil(model)
        report = mlxport.verify(model, net, torch.randn(shape))
        assert not report.passed
        assert report.culprit == culprit
        parts = {culprit} | ({"enc"} if culprit.startswith("enc.") else set())
        for entry in report.entries:  # whatever they are fed in place
            assert entry.verdicts[ALONE].passed == (entry.path not in parts), entry.path

    @pytest.mark.parametrize("factor", [1.0005, -3.0, 0.0])
    @pytest.mark.parametrize("culprit", ["a", "b"])
    def test_where_the_inputs_fit_in_every_order(self, culprit, factor):
        class Line(tnn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = (tnn.Conv1d(6, 6, 3, padding=1) for _ in range(2))

            def forward(self, x):
                return self.b(self.a(x).relu())

        class LinePort(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = (nn.Conv1d(6, 6, 3, padding=1) for _ in range(2))

            def __call__(self, x):
                return self.b(nn.relu(self.a(x)))

        torch.manual_seed(0)
        net = Line().eval()
        model = loaded(LinePort(), net)
        scaled(culprit, factor)(model)
        report = mlxport.verify(model, net, torch.randn(6, 6, 6))
        assert report.culprit == culprit
        assert report.notes[0].endswith("axes (0, 2, 1)")
        for entry in report.entries:
            assert entry.order == (0, 2, 1)
            assert entry.verdicts[ALONE].passed == (entry.path != culprit)

    @pytest.mark.parametrize("shape", [SQUARE, (6, 3, 6, 6)], ids=str)
    def test_a_result_turned_is_no_result(self, net, shape):
        class Turned(Port):
            def __call__(self, x):
                return super().__call__(x).transpose(0, 2, 1, 3)

        report = mlxport.verify(loaded(Turned(), net), net, torch.randn(shape))
        assert not report.passed
        assert report.culprit == ""
        assert all(entry.verdicts[ALONE].passed for entry in report.entries)

    def test_a_result_turned_passes_where_it_is_said(self, net):
        class Turned(Port):
            def __call__(self, x):
                return super().__call__(x).transpose(0, 2, 1, 3)

        model, x = loaded(Turned(), net), torch.randn(SQUARE)
        assert mlxport.verify(model, net, x, outputs_order=(0, 3, 2, 1)).passed
        assert not mlxport.verify(model, net, x, outputs_order="channels_last").passed

    def test_between_the_layers(self, net):
        class Off(Port):
            def __call__(self, x):
                return self.last(self.enc(self.stem(x).transpose(0, 2, 1, 3)))

        report = mlxport.verify(loaded(Off(), net), net, torch.randn(SQUARE))
        assert not report.passed
        assert report.culprit == "enc.0"
        assert at(report, "enc.0").failing == (IN_PLACE,)
        assert all(entry.verdicts[ALONE].passed for entry in report.entries)

    def test_inputs_that_do_not_tell_axes_apart_are_named(self, net):
        class Mean(Port):
            def __call__(self, x):
                return super().__call__(x) * 0

        class Zero(Net):
            def forward(self, x):
                return super().forward(x) * 0

        zero = Zero().eval()
        zero.load_state_dict(net.state_dict())
        report = mlxport.verify(loaded(Mean(), net), zero, torch.randn(6, 3, 6, 6))
        assert report.passed, report.to_text()
        (note,) = [note for note in report.notes if "alike" in note]
        assert "(0, 2, 3, 1), (0, 1, 2, 3)" in note


class TestBoundaries:
    class Fused(Port):
        """The batch norm's activation stands inside of a layer that has the name of another."""

        def __init__(self):
            super().__init__()
            conv, norm, _ = self.enc.layers
            self.enc = nn.Sequential(conv, norm, nn.Identity())

        def __call__(self, x):
            return self.last(nn.relu(self.enc(self.stem(x))))

    def test_another_boundary_fails(self, net):
        report = mlxport.verify(loaded(self.Fused(), net), net, torch.randn(OBLONG))
        assert report.culprit == "enc.2"
        assert not any(output.failing for output in report.outputs)

    def test_modules_can_be_left_out(self, net):
        names = {"enc": None, "re:enc": None, "enc.2": None}
        del names["enc"]  # as a prefix it would take all that is in it
        report = mlxport.verify(loaded(self.Fused(), net), net, torch.randn(OBLONG), names=names)
        assert report.passed, report.to_text()
        assert at(report, "enc.2").skipped[ALONE] == "left out by names"
        assert IN_PLACE in at(report, "enc.1").verdicts

    def test_arguments_in_another_order_are_not_judged_alone(self):
        class Two(tnn.Module):
            def __init__(self):
                super().__init__()
                self.mix = Mix()

            def forward(self, x):
                return self.mix(x, x.flip(0))

        class Mix(tnn.Module):
            def forward(self, a, b):
                return a - 2 * b

        class MixPort(nn.Module):
            def __call__(self, b, a):
                return a - 2 * b

        class TwoPort(nn.Module):
            def __init__(self):
                super().__init__()
                self.mix = MixPort()

            def __call__(self, x):
                return self.mix(x[::-1], x)

        report = mlxport.verify(TwoPort().eval(), Two().eval(), torch.randn(4, 3))
        assert report.passed, report.to_text()
        assert at(report, "mix").skipped == {
            ALONE: "its inputs in MLX are other values than in PyTorch"
        }

    @pytest.mark.parametrize("given", [0, 1])
    def test_one_of_two_results_is_told_by_its_values(self, given):
        class Both(tnn.Module):
            def forward(self, x):
                return x + 1, x - 1

        class Either(nn.Module):
            def __call__(self, x):
                return x + 1 - 2 * given

        class Whole(tnn.Module):
            def __init__(self):
                super().__init__()
                self.part = Both()

            def forward(self, x):
                return self.part(x)[given] * 2

        class WholePort(nn.Module):
            def __init__(self):
                super().__init__()
                self.part = Either()

            def __call__(self, x):
                return self.part(x) * 2

        report = mlxport.verify(WholePort().eval(), Whole().eval(), torch.randn(4, 3))
        assert report.passed, report.to_text()
        assert at(report, "part").output == given
        assert set(at(report, "part").verdicts) == {IN_PLACE, ALONE}

    def test_more_results_than_pytorch_are_not_judged(self):
        class Plus(tnn.Module):
            def __init__(self):
                super().__init__()
                self.part = tnn.Identity()

            def forward(self, x):
                return self.part(x)

        class Two(nn.Module):
            def __call__(self, x):
                return x * 1, x + 1

        class PlusPort(nn.Module):
            def __init__(self):
                super().__init__()
                self.part = Two()

            def __call__(self, x):
                return self.part(x)[0]

        report = mlxport.verify(PlusPort().eval(), Plus().eval(), torch.randn(4, 3))
        assert report.passed, report.to_text()
        reason = "gives 1 tensors in PyTorch, 2 in MLX"
        assert at(report, "part").skipped == dict.fromkeys((IN_PLACE, ALONE), reason)

    def test_a_shape_no_order_fits_is_not_judged(self):
        class Flat(tnn.Module):
            def forward(self, x):
                return x.flatten(2)

        class Same(nn.Module):
            def __call__(self, x):
                return x * 1

        class Whole(tnn.Module):
            def __init__(self):
                super().__init__()
                self.part = Flat()

            def forward(self, x):
                return self.part(x).mean(2)

        class WholePort(nn.Module):
            def __init__(self):
                super().__init__()
                self.part = Same()

            def __call__(self, x):
                return self.part(x).mean(axis=(2, 3))

        report = mlxport.verify(WholePort().eval(), Whole().eval(), torch.randn(2, 3, 4, 5))
        assert report.passed, report.to_text()
        reason = at(report, "part").skipped[IN_PLACE]
        assert reason.startswith("gives (2, 3, 20) in PyTorch, (2, 3, 4, 5) in MLX")


RENAME = {"stem": "entry", "enc.*": "blocks.0.part.*", "last": "out"}


class TestNames:
    class Renamed(nn.Module):
        def __init__(self):
            super().__init__()
            self.entry = nn.Conv2d(3, 6, 3, padding=1)
            self.blocks = [Stage()]
            self.out = nn.Conv2d(6, 6, 1)

        def __call__(self, x):
            return self.out(self.blocks[0](self.entry(x)))

    def test_renamed_as_the_weights_are(self, net):
        model = loaded(self.Renamed(), net, rename=RENAME)
        report = mlxport.verify(model, net, torch.randn(OBLONG), names=RENAME)
        assert report.passed, report.to_text()
        targets = {entry.path: entry.target for entry in report.entries if entry.verdicts}
        assert targets == {
            "stem": "entry",
            "enc.0": "blocks.0.part.layers.0",
            "enc.1": "blocks.0.part.layers.1",
            "enc.2": "blocks.0.part.layers.2",
            "enc": "blocks.0.part",  # its children all are
            "last": "out",
        }

    def test_the_culprit_is_named_in_both(self, net):
        model = loaded(self.Renamed(), net, rename=RENAME)
        scaled("blocks.0.part.layers.1", 1.01)(model)
        report = mlxport.verify(model, net, torch.randn(SQUARE), names=RENAME)
        assert report.culprit == "enc.1"
        assert "enc.1 (MLX blocks.0.part.layers.1)" in report.verdict

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ({"decoder.*": "enc.*"}, "rename no module of PyTorch"),
            ({"stem": "root"}, "leads to no module of the MLX model"),
            ({"gone": None}, "leaves out what PyTorch does not have"),
            ({"stem": "last"}, "one name"),
        ],
        ids=["no such in PyTorch", "no such in MLX", "nothing to leave out", "two to one"],
    )
    def test_names_that_do_not_fit(self, net, names, message):
        with pytest.raises(OptionsError, match=message):
            mlxport.verify(loaded(Port(), net), net, torch.randn(OBLONG), names=names)

    def test_nothing_pairs(self, net):
        model = loaded(self.Renamed(), net, rename=RENAME)
        with pytest.raises(ParityError, match=r"in PyTorch: stem, enc(.|\n)*in MLX: blocks.0"):
            mlxport.verify(model, net, torch.randn(OBLONG))

    def test_a_second_name_of_a_layer_pairs(self):
        class Twice(tnn.Module):
            def __init__(self):
                super().__init__()
                self.first = tnn.Linear(4, 4)
                self.again = self.first

            def forward(self, x):
                return self.again(self.first(x))

        class TwicePort(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

            def __call__(self, x):
                return self.second(self.first(x))

        net, names = Twice().eval(), {"again": "second"}
        model = loaded(TwicePort(), net, rename={"again.*": "second.*"})
        report = mlxport.verify(model, net, torch.randn(3, 4), names=names)
        assert report.passed, report.to_text()
        for call in range(2):
            assert set(at(report, "first", call).verdicts) == {IN_PLACE, ALONE}

    def test_layers_shared_in_mlx_alone(self, net):
        class Acts(tnn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.act1 = tnn.Linear(4, 4), tnn.ReLU()
                self.b, self.act2 = tnn.Linear(4, 4), tnn.ReLU()

            def forward(self, x):
                return self.act2(self.b(self.act1(self.a(x))))

        class Shared(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
                self.act1 = nn.ReLU()
                self.act2 = self.act1

            def __call__(self, x):
                return self.act2(self.b(self.act1(self.a(x))))

        net = Acts().eval()
        report = mlxport.verify(loaded(Shared(), net), net, torch.randn(3, 4))
        assert report.passed, report.to_text()
        for path in ("act1", "act2"):
            assert set(at(report, path).verdicts) == {IN_PLACE, ALONE}


class Stage(nn.Module):
    def __init__(self):
        super().__init__()
        self.part = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm(6), nn.ReLU())

    def __call__(self, x):
        return self.part(x)


class TestInputs:
    @pytest.mark.parametrize(
        "options",
        [
            {"inputs_order": "channels_last"},
            {"inputs_order": LAST},
            {"inputs_order": [LAST]},
            {"mlx_inputs": lambda x: x.transpose(*LAST)},
            {"mlx_inputs": lambda x: {"x": x.transpose(*LAST)}},
        ],
        ids=["word", "axes", "each", "function", "by name"],
    )
    def test_said(self, net, options):
        report = mlxport.verify(loaded(Port(), net), net, torch.randn(OBLONG), **options)
        assert report.passed, report.to_text()

    @pytest.mark.parametrize("wrap", [lambda a: a, lambda a: (a,), lambda a: {"x": a}])
    def test_given(self, net, wrap):
        x = torch.randn(OBLONG)
        given = wrap(mx.array(x.numpy()).transpose(*LAST))
        assert mlxport.verify(loaded(Port(), net), net, x, mlx_inputs=given).passed

    def test_other_values_fail(self, net):
        x = torch.randn(OBLONG)
        given = mx.array(x.numpy()).transpose(*LAST) + 1
        report = mlxport.verify(loaded(Port(), net), net, x, mlx_inputs=given)
        assert not report.passed
        assert all(entry.verdicts[ALONE].passed for entry in report.entries)

    @pytest.mark.parametrize(
        "options",
        [
            {"inputs_order": "channels_first"},
            {"inputs_order": (0, 1, 2)},
            {"inputs_order": (0, 2, 2, 1)},
            {"inputs_order": [LAST, LAST]},
            {"outputs_order": (0, 1)},
        ],
        ids=["unknown word", "too short", "twice", "too many", "outputs"],
    )
    def test_orders_that_do_not_fit(self, net, options):
        with pytest.raises(OptionsError, match="s_order"):
            mlxport.verify(loaded(Port(), net), net, torch.randn(OBLONG), **options)

    def test_one_of_two_is_channels_last(self):
        class Gate(tnn.Module):
            def __init__(self):
                super().__init__()
                self.conv = tnn.Conv2d(3, 6, 1)

            def forward(self, x, gate, scale=1):
                return self.conv(x) * gate * scale

        class GatePort(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(3, 6, 1)

            def __call__(self, x, gate, scale=1):
                return self.conv(x) * gate.transpose(0, 2, 3, 1) * scale

        net = Gate().eval()
        x, gate = torch.randn(2, 3, 6, 6), torch.randn(2, 6, 6, 6)
        model = loaded(GatePort(), net)
        report = mlxport.verify(model, net, (x,), {"scale": 3, "gate": gate})
        assert report.passed, report.to_text()
        assert report.notes == (
            "inputs given to MLX with PyTorch's axes (0, 2, 3, 1), (0, 1, 2, 3)",
        )

    def test_the_model_fails_on_them(self, net):
        model, x = loaded(Port(), net), torch.randn(2, 4, 6, 5)
        four = randomised(Net())
        four.stem = tnn.Conv2d(4, 6, 3, padding=1)
        message = r"in any order(.|\n)*\(2, 4, 6, 5\)(.|\n)*\(2, 6, 5, 4\)(.|\n)*mlx_inputs"
        with pytest.raises(ParityError, match=message):
            mlxport.verify(model, four, x)

    def test_training_mode(self, net):
        model = loaded(Port(), net)
        model.enc.layers[1].train()
        with pytest.raises(ParityError, match=r"training mode.*eval"):
            mlxport.verify(model, net, torch.randn(OBLONG))

    def test_another_number_of_outputs(self, net):
        class Pair(Port):
            def __call__(self, x):
                y = super().__call__(x)
                return y, y

        report = mlxport.verify(loaded(Pair(), net), net, torch.randn(OBLONG))
        assert not report.passed
        assert "number of tensors: PyTorch gives 1, MLX 2" in report.verdict

    def test_a_converted_model_needs_none_of_it(self, net):
        x = torch.randn(OBLONG)
        model = mlxport.convert(net, x, verify=False).model
        assert mlxport.verify(model, net, x).passed
        with pytest.raises(OptionsError, match="names, outputs_order: for models written by hand"):
            mlxport.verify(model, net, x, names={"stem": "stem"}, outputs_order="logical")
