import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.run import trace as tracing
from mlxport.converter.parity.run.trace import (
    arrays,
    leaves,
    mapped,
    mlx_dtype_name,
    run_model,
    trace,
)

PATHS = ["stem", "acts.N", "blocks.0.conv", "blocks.0", "shared", "split", ""]


@pytest.fixture
def model(twin):
    return twin.Twin().eval()


@pytest.fixture
def x():
    return mx.random.normal((2, 2, 6, 5))


def collected(model, x, targets=PATHS, **options):
    calls = []
    outputs = trace(model, [x], targets, calls.append, **options)
    return calls, outputs


def same(one, two):
    return all(np.array_equal(np.array(a), np.array(b)) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("evaluate", [True, False])
def test_the_model_computes_what_it_does_untraced(model, x, evaluate):
    _, outputs = collected(model, x, evaluate=evaluate)
    assert same(arrays(outputs), arrays(run_model(model, [x])))


def test_every_call_is_told_when_it_returns(model, x):
    calls, _ = collected(model, x)
    assert [(call.target, call.number) for call in calls] == [
        ("stem", 0),
        ("acts.N", 0),
        ("blocks.0.conv", 0),
        ("blocks.0", 0),
        ("shared", 0),
        ("shared", 1),
        ("split", 0),
        ("", 0),
    ]


def test_inputs_and_outputs_are_those_of_the_call(model, x):
    calls = {(call.target, call.number): call for call in collected(model, x)[0]}
    stem = calls["stem", 0]
    assert same(stem.args, [x.transpose(0, 2, 3, 1)])
    assert stem.kwargs == {}
    assert same(stem.outputs, [model.stem(stem.args[0])])
    assert same(calls["acts.N", 0].args, stem.outputs)
    assert [tuple(y.shape) for y in calls["split", 0].outputs] == [(2, 6, 5, 3), (2, 3)]
    assert len(calls["", 0].outputs) == 3
    assert calls["shared", 0].module is model.shared


def test_classes_are_as_before(model, x):
    before = {name: type(module) for name, module in model.named_modules()}
    seen = []
    trace(model, [x], PATHS, lambda call: seen.append(isinstance(call.module, nn.Module)))
    assert all(seen)
    assert {name: type(module) for name, module in model.named_modules()} == before


def test_classes_are_as_before_when_the_model_fails(model):
    with pytest.raises(ParityError, match=r"MLX model Twin fails on inputs float32 \(2, 9, 6, 5\)"):
        collected(model, mx.zeros((2, 9, 6, 5)))
    assert type(model).__dict__.get("between")  # the class itself, not one made for the trace
    assert type(model.stem) is nn.Conv2d


def test_a_module_with_two_names_is_told_once_under_the_first(model, x):
    model.other = model.shared
    calls, _ = collected(model, x, ["other", "shared"])
    assert [(call.target, call.number) for call in calls] == [("other", 0), ("other", 1)]


def test_two_modules_of_one_class_are_kept_apart(model, x):
    calls, _ = collected(model, x, ["blocks.1"])
    assert [call.module for call in calls] == [model.blocks[1]]


def test_every_bad_path_is_listed(model, x):
    bad = ["nowhere", "blocks.2", "blocks.x", "acts.M", "stem.weight", "blocks", "stem.weight.z"]
    with pytest.raises(ParityError) as caught:
        collected(model, x, [*PATHS, *bad])
    for path in bad:
        assert f"  {path}: " in str(caught.value)
    assert "  blocks: list" in str(caught.value)


@pytest.mark.parametrize(("evaluate", "times"), [(True, 9), (False, 1)])
def test_in_place_evaluates_every_call_and_whole_only_the_end(
    model, x, evaluate, times, monkeypatch
):
    evaluated = []
    real = mx.eval
    monkeypatch.setattr(tracing.mx, "eval", lambda *a: (evaluated.append(a), real(*a)))
    collected(model, x, evaluate=evaluate)
    assert len(evaluated) == times


def test_run_evaluates_once(model, x, monkeypatch):
    evaluated = []
    monkeypatch.setattr(tracing.mx, "eval", evaluated.append)
    run_model(model, [x])
    assert len(evaluated) == 1


def test_keyword_arguments_are_given_by_name(model, x):
    class Doubled(type(model)):
        def __call__(self, x, *, times):
            return super().__call__(x * times["n"])

    expected = run_model(model, [x * 2])
    object.__setattr__(model, "__class__", Doubled)
    named = {"times": {"n": mx.array(2.0)}}
    assert same(arrays(run_model(model, [x], named)), arrays(expected))
    traced = trace(model, [x], PATHS, lambda call: None, named=named)
    assert same(arrays(traced), arrays(expected))
    with pytest.raises(ParityError, match=r"fails on inputs float32 \(2, 2, 6, 5\), float32 \(\)"):
        run_model(model, [x], {"time": mx.array(2.0)})


def test_an_error_of_the_observer_is_its_own(model, x):
    def observe(call):
        raise ParityError("mine")

    with pytest.raises(ParityError, match=r"^mine$"):
        trace(model, [x], ["stem"], observe)


def test_nested_results_are_flattened_in_torchs_order():
    from torch.utils._pytree import tree_leaves

    nested = (1, [2, {"b": 3, "a": (4, None)}], {"z": [], "y": 5})
    assert list(leaves(nested)) == tree_leaves(nested)
    assert mapped(lambda v: v, nested) == nested
    assert list(arrays((1, "x", None))) == []


def test_mapped_keeps_named_tuples():
    from collections import namedtuple

    pair = namedtuple("pair", "a b")(1, [2])
    assert mapped(lambda v: v + 1, pair) == (2, [3])
    assert type(mapped(lambda v: v, pair)) is type(pair)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "int64", "bool_", "complex64"])
def test_dtype_names_are_torchs(name):
    assert mlx_dtype_name(mx.zeros(1, getattr(mx, name))) == name.rstrip("_")
