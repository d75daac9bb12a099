import dataclasses

import pytest
import torch

from mlxport.converter.parity.reference.record_reference import record_reference
from mlxport.converter.parity.verdict.reference_data import Gradients


@pytest.fixture
def reference():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(30, 40), torch.nn.ReLU())
    paths = [path for path, _ in net.named_modules()]
    return record_reference(net, (torch.randn(5, 30),), paths=paths, sample=50)


def test_a_reference_prints_what_it_is_of(reference):
    assert str(reference).splitlines() == [
        "reference of a float32 model in float64",
        "inputs: F32 (5, 30)",
        "outputs: float32 (5, 40)",
        "2 calls of 2 modules, 0 random draws, seed 0",
    ]
    other = dataclasses.replace(
        reference, case="impulse inputs", reference_dtype="float32", fallback="no kernel"
    )
    first, second, *_ = str(other).splitlines()
    assert first == "reference of a float32 model in float32 (no kernel)"
    assert second == "inputs: F32 (5, 30) (impulse inputs)"


def test_the_repr_of_a_reference_and_its_parts_is_short(reference):
    assert repr(reference) == "<Reference float32, 2 calls, 1 outputs>"
    assert repr(reference.calls[0]) == "<Call 0 of 0: float32 (5, 40)>"
    assert repr(reference.calls[0].outputs[0]) == "<ReferenceValue float32 (5, 40), 50 values>"
    assert repr(reference.outputs[0]) == "<ReferenceValue float32 (5, 40)>"


@pytest.mark.parametrize(
    ("gradients", "shown"),
    [
        (Gradients(inputs=(None,)), "<Gradients of 1 inputs, 0 parameters>"),
        (Gradients(obstacle="in PyTorch none"), "<Gradients: in PyTorch none>"),
    ],
    ids=["there", "none"],
)
def test_gradients_are_counted_or_say_why_there_are_none(gradients, shown):
    assert repr(gradients) == shown
