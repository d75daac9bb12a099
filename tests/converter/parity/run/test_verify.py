import dataclasses
import math
from collections import Counter

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch
from mlx.utils import tree_map

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.reference.record_reference import record_reference
from mlxport.converter.parity.run import verify
from mlxport.converter.parity.run.verify import verify_bundle, verify_live
from mlxport.converter.parity.verdict.entry import ALONE, COMPILED, IN_PLACE, WHOLE
from mlxport.converter.parity.verdict.judgement import Judgement
from mlxport.converter.plan.record import Layout

ORDER = [
    ("stem", 0),
    ("acts.N", 0),
    ("blocks.0.conv", 0),
    ("blocks.0.norm", 0),
    ("blocks.0.act", 0),
    ("blocks.0", 0),
    ("shared", 0),
    ("blocks.1.conv", 0),
    ("blocks.1.norm", 0),
    ("blocks.1.act", 0),
    ("blocks.1", 0),
    ("shared", 1),
    ("split.head", 0),
    ("split", 0),
    ("split", 0),
]


def failing(report, mode):
    return {(entry.path, entry.call) for entry in report.entries if mode in entry.failing}


def with_modules(conversion, change):
    """A conversion with its module records changed: `change` returns a record's replacements."""
    modules = [new for record in conversion.modules for new in change(record)]
    return dataclasses.replace(conversion, modules=tuple(modules))


class TestARightModel:
    @pytest.mark.parametrize("seed", range(20))
    def test_raises_no_false_alarm(self, check, seed):
        report = check(seed=seed)
        assert report.passed, report.to_text()
        assert report.culprit is None

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_raises_no_false_alarm_in_half_precision(self, check, dtype):
        report = check(dtype=dtype)
        # classes may differ between near equal logits, in torch between its own runs too
        floats = [*report.entries, *report.outputs[:2]]
        assert not any(entry.failing for entry in floats), report.to_text()
        assert report.dtype == str(dtype).removeprefix("torch.")

    def test_is_judged_everywhere(self, check):
        report = check()
        assert [(entry.path, entry.call) for entry in report.entries] == ORDER
        assert all(set(entry.verdicts) == {IN_PLACE, ALONE} for entry in report.entries)
        assert all(set(entry.verdicts) == {IN_PLACE, WHOLE, COMPILED} for entry in report.outputs)
        assert [entry.output for entry in report.outputs] == [0, 1, 2]
        assert [e.output for e in report.entries if e.path == "split"] == [0, 1]
        assert all(v.compared for e in report.entries for v in e.verdicts.values())
        assert report.entries[0].layer == "Conv2d"
        assert report.entries[0].verdicts[ALONE].shape == (2, 4, 6, 5)

    def test_says_where_it_ran(self, check):
        environment = check().environment
        assert environment["backend"] in ("cpu", "metal", "cuda")
        assert environment["MLX_ENABLE_TF32"] == environment["MLX_CONV_WINOGRAD"] == "0"
        assert environment["reference torch"] == torch.__version__
        assert {"mlx", "device", "platform", "python", "numpy", "mlxport"} <= set(environment)

    def test_of_samples(self, twin, make_net, make_twin):
        net, conversion = make_net(), twin.conversion()
        paths = [record.path for record in conversion.modules]
        x = torch.randn(2, 2, 6, 5)
        reference = record_reference(net, (x,), paths=paths, sample=40, keep_inputs=True)
        report = verify_live(make_twin(net), conversion, reference)
        assert report.passed
        assert {e.verdicts[IN_PLACE].compared for e in report.entries} <= set(range(41))
        assert report.outputs[0].verdicts[WHOLE].compared == 2 * 3 * 6 * 5

    def test_that_may_fail_by_luck_is_run_again_only_in_place(
        self, twin, make_net, make_twin, monkeypatch
    ):
        net, conversion = make_net(), twin.conversion()
        paths = [record.path for record in conversion.modules]
        x = torch.randn(2, 2, 6, 5)
        reference = record_reference(net, (x,), paths=paths, keep_inputs=True)
        runs = {name: getattr(verify, name) for name in ("run_model", "trace")}
        alone = verify.CallTemplate.outputs
        ran = Counter()

        def run_model(*args, compiled=False):
            ran[COMPILED if compiled else WHOLE] += 1
            return runs["run_model"](*args, compiled=compiled)

        def trace(*args, **kwargs):
            ran[IN_PLACE] += 1
            return runs["trace"](*args, **kwargs)

        def outputs(template, given):
            ran[ALONE] += 1
            return alone(template, given)

        monkeypatch.setattr(verify, "run_model", run_model)
        monkeypatch.setattr(verify, "trace", trace)
        monkeypatch.setattr(verify.CallTemplate, "outputs", outputs)
        once = verify_live(make_twin(net), conversion, reference)
        first = Counter(ran)
        monkeypatch.setattr(verify, "_may_be_luck", lambda report: True)
        again = verify_live(make_twin(net), conversion, reference)
        assert ran - first - first == {IN_PLACE: 1}
        assert again.passed
        assert [e.verdicts[ALONE] for e in again.entries] == [
            e.verdicts[ALONE] for e in once.entries
        ]


def scaled(path, factor):
    def spoil(model):
        layer = model
        for name in path.split("."):
            layer = layer[int(name)] if name.isdigit() else layer[name]
        layer.weight = layer.weight * factor

    return spoil


def flipped(model):  # kernel axes confused: a wrong permutation of a square kernel
    model.blocks[1].conv.weight = mx.transpose(model.blocks[1].conv.weight, (0, 2, 1, 3))


def wrong_eps(model):
    model.blocks[0].norm.eps = 1e-3


def wrong_activation(model):
    model.acts["N"] = nn.LeakyReLU(1e-3).eval()


FAULTS = {
    "weights of the first layer": (scaled("stem", 1.001), "stem", {("stem", 0)}),
    "eps of a norm": (
        wrong_eps,
        "blocks.0.norm",
        {("blocks.0.norm", 0), ("blocks.0", 0)},
    ),
    "axes of a kernel": (flipped, "blocks.1.conv", {("blocks.1.conv", 0), ("blocks.1", 0)}),
    "another activation": (wrong_activation, "acts.N", {("acts.N", 0)}),
    "a layer called twice": (scaled("shared", 1.001), "shared", {("shared", 0), ("shared", 1)}),
    "the last layer": (
        scaled("split.head", 1.001),
        "split.head",
        {("split.head", 0), ("split", 0)},
    ),
}


class TestAFault:
    @pytest.mark.parametrize(("spoil", "culprit", "alone"), FAULTS.values(), ids=FAULTS)
    def test_is_named(self, check, spoil, culprit, alone):
        report = check(spoil)
        assert not report.passed
        assert report.culprit == culprit
        assert failing(report, ALONE) == alone
        first = ORDER.index((culprit, 0))
        assert failing(report, IN_PLACE) == set(ORDER[first:])
        assert all(WHOLE in entry.failing for entry in report.outputs[:2])

    def test_between_layers_fails_no_layer_alone(self, check, twin):
        class Shifted(twin.Twin):
            def between(self, y):
                return y * 1.001

        report = check(cls=Shifted)
        assert not report.passed
        assert failing(report, ALONE) == set()
        assert report.culprit == "split.head"  # the first to be fed something wrong
        assert "what it is fed is wrong" in report.verdict

    def test_inside_a_block_is_the_blocks(self, check, twin):
        class Doubled(twin.Block):
            def __call__(self, x):
                return super().__call__(x) * 1.001

        def spoil(model):
            model.blocks[1].__class__ = Doubled

        report = check(spoil)
        assert report.culprit == "blocks.1"
        assert failing(report, ALONE) == {("blocks.1", 0)}

    def test_after_the_last_layer_is_the_models(self, check, twin):
        class After(twin.Twin):
            def __call__(self, x):
                logits, rest = super().__call__(x)
                return logits * 1.001, rest

        report = check(cls=After)
        assert not report.passed
        assert report.culprit == ""
        assert [output.failing for output in report.outputs] == [
            (IN_PLACE, WHOLE, COMPILED),
            (),
            (),
        ]
        assert "after the layers" in report.verdict

    def test_of_the_lazy_graph_alone_is_seen_whole(self, check, twin):
        class Lazy(twin.Twin):
            def between(self, y):  # the trace has given this module's class another one
                return y if type(self.stem) is not nn.Conv2d else y * 1.001

        report = check(cls=Lazy)
        assert not report.passed
        assert failing(report, ALONE) == failing(report, IN_PLACE) == set()
        assert [output.failing for output in report.outputs[:2]] == [(WHOLE, COMPILED)] * 2
        assert report.culprit == ""
        assert "as one lazy graph it is not" in report.verdict

    def test_of_the_compiled_graph_alone_is_seen_compiled(self, check, monkeypatch):
        def compile_wrongly(model):
            return lambda *inputs, **named: tree_map(
                lambda x: x * 1.001 if mx.issubdtype(x.dtype, mx.floating) else x,
                model(*inputs, **named),
            )

        monkeypatch.setattr(mx, "compile", compile_wrongly)
        report = check()
        assert not report.passed
        assert failing(report, ALONE) == failing(report, IN_PLACE) == set()
        assert [output.failing for output in report.outputs[:2]] == [(COMPILED,)] * 2
        assert "compiled by mx.compile it is not" in report.verdict

    def test_what_does_not_compile_is_told_and_not_judged(self, check, monkeypatch):
        def refuse(model):
            raise ValueError("outputs must be arrays")

        monkeypatch.setattr(mx, "compile", refuse)
        report = check()
        assert report.passed
        reasons = {output.skipped[COMPILED] for output in report.outputs}
        assert [*reasons] == [reason for reason in reasons if "outputs must be arrays" in reason]

    def test_of_shape(self, check, twin):
        class Cropped(twin.Twin):
            def between(self, y):
                return y[:, 1:]

        report = check(cls=Cropped)
        assert not report.passed
        head = next(entry for entry in report.entries if entry.path == "split.head")
        assert "shape: PyTorch gives (2, 3, 6, 5), MLX (2, 3, 5, 5)" in str(head.verdicts)
        assert "fed (2, 6, 5, 4) in PyTorch, (2, 5, 5, 4) in MLX" in head.skipped[ALONE]

    def test_of_dtype(self, check, twin):
        class Half(twin.Twin):
            def between(self, y):
                return y.astype(mx.float16)

        def spoil(model):
            model.split.head.set_dtype(mx.float16)

        report = check(spoil, cls=Half)
        assert not report.passed
        assert any(
            "dtype" in problem
            for v in report.outputs[0].verdicts.values()
            for problem in v.problems
        )

    def test_of_the_number_of_outputs(self, check, twin):
        class Fewer(twin.Twin):
            def __call__(self, x):
                return super().__call__(x)[0]

        report = check(cls=Fewer)
        assert not report.passed
        assert len(report.outputs) == 3
        assert "number of tensors: PyTorch gives 3, MLX 1" in report.verdict

    def test_that_is_nan_is_seen(self, check, twin):
        class Nan(twin.Twin):
            def between(self, y):
                return mx.where(mx.arange(y.size).reshape(y.shape) == 7, mx.nan, y)

        report = check(cls=Nan)
        assert not report.passed
        assert "NaN" in report.verdict


class TestWhatCannotBeJudged:
    """is an entry with its reason, and no pass."""

    @pytest.fixture
    def pair(self, twin, make_net, make_twin):
        net = make_net()
        conversion = twin.conversion()
        return net, make_twin(net), conversion

    def verify(self, pair, conversion=None, *, net=None, recorded=None, model=None):
        torch_net, mlx_model, original = pair
        conversion = conversion or original
        paths = [record.path for record in original.modules] if recorded is None else recorded
        x = torch.randn(2, 2, 6, 5)
        reference = record_reference(net or torch_net, (x,), paths=paths, keep_inputs=True)
        return verify_live(model or mlx_model, conversion, reference)

    def skipped(self, report, path):
        entries = [entry for entry in report.entries if entry.path == path]
        assert entries
        assert not any(entry.verdicts for entry in entries)
        return {reason for entry in entries for reason in entry.skipped.values()}

    def test_not_recorded(self, pair):
        report = self.verify(pair, recorded=["stem"])
        assert self.skipped(report, "shared") == {"the reference was recorded without it"}
        assert report.passed
        assert "not judged" in report.verdict

    def test_never_called_in_pytorch(self, pair):
        net, _, _ = pair
        forward = type(net.blocks[0].act).forward
        net.blocks[0].act.forward = None  # would fail if called
        block = net.blocks[0]
        block.forward = lambda x: forward(block.act, block.norm(block.conv(x)))
        report = self.verify(pair)
        assert self.skipped(report, "blocks.0.act") == {"never called in PyTorch"}

    def test_never_called_in_mlx(self, pair):
        _, model, _ = pair
        model.blocks[0].act.__class__ = type("Inert", (nn.Module,), {})
        block = type(model.blocks[0])
        elided = {"__call__": lambda self, x: nn.relu(self.norm(self.conv(x)))}
        model.blocks[0].__class__ = type("Elided", (block,), elided)
        report = self.verify(pair)
        assert self.skipped(report, "blocks.0.act") == {"never called in MLX"}
        assert report.passed

    def test_called_another_number_of_times(self, pair, twin):
        _, model, _ = pair

        class Again(twin.Twin):
            def between(self, y):
                self.shared(y)
                return y

        model.__class__ = Again
        report = self.verify(pair)
        assert self.skipped(report, "shared") == {"called 2 times in PyTorch, 3 in MLX"}
        assert report.passed

    def test_another_number_of_tensors_than_converted(self, pair):
        _, _, conversion = pair

        def change(record):
            fewer = dataclasses.replace(record, outputs=record.outputs[:1])
            return [fewer if record.path == "split" else record]

        report = self.verify(pair, with_modules(conversion, change))
        assert self.skipped(report, "split") == {"gives 2 tensors in PyTorch, 1 as converted"}

    def test_arguments_that_are_no_tensors(self, pair, twin):
        _, model, _ = pair
        shared = type(model.shared)
        takes = {"__call__": lambda self, x, n=1: shared.__call__(self, x)}
        model.shared.__class__ = type("Takes", (shared,), takes)

        class Gives(twin.Twin):
            def __call__(self, x):
                x = x.transpose(0, 2, 3, 1)
                y = self.acts["N"](self.stem(x))
                for each in self.blocks:
                    y = self.shared(each(y), n=3)
                logits, rest = self.split(y)
                return logits, [rest["mean"], mx.argmax(logits, axis=-1).astype(mx.int64)]

        model.__class__ = Gives
        report = self.verify(pair)
        entries = [entry for entry in report.entries if entry.path == "shared"]
        assert len(entries) == 2
        for entry in entries:
            assert entry.skipped == {ALONE: "takes arguments that are no tensors (int)"}
            assert entry.verdicts[IN_PLACE].passed

    def test_another_number_of_arguments(self, pair):
        _, _, conversion = pair

        def change(record):
            return [dataclasses.replace(record, inputs=()) if record.path == "stem" else record]

        report = self.verify(pair, with_modules(conversion, change))
        assert "takes 1 tensors in PyTorch" in report.entries[0].skipped[ALONE]

    def test_a_stored_reference_holds_no_inputs(self, pair):
        net, model, conversion = pair
        paths = [record.path for record in conversion.modules]
        reference = record_reference(net, (torch.randn(2, 2, 6, 5),), paths=paths, keep_inputs=True)
        report = verify_bundle(model, conversion, reference)
        assert report.passed
        for entry in report.entries:
            assert set(entry.verdicts) == {IN_PLACE}
            assert entry.skipped == {ALONE: "the reference holds no layer inputs"}
        scaled("shared", 1.001)(model)
        assert verify_bundle(model, conversion, reference).culprit == "shared"


def test_alone_is_judged_by_the_noise_of_the_layer_alone(twin):
    class Cancels(torch.nn.Module):  # the model's noise from here on is large
        def forward(self, x):
            return (x + 1e4) - 1e4

    net = torch.nn.Sequential(Cancels(), torch.nn.Linear(3, 3))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(3, 3)

        def __call__(self, x):
            return self.lin((x + 1e4) - 1e4)

    model = Model().eval()
    model.lin.weight = mx.array(net[1].weight.detach().numpy()) * (1 + 1e-4)
    model.lin.bias = mx.array(net[1].bias.detach().numpy()) * (1 + 1e-4)
    at = (Layout((2, 3), "float32", (0, 1)),)
    modules = (twin.ModuleRecord("1", "lin", at, at), twin.ModuleRecord("", "", at, at))
    conversion = twin.Conversion(plan=twin.WeightPlan(), modules=modules, inputs=("x",))
    reference = record_reference(net, (torch.randn(2, 3),), paths=["1"], keep_inputs=True)
    report = verify_live(model, conversion, reference)
    assert report.entries[0].failing == (ALONE,)
    assert report.culprit == "1"


class TestPairing:
    def test_one_record_serves_all_calls(self, twin, make_net, make_twin):
        net, conversion = make_net(), twin.conversion()
        seen = set()

        def change(record):
            known = record.path in seen
            seen.add(record.path)
            return [] if known else [record]

        conversion = with_modules(conversion, change)
        assert sum(record.path == "shared" for record in conversion.modules) == 1
        paths = [record.path for record in conversion.modules]
        reference = record_reference(net, (torch.randn(2, 2, 6, 5),), paths=paths, keep_inputs=True)
        report = verify_live(make_twin(net), conversion, reference)
        assert report.passed
        assert sum(entry.path == "shared" for entry in report.entries) == 2

    @pytest.mark.parametrize("separate", [False, True], ids=["one object", "two objects"])
    def test_a_module_under_two_names(self, twin, separate):
        linear = torch.nn.Linear(3, 3)
        net = torch.nn.Sequential(linear, torch.nn.ReLU(), linear)

        class Two(nn.Module):
            def __init__(self):
                super().__init__()
                self.a = nn.Linear(3, 3)
                self.b = nn.Linear(3, 3) if separate else self.a

            def __call__(self, x):
                return self.b(nn.relu(self.a(x)))

        model = Two().eval()
        for layer in (model.a, model.b):
            layer.weight = mx.array(linear.weight.detach().numpy())
            layer.bias = mx.array(linear.bias.detach().numpy())
        at = Layout((2, 3), "float32", (0, 1))
        one = twin.ModuleRecord
        modules = (
            one("0", "a", (at,), (at,)),
            one("2", "b", (at,), (at,)),
            one("", "", (at,), (at,)),
        )
        conversion = twin.Conversion(plan=twin.WeightPlan(), modules=modules, inputs=("x",))
        reference = record_reference(net, (torch.randn(2, 3),), paths=["0", "2"], keep_inputs=True)
        report = verify_live(model, conversion, reference)
        assert report.passed
        assert [(entry.path, entry.call) for entry in report.entries] == [("0", 0), ("2", 1)]
        assert all(len(entry.verdicts) == 2 for entry in report.entries)

    def test_a_changed_name_is_reported_as_pytorchs(self, twin, make_net, make_twin):
        net, model = make_net(), make_twin(make_net())
        model.stem_ = model.pop("stem")
        model.__class__ = type("Renamed", (twin.Twin,), {"stem": property(lambda m: m.stem_)})

        def change(record):
            target = "stem_" if record.path == "stem" else record.target
            return [dataclasses.replace(record, target=target)]

        conversion = with_modules(twin.conversion(), change)
        reference = record_reference(net, (torch.randn(2, 2, 6, 5),), paths=["stem"])
        assert verify_live(model, conversion, reference).entries[0].path == "stem"


class TestRefusals:
    def verify(self, twin, make_net, make_twin, conversion=None, prepare=lambda m: None):
        net = make_net()
        model = make_twin(net)
        prepare(model)
        reference = record_reference(net, (torch.randn(2, 2, 6, 5),), paths=[])
        return verify_live(model, conversion or twin.conversion(), reference)

    def test_training_mode(self, twin, make_net, make_twin):
        with pytest.raises(ParityError, match=r"training mode.*blocks\.0\.norm.*\(1 in all\)"):
            self.verify(twin, make_net, make_twin, prepare=lambda m: m.blocks[0].norm.train())

    def test_a_path_that_leads_nowhere(self, twin, make_net, make_twin):
        conversion = with_modules(
            twin.conversion(),
            lambda r: [dataclasses.replace(r, target=r.target and r.target + "x")],
        )
        with pytest.raises(ParityError, match=r"(?s)stemx: nothing.*sharedx: nothing"):
            self.verify(twin, make_net, make_twin, conversion)

    def test_no_record_of_the_model(self, twin, make_net, make_twin):
        conversion = with_modules(twin.conversion(), lambda r: [r] * (r.path != ""))
        with pytest.raises(ParityError, match="0 records of the model itself"):
            self.verify(twin, make_net, make_twin, conversion)

    def test_inputs_of_another_rank(self, twin, make_net, make_twin):
        flat = (Layout((2, 6, 5), "float32", (0, 1, 2)),)
        conversion = with_modules(
            twin.conversion(), lambda r: [r if r.path else dataclasses.replace(r, inputs=flat)]
        )
        with pytest.raises(ParityError, match=r"inputs of \[4\] axes.*takes \[3\]"):
            self.verify(twin, make_net, make_twin, conversion)

    def test_another_number_of_outputs_than_converted(self, twin, make_net, make_twin):
        conversion = with_modules(
            twin.conversion(),
            lambda r: [r if r.path else dataclasses.replace(r, outputs=r.outputs[:1])],
        )
        with pytest.raises(ParityError, match=r"gives 3 tensors in PyTorch.*speaks of 1"):
            self.verify(twin, make_net, make_twin, conversion)


def test_the_noise_multiple_decides(check):
    ratio = max(entry.ratio for entry in check().outputs)
    assert 0 < ratio < math.inf
    assert check(judgement=Judgement(ratio / 2)).passed is False
    assert np.isclose(check(judgement=Judgement(ratio / 2)).noise_multiple, ratio / 2)
