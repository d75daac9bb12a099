"""Networks as people use them: converted, verified, compiled, and with the batch size left open."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from model_snapshot import differences, facts
from networks import NETWORKS, Network
from networks_table import SECTION, row
from torch import nn

import mlxport
from mlxport.converter.parity.verdict.entry import COMPILED, IN_PLACE, WHOLE
from mlxport.converter.tasks.convert import Converted

SUPPORTED = Path(__file__).parents[2] / "docs" / "supported.md"


@dataclass(frozen=True)
class Case:
    """A converted network."""

    name: str
    network: Network
    model: nn.Module
    converted: Converted
    changed: list[str]  # what the conversion changed in the torch model


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest, randomise: Callable[[nn.Module], nn.Module]) -> Case:
    network = NETWORKS[request.param]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what their packages import and call
        model, inputs = randomise(network.build()), network.inputs()
        before = facts(model)
        converted = mlxport.convert(model, inputs)
        changed = differences(before, facts(model))
        return Case(request.param, network, model, converted, changed)


def test_parity_holds_in_place_whole_and_compiled(case: Case) -> None:
    report = case.converted.report
    assert report is not None
    assert report.passed, report.verdict
    assert report.reference_dtype == "float64"
    for output in report.outputs:
        assert {*output.verdicts} == {IN_PLACE, WHOLE, COMPILED}, output.skipped
    assert sum(not entry.judged for entry in report.entries) == case.network.unjudged


def test_metal_has_no_known_obstacle(case: Case) -> None:
    report = case.converted.report
    assert report is not None
    assert report.metal is not None
    assert report.metal.obstacles == []
    assert report.metal.unknown == ()


def test_the_torch_model_is_left_as_it_was(case: Case) -> None:
    # the process changes where a conversion imports more of a package
    assert [path for path in case.changed if path != "process"] == []


def test_transposes(case: Case) -> None:
    assert case.converted.conversion.transposes == case.network.transposes


def test_the_table_says_so(case: Case) -> None:
    cells = next(
        line.strip("| ").split(" | ")
        for line in SUPPORTED.read_text().partition(SECTION)[2].splitlines()
        if line.startswith(f"| {case.name} |")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = row(case.name, case.network, case.model, case.converted)
    ratio = re.fullmatch(r"([\d.]+)x", cells.pop())
    assert ratio is not None
    assert float(ratio[1]) < 8
    assert cells == expected[:-1], "run: make docs-networks"
    if case.network.package:
        assert version(case.network.package) in cells[1]


@pytest.mark.parametrize("name", [n for n, network in NETWORKS.items() if network.batch])
def test_batch_size_left_open(name: str, randomise: Callable[[nn.Module], nn.Module]) -> None:
    network = NETWORKS[name]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, one, two = randomise(network.build()), network.inputs(), network.inputs()
        inputs = tuple(torch.cat(pair) for pair in zip(one, two, strict=True))
        report = mlxport.convert(model, inputs, dynamic=(0,)).report
    assert report is not None
    assert report.passed, report.verdict
