"""Whole networks whose batch and sides change from call to call."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
import torch
from networks import NETWORKS
from torch import nn

import mlxport
from mlxport.converter.tasks.convert import Converted

Shape = tuple[int, ...]

# name -> dynamic axes, the example's shape, shapes to try
CASES: dict[str, tuple[Shape, Shape, tuple[Shape, ...]]] = {
    "UNet3d": ((0, 2, 3, 4), (2, 1, 16, 24, 16), ((1, 1, 8, 16, 20), (3, 1, 12, 8, 8))),
    "UNet": ((0, 2, 3, 4), (2, 1, 16, 24, 16), ((1, 1, 8, 16, 20), (3, 1, 12, 8, 8))),
    "DynUNet": ((0, 2, 3, 4), (2, 1, 8, 16, 24), ((1, 1, 12, 32, 16), (3, 1, 8, 24, 40))),
    "UNet2d": ((0, 2, 3), (2, 3, 16, 24), ((1, 3, 32, 16), (3, 3, 8, 12))),
    "ResNet-50": ((0, 2, 3), (2, 3, 64, 64), ((1, 3, 96, 77), (3, 3, 65, 80))),
    "BERT": ((0, 1), (2, 18), ((1, 5), (3, 20))),
    "GPT-2": ((0, 1), (2, 18), ((1, 5), (3, 20))),
}
SLOW = ("UNet", "DynUNet", "ResNet-50")


def sample(like: torch.Tensor, shape: Shape) -> torch.Tensor:
    if like.is_floating_point():
        return torch.randn(shape)
    return torch.randint(0, int(like.max()) + 1, shape)


@pytest.fixture(
    scope="module", params=[pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in CASES]
)
def case(
    request: pytest.FixtureRequest, randomise: Callable[[nn.Module], nn.Module]
) -> tuple[str, nn.Module, torch.Tensor, Converted]:
    network, (axes, shape, _) = NETWORKS[request.param], CASES[request.param]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what their packages import and call
        model, (given, *_) = randomise(network.build()), network.inputs()
        x = sample(given, shape)
        return request.param, model, x, mlxport.convert(model, x, dynamic=axes)


Case = tuple[str, nn.Module, torch.Tensor, Converted]


def test_parity_holds_at_both_sets_of_sizes(case: Case) -> None:
    name, _, x, converted = case
    report = converted.report
    assert report is not None
    assert report.passed, report.verdict
    (other,) = [one for one in report.others if not one.case]
    assert [x.shape[axis] for axis in CASES[name][0]] == [*report.sizes.values()]
    assert all(other.sizes[size] != number for size, number in report.sizes.items())


def test_it_runs_at_other_sizes(case: Case) -> None:
    name, model, x, converted = case
    for shape in CASES[name][2]:
        given = sample(x, shape)
        with torch.no_grad():
            own = model(given)
        want = own if isinstance(own, torch.Tensor) else next(iter(own.values()))
        result = converted.model(mx.array(given.numpy()))
        got = np.array(result if isinstance(result, mx.array) else next(iter(result.values())))
        assert got.shape == tuple(want.shape)
        error = np.linalg.norm(got - want.numpy()) / np.linalg.norm(want.numpy())
        assert error < 1e-5, shape


def test_no_size_of_the_example_stands_in_a_body(case: Case) -> None:
    """Sizes too large to be anything else stand in docstrings and constructors alone."""
    name, _, x, converted = case
    body = converted.source.split("def load(")[0]
    calls = [part.split("\n\nclass ")[0] for part in body.split("def __call__")[1:]]
    sizes = {str(x.shape[axis]) for axis in CASES[name][0] if x.shape[axis] > 16}
    numbers = {word for call in calls for word in call.replace("(", " ").replace(",", " ").split()}
    assert not sizes & numbers


def test_a_batch_is_computed_item_by_item(case: Case) -> None:
    _, _, x, converted = case

    def run(given: torch.Tensor) -> np.ndarray:
        result = converted.model(mx.array(given.numpy()))
        return np.array(result if isinstance(result, mx.array) else next(iter(result.values())))

    together = run(x)
    for i in range(x.shape[0]):
        np.testing.assert_allclose(run(x[i : i + 1])[0], together[i], rtol=0, atol=1e-4)
