"""Live models and the conversions they come from."""

import copy
import gc
import weakref

import mlx.nn as mlx_nn
import pytest
import torch
from mlx.utils import tree_map
from torch import nn

import mlxport
from mlxport.converter.output.lineage import lineage_of, record_lineage


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh()).eval()


@pytest.fixture
def converted(net):
    return mlxport.convert(net, torch.randn(2, 4), verify=False)


SAME = {
    "itself": lambda result: result.model,
    "a copy": lambda result: copy.copy(result.model),
    "a deep copy": lambda result: copy.deepcopy(result.model),
    "another instance": lambda result: loaded(type(result.model)(), result.model),
    "of a subclass": lambda result: loaded(type("Mine", (type(result.model),), {})(), result.model),
}


def loaded(model, other):
    model.update(other.parameters())
    return model.eval()


@pytest.mark.parametrize("made", SAME.values(), ids=SAME)
def test_a_model_of_a_conversion_is_verified_as_converted(net, converted, made):
    model = made(converted)
    assert lineage_of(model).conversion is converted.conversion
    report = mlxport.verify(model, net, torch.randn(2, 4))
    assert report.passed
    assert {entry.path for entry in report.entries} == {"0", "1"}


def test_other_weights_are_judged_as_they_are_now(net, converted):
    model = converted.model
    model.update(tree_map(lambda array: array + 1, model.parameters()))
    report = mlxport.verify(model, net, torch.randn(2, 4))
    assert report.culprit == "0"
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 1
    assert mlxport.verify(model, net, torch.randn(2, 4)).passed


def test_a_loaded_model_is_another_of_the_same_record(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "net.pt")
    path = tmp_path / "out"
    written = mlxport.convert_checkpoint(tmp_path / "net.pt", path, model=net, inputs=["2,4"])
    model = mlxport.load(path)
    assert lineage_of(model) is not lineage_of(written.model)
    assert lineage_of(model).conversion == written.conversion
    assert mlxport.verify(model, net, torch.randn(2, 4)).passed


def test_two_conversions_of_one_model_stay_apart(net):
    first, second = (mlxport.convert(net, torch.randn(n, 4), verify=False) for n in (2, 3))
    assert lineage_of(first.model).conversion is first.conversion
    assert lineage_of(second.model).conversion is second.conversion


def test_a_model_written_by_hand_has_none():
    assert lineage_of(mlx_nn.Linear(4, 3)) is None


def test_nothing_is_left_on_the_model(converted):
    fresh = type(converted.model)()
    assert vars(converted.model).keys() == vars(fresh).keys()
    assert converted.model.keys() == fresh.keys()


def test_a_lineage_goes_with_its_model(net):
    result = mlxport.convert(net, torch.randn(2, 4), verify=False)
    kept = weakref.ref(lineage_of(result.model))
    assert kept() is not None
    del result
    gc.collect()
    assert kept() is None


def test_recording_again_replaces(converted):
    other = mlxport.convert(nn.Linear(4, 3), torch.randn(2, 4), verify=False).conversion
    assert record_lineage(converted.model, other).plan is other.plan
    assert lineage_of(converted.model).conversion is other
