import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.reference.record_reference import record_reference
from mlxport.converter.parity.reference.recorder import Recorder
from mlxport.converter.parity.verdict.reference_data import sample_indices

PATHS = ["stem", "acts.N", "blocks.0.conv", "blocks.0.norm", "blocks.0", "shared", "split"]


def record(module, *args, paths=(), **options):
    return record_reference(module, args, paths=paths, **options)


def noise(value):
    return np.linalg.norm(value.native - value.reference) / np.linalg.norm(value.reference)


@pytest.fixture
def x():
    return torch.randn(2, 2, 6, 5)


class TestOfANetwork:
    @pytest.fixture
    def net(self, make_net):
        return make_net()

    def test_calls_come_in_the_order_of_their_return(self, net, x):
        calls = record(net, x, paths=PATHS).calls
        assert [(call.path, call.number) for call in calls] == [
            ("stem", 0),
            ("acts.N", 0),
            ("blocks.0.conv", 0),
            ("blocks.0.norm", 0),
            ("blocks.0", 0),
            ("shared", 0),
            ("shared", 1),
            ("split", 0),
        ]

    def test_values_are_those_of_the_model(self, net, x):
        reference = record(net, x, paths=PATHS)
        exact = copy.deepcopy(net).eval().double()
        with torch.no_grad():
            native, want = net.eval()(x), exact(x.double())
            stem = exact.stem(x.double())
        flat = [native[0], *native[1]], [want[0], *want[1]]
        for value, one, two in zip(reference.outputs, *flat, strict=True):
            assert value.shape == tuple(one.shape)
            assert value.dtype == str(one.dtype).removeprefix("torch.")
            assert value.indices is None
            np.testing.assert_array_equal(value.native, one.to(two.dtype).reshape(-1))
            np.testing.assert_array_equal(value.reference, two.reshape(-1))
        # the ReLU after it works in place and must not reach what was recorded
        np.testing.assert_array_equal(reference.calls[0].outputs[0].reference, stem.reshape(-1))
        assert (reference.calls[0].outputs[0].reference < 0).any()

    def test_noise_is_float32s(self, net, x):
        for call in record(net, x, paths=PATHS).calls:
            assert 1e-9 < noise(call.outputs[0]) < 1e-6

    def test_inputs_are_kept_only_if_asked_for(self, net, x):
        assert all(c.inputs is None and not c.alone for c in record(net, x, paths=PATHS).calls)
        calls = {c.path: c for c in record(net, x, paths=PATHS, keep_inputs=True).calls}
        np.testing.assert_array_equal(calls["stem"].inputs[0].bits, x)
        relu = calls["acts.N"]  # works in place: its input is kept as it was
        assert (relu.inputs[0].bits < 0).any()
        assert noise(relu.outputs[0]) > 0
        assert noise(relu.alone[0]) == 0

    def test_alone_is_one_module_in_float64_on_the_own_input(self, net, x):
        reference = record(net, x, paths=PATHS, keep_inputs=True)
        call = next(c for c in reference.calls if c.path == "shared" and c.number == 1)
        exact = copy.deepcopy(net.shared).double()
        with torch.no_grad():
            want = exact(torch.from_numpy(call.inputs[0].bits).double())
        np.testing.assert_allclose(call.alone[0].reference, want.reshape(-1), rtol=1e-14)
        np.testing.assert_array_equal(call.alone[0].native, call.outputs[0].native)

    def test_nothing_is_left_changed(self, net, x):
        net.train()
        net.blocks[0].norm.eval()
        modes = [part.training for part in net.modules()]
        state, given = copy.deepcopy(net.state_dict()), x.clone()
        random, default = torch.get_rng_state(), torch.get_default_dtype()
        record(net, x, paths=PATHS, keep_inputs=True)
        assert [part.training for part in net.modules()] == modes
        assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
        assert all(p.dtype == torch.float32 for p in net.parameters())
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
        assert torch.equal(x, given)
        assert torch.equal(torch.get_rng_state(), random)
        assert torch.get_default_dtype() == default
        assert torch.backends.mha.get_fastpath_enabled()

    def test_large_tensors_are_sampled_but_not_the_outputs(self, net, x):
        whole = record(net, x, paths=PATHS)
        sampled = record(net, x, paths=PATHS, sample=30, keep_inputs=True)
        for one, two in zip(whole.calls, sampled.calls, strict=True):
            for full, few, alone in zip(one.outputs, two.outputs, two.alone, strict=True):
                if full.reference.size <= 30:
                    assert few.indices is None
                    continue
                assert few.shape == full.shape
                assert 20 <= few.indices.size <= 30
                np.testing.assert_array_equal(few.reference, full.reference[few.indices])
                np.testing.assert_array_equal(few.native, full.native[few.indices])
                np.testing.assert_array_equal(alone.indices, few.indices)
        assert all(value.indices is None for value in sampled.outputs)

    def test_one_call_keeps_no_more_than_the_sample(self):
        class Several(nn.Module):
            def forward(self, x):
                return x, x[:1], x * 2, x.sum()

        class Around(nn.Module):
            def __init__(self):
                super().__init__()
                self.several = Several()

            def forward(self, x):
                return self.several(x)[2]

        (call,) = record(Around(), torch.randn(40, 10), paths=["several"], sample=101).calls
        sizes = [value.reference.size for value in call.outputs]
        assert (sizes[1], sizes[3]) == (10, 1)  # small ones are whole
        assert 30 <= sizes[0] <= 45
        assert sum(sizes) <= 101

    @pytest.mark.parametrize(
        ("dtype", "lower", "upper"), [(torch.bfloat16, 1e-4, 3e-2), (torch.float16, 1e-5, 3e-3)]
    )
    def test_half_precision(self, make_net, x, dtype, lower, upper):
        reference = record(make_net(dtype=dtype), x.to(dtype), paths=PATHS)
        assert reference.dtype == str(dtype).removeprefix("torch.")
        assert lower < noise(reference.outputs[0]) < upper

    def test_every_unknown_path_is_listed(self, net, x):
        with pytest.raises(ParityError, match=r"(?s)no such submodules:.*nowhere.*blocks\.9"):
            record(net, x, paths=["stem", "nowhere", "blocks.9"])


def test_a_module_with_two_names_stands_under_the_first_asked_for():
    net = nn.Sequential(nn.Linear(3, 3))
    net.add_module("again", net[0])
    reference = record(net, torch.randn(2, 3), paths=["again", "0", ""])
    assert [(call.path, call.number) for call in reference.calls] == [("again", 0), ("again", 1)]
    assert reference.aliases == {"again": "again", "0": "again"}


def test_keyword_and_nested_arguments_are_flattened():
    class Sum(nn.Module):
        def forward(self, pair, scale, *, bias):
            return {"sum": pair[0] + pair[1] * scale + bias}

    a, b, c = torch.randn(3, 2)
    reference = record_reference(Sum(), ([a, b], 2), {"bias": c}, paths=[])
    assert [x.bits.tolist() for x in reference.inputs] == [a.tolist(), b.tolist(), c.tolist()]
    np.testing.assert_allclose(reference.outputs[0].reference, a + 2 * b + c, rtol=1e-6)


def test_arguments_the_model_writes_into_stay_as_they_are():
    class Writes(nn.Module):
        def forward(self, x):
            x += 1
            return x * 2

    x = torch.zeros(3)
    reference = record(Writes(), x, paths=[])
    assert x.tolist() == [0, 0, 0]
    assert reference.inputs[0].bits.tolist() == [0, 0, 0]
    assert reference.outputs[0].native.tolist() == [2, 2, 2]


CASTS = {
    "float": lambda x: x.float() / 3,
    "to": lambda x: x.to(torch.float32) / 3,
    "type": lambda x: x.type(torch.float32) / 3,
    "softmax": lambda x: torch.softmax(x, 0, dtype=torch.float32),
    "cumsum": lambda x: x.cumsum(0, dtype=torch.float32) / 3,
    "zeros": lambda x: x / (torch.zeros(4) + 3),
    "zeros of a dtype": lambda x: x / (torch.zeros(4, dtype=torch.float32) + 3),
    "arange": lambda x: x * torch.arange(4, dtype=torch.float32) / 3,
    "linspace": lambda x: torch.linspace(0, 1, 4) + x,
}


@pytest.mark.parametrize("forward", CASTS.values(), ids=CASTS)
def test_casts_and_constants_are_float64_there(forward):
    class Casts(nn.Module):
        def forward(self, x):
            return forward(x)

    value = record(Casts(), torch.randn(4), paths=[]).outputs[0]
    assert value.reference_dtype == "float64"
    assert value.dtype == "float32"
    assert (value.reference.astype(np.float32) != value.reference).any()
    assert noise(value) < 1e-6


def test_a_plain_tensor_attribute_is_widened_too():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.randn(3, 3)

        def forward(self, x):
            return x @ self.weight

    reference = record(Plain(), torch.randn(2, 3), paths=[])
    assert reference.fallback == ""
    assert noise(reference.outputs[0]) > 0


def test_integers_stay():
    net = nn.Embedding(5, 3)
    reference = record(net, torch.tensor([[1, 4]]), paths=[])
    assert reference.inputs[0].dtype == "I64"
    assert noise(reference.outputs[0]) == 0


class TestWithoutFloat64:
    class Narrow(nn.Module):
        """Fails in float64, between two layers that do not."""

        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            y = self.one(x)
            if y.dtype == torch.float64:
                raise NotImplementedError("no kernel\nfor float64")
            return self.two(y)

    @pytest.fixture
    def reference(self):
        return record(self.Narrow(), torch.randn(2, 3), paths=["one", "two"], keep_inputs=True)

    def test_the_own_dtype_is_the_reference_and_the_reason_noted(self, reference):
        assert reference.fallback == "float64 failed: NotImplementedError: no kernel"
        assert reference.reference_dtype == "float32"
        for value in (*reference.outputs, *reference.calls[1].outputs):
            assert value.reference_dtype == "float32"
            np.testing.assert_array_equal(value.reference, value.native)

    def test_what_does_run_in_float64_is_kept(self, reference):
        one, two = reference.calls
        for value in (*one.outputs, *one.alone, *two.alone):
            assert value.reference_dtype == "float64"
            assert noise(value) > 0

    def test_a_value_of_another_shape_there_is_its_own_reference(self):
        class Shape(nn.Module):
            def forward(self, x):
                return x[: 2 if x.dtype == torch.float64 else 3] / 3

        (value,) = record(Shape(), torch.randn(5), paths=[]).outputs
        assert value.shape == (3,)
        assert value.reference_dtype == "float32"
        np.testing.assert_array_equal(value.reference, value.native)

    def test_the_models_own_error_is_not_swallowed(self):
        with pytest.raises(RuntimeError, match="cannot be multiplied"):
            record(self.Narrow(), torch.randn(2, 7), paths=[])


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_old_style_weight_norm_can_be_copied():
    net = nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(3, 3)))
    net(torch.randn(2, 3))  # leaves a computed weight behind
    reference = record(net, torch.randn(2, 3), paths=["0"])
    assert reference.fallback == ""
    assert noise(reference.outputs[0]) > 0


def test_what_cannot_be_copied_is_run_itself():
    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    reference = record(nn.Sequential(Stubborn(3, 4)), torch.randn(2, 3), paths=["0"])
    assert reference.fallback == ""
    assert noise(reference.outputs[0]) > 0


def test_attention_calls_every_module_inside():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    reference = record(layer, torch.randn(1, 3, 8), paths=["self_attn", "linear1", "norm2"])
    assert [call.path for call in reference.calls] == ["self_attn", "linear1", "norm2"]


def test_attention_does_not_take_its_fused_path():
    class Path(nn.Module):
        def forward(self, x):
            return x + torch.backends.mha.get_fastpath_enabled()

    assert record(Path(), torch.zeros(1), paths=[]).outputs[0].native == [0]
    assert torch.backends.mha.get_fastpath_enabled()


def test_random_numbers_are_the_seeds():
    class Noise(nn.Module):
        def forward(self, x):
            return x + torch.randint(0, 1000, x.shape)

    one, two = (record(Noise(), torch.zeros(9), paths=[], seed=s).outputs[0] for s in (1, 2))
    np.testing.assert_array_equal(one.native, one.reference)
    assert (one.native != two.native).any()


class TestSampleIndices:
    @pytest.mark.parametrize(("size", "sample"), [(101, 100), (150, 100), (10**6, 100)])
    def test_are_ascending_distinct_and_everywhere(self, size, sample):
        indices = sample_indices(size, sample, 0)
        assert (np.diff(indices) > 0).all()
        assert 0 <= indices[0] <= size / sample
        assert size - size / sample - 1 <= indices[-1] < size
        assert np.diff(indices).max() <= 2 * size / sample + 1
        assert indices.size >= 0.6 * sample

    def test_repeat_with_the_seed(self):
        one, two, other = (sample_indices(1000, 10, seed) for seed in (3, 3, 4))
        np.testing.assert_array_equal(one, two)
        assert (one != other).any()

    def test_all_where_there_are_few(self):
        assert sample_indices(100, 100, 0) is None


# -- what is computed once -----------------------------------------------------------------------


class Inner(nn.Module):
    """Hands its input on, writes into it, and hands it on again."""

    def __init__(self, writes: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.writes = writes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        if self.writes:
            x.mul_(2)
        z: torch.Tensor = self.norm(self.second(x) + self.second(y))
        return z


class Nested(nn.Module):
    """Two levels of it, and one of them called twice on the same."""

    def __init__(self, writes: bool) -> None:
        super().__init__()
        self.one, self.other = Inner(writes), nn.Sequential(Inner(writes), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x * 1)
        y: torch.Tensor = self.other(x) + self.other(x)
        return y


@pytest.mark.parametrize("writes", [False, True])
def test_calls_with_the_same_inputs_run_once(writes: bool, monkeypatch: pytest.MonkeyPatch) -> None:

    torch.manual_seed(0)
    model = Nested(writes).eval()
    paths = [path for path, _ in model.named_modules() if path]
    runs: list[str] = []
    alone = Recorder._run_alone

    def counted(self: Any, call: Any, given: Any) -> Any:
        runs.append(call.path)
        return alone(self, call, given)

    monkeypatch.setattr(Recorder, "_run_alone", counted)

    def by_call() -> dict[tuple[str, int], Any]:
        found = record_reference(
            model, (torch.randn(3, 4),), {}, paths=paths, keep_inputs=True, seed=1
        )
        return {(call.path, call.number): call for call in found.calls}

    torch.manual_seed(1)
    shared = by_call()
    count = len(runs)
    monkeypatch.setattr(
        "mlxport.converter.parity.reference.recorder.same_tensors", lambda some, others: False
    )
    monkeypatch.setattr(Recorder, "_passes_inputs_to", lambda self, outer, call: False)
    torch.manual_seed(1)
    each = by_call()
    assert count < len(runs) - count == len(each)
    assert shared.keys() == each.keys()
    for key, call in each.items():
        for one, other in zip(shared[key].alone, call.alone, strict=True):
            assert np.array_equal(one.reference, other.reference), key
            assert np.array_equal(one.native, other.native), key
        for one, other in zip(shared[key].inputs, call.inputs, strict=True):
            assert np.array_equal(one.bits, other.bits), key


def test_what_cannot_be_judged_alone_does_not_run_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Nested(writes=False).eval()
    paths = [path for path, _ in model.named_modules() if path]
    given = (torch.randn(3, 4),)
    every = record_reference(model, given, paths=paths, keep_inputs=True).calls
    runs: list[str] = []
    alone = Recorder._run_alone

    def counted(self: Any, call: Any, given: Any) -> Any:
        runs.append(call.path)
        return alone(self, call, given)

    monkeypatch.setattr(Recorder, "_run_alone", counted)
    taken = {"one": {2}, "other": {1, 2}}  # PyTorch's modules take one tensor
    found = record_reference(model, given, paths=paths, taken=taken, keep_inputs=True).calls
    assert "one" not in runs
    assert "one.first" in runs
    assert "other" in runs
    assert "other.0.first" not in runs
    for one, other in zip(found, every, strict=True):
        left_out = one.path == "one"
        assert bool(one.alone) is not left_out
        assert (one.moved_alone is None) is left_out
        assert one.inputs is not None
        assert len(one.inputs) == 1
        for value, expected in zip(one.alone, other.alone, strict=False):
            np.testing.assert_allclose(value.reference, expected.reference, rtol=1e-12)
