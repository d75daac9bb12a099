"""The example call of a model that a folder describes, and the ways to capture it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlxport.converter.errors import CaptureError, OptionsError
from mlxport.converter.graph.capture.dynamic import DynamicSizes
from mlxport.converter.model_folders.found_model import FoundModel
from mlxport.converter.options.capture import CaptureOptions
from mlxport.converter.tasks.sources.convert_found import Way, example_of, in_first_way, ways_of
from mlxport.converter.torch_model.factory import Factory

FOUND = FoundModel(
    checkpoint=Path("weights"),
    description=Path("config.json"),
    factory=Factory("Net", lambda: None),
    inputs=("1,3,8,8",),
    tensors={"mask": "a tensor"},
    kwargs={"use_cache": False},
    dynamic=({"x": (0, 2)}, (0,)),
    opened=("batch and height", "batch"),
)
PLAIN = replace(FOUND, dynamic=(), opened=())
CACHED = replace(FOUND, inputs=("1,4",), kwargs={"use_cache": True}, without_cache=PLAIN)

EXAMPLES: dict[str, tuple[FoundModel, Any, Any, Any, dict[str, Any]]] = {
    "the found one": (FOUND, (), None, ("1,3,8,8",), {"mask": "a tensor", "use_cache": False}),
    "inputs of the user's": (FOUND, ("2,3",), None, ("2,3",), {"use_cache": False}),
    "inputs by name": (FOUND, (), {"x": "2,3"}, (), {"x": "2,3", "use_cache": False}),
    "both": (FOUND, ("2,3",), {"y": "1"}, ("2,3",), {"y": "1", "use_cache": False}),
    "arguments of the user's": (FOUND, (), {"use_cache": 1}, (), {"use_cache": 1}),
    "with a cache": (CACHED, (), {}, ("1,4",), {"mask": "a tensor", "use_cache": True}),
    "the user's has no cache": (CACHED, ("2,4",), {}, ("2,4",), {"use_cache": False}),
}


@pytest.mark.parametrize(
    ("found", "inputs", "kwargs", "args", "named"), EXAMPLES.values(), ids=EXAMPLES
)
def test_inputs_of_the_users_take_the_place_of_the_found_ones(
    found: FoundModel, inputs: Any, kwargs: Any, args: Any, named: dict[str, Any]
) -> None:
    assert example_of(found, inputs, kwargs) == (args, named)


def test_where_nothing_says_the_inputs_they_are_asked_for() -> None:
    nothing = replace(FOUND, inputs=(), tensors={})
    with pytest.raises(OptionsError, match="what Net takes does not follow from it"):
        example_of(nothing, (), None)
    assert example_of(replace(FOUND, inputs=()), (), None)[0] == ()


def opened(found: FoundModel, **given: Any) -> list[tuple[bool, str]]:
    given = {"inputs": (), "kwargs": None, "capturing": CaptureOptions(), **given}
    return [(way.found is found, way.opened) for way in ways_of(found, **given)]


def test_what_opens_most_comes_first_and_fixed_sizes_last() -> None:
    ways = [(True, "batch and height"), (True, "batch"), (True, "")]
    assert opened(FOUND) == ways
    assert opened(CACHED) == [*ways[:2], (False, "")]


ASKED: dict[str, dict[str, Any]] = {
    "inputs": {"inputs": ("2,3",)},
    "inputs by name": {"kwargs": {"x": "2,3"}},
    "axes": {"capturing": CaptureOptions(dynamic=DynamicSizes.of((0,), None))},
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_what_the_user_asks_for_is_the_one_way(asked: dict[str, Any]) -> None:
    assert opened(FOUND, **asked) == [(True, "")]
    assert opened(CACHED, **asked) == [(False, "")]


@pytest.mark.parametrize("fails", [0, 1, 2])
def test_the_first_way_that_can_be_captured_is_taken(fails: int) -> None:
    tried: list[Way] = []

    def attempt(way: Way) -> str:
        tried.append(way)
        if len(tried) <= fails:
            raise CaptureError("no\nmore")
        return "done"

    result, way, notes = in_first_way(ways_of(FOUND, (), None, CaptureOptions()), attempt)
    assert (result, way) == ("done", tried[fails])
    words = FOUND.opened[:fails]
    assert notes == tuple(f"{one} cannot be left open: no" for one in words)


def test_where_no_way_can_be_captured_the_last_error_counts() -> None:
    def attempt(way: Way) -> None:
        raise CaptureError(f"not {way.opened or 'even at fixed sizes'}")

    with pytest.raises(CaptureError, match="not even at fixed sizes"):
        in_first_way(ways_of(CACHED, (), None, CaptureOptions()), attempt)
