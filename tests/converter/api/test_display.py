"""In a notebook a call shows its stages on one line; nowhere else does it show any."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch

import mlxport
from mlxport.converter.api.display import notebook_line, progress_lines
from mlxport.converter.progress import counted
from mlxport.converter.timings import stage


class Publisher:
    """Keeps what is shown: for each display its lines, one written over the other."""

    def __init__(self) -> None:
        self.displays: dict[str, list[str]] = {}

    def publish(
        self, data: dict[str, str], *, transient: dict[str, str], update: bool = False
    ) -> None:
        """As ``IPython.core.displaypub.DisplayPublisher.publish``."""
        assert update == (transient["display_id"] in self.displays)
        self.displays.setdefault(transient["display_id"], []).append(data["text/plain"])


class Shell:
    """Stands for IPython's shell, of a notebook where it has a kernel."""

    def __init__(self, *, kernel: bool) -> None:
        if kernel:
            self.kernel = object()
        self.display_pub = Publisher()


@pytest.fixture
def displays(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> dict[str, list[str]]:
    """The displays that were opened, in a notebook or, by parameter, elsewhere."""
    where = getattr(request, "param", "a notebook")
    shell = Shell(kernel=where == "a notebook")
    interactive: Any = ModuleType("IPython")
    interactive.get_ipython = lambda: None if where == "no shell" else shell
    monkeypatch.setitem(sys.modules, "IPython", interactive)
    return shell.display_pub.displays


def _seconds_off(line: str) -> str:
    """Leave out how long it took."""
    return line.rpartition(" ")[0].rpartition(" ")[0]


def test_one_line_is_written_over(displays: dict[str, list[str]]) -> None:
    mlxport.convert(torch.nn.Linear(2, 3), torch.ones(1, 2))
    (lines,) = displays.values()
    assert all(line.startswith("convert: ") and line.endswith(" s") for line in lines)
    stages = [_seconds_off(line) for line in lines]
    assert "convert: verify," in stages
    assert stages[-1] == "convert:"  # how long it took in all stays


def test_a_call_inside_another_opens_no_line_of_its_own(displays: dict[str, list[str]]) -> None:
    with notebook_line("outer"), stage("one"), notebook_line("inner"), stage("two"):
        pass
    (lines,) = displays.values()
    assert [_seconds_off(line) for line in lines] == [
        "outer: one,",
        "outer: one, two,",
        "outer:",
    ]


def test_weights_are_counted(displays: dict[str, list[str]]) -> None:
    with notebook_line("convert"), stage("weights"):
        list(counted([("a", 0), ("b", 0), ("c", 0)], {"a": 1, "b": 0, "c": 3}))
    (lines,) = displays.values()
    assert [_seconds_off(line) for line in lines] == [
        "convert: weights,",
        "convert: weights 0%,",
        "convert: weights 25%,",
        "convert: weights 100%,",
        "convert:",
    ]


def test_a_failure_leaves_the_time_and_raises(displays: dict[str, list[str]]) -> None:
    with pytest.raises(ZeroDivisionError), notebook_line("convert"), stage("one"):
        raise ZeroDivisionError
    (lines,) = displays.values()
    assert _seconds_off(lines[-1]) == "convert:"


@pytest.mark.parametrize("displays", ["a terminal", "no shell"], indirect=True)
def test_nothing_is_shown_elsewhere(displays: dict[str, list[str]]) -> None:
    with notebook_line("convert"), stage("one"):
        pass
    assert displays == {}


def test_who_watches_already_is_not_disturbed(displays: dict[str, list[str]]) -> None:
    lines: list[str] = []
    with progress_lines(lines.append), notebook_line("convert"), stage("one"):
        pass
    assert displays == {}
    assert [line.split()[-1] for line in lines] == ["one"]


def test_a_call_without_stages_shows_nothing(displays: dict[str, list[str]]) -> None:
    mlxport.convert_layer(torch.nn.Linear(2, 3))
    assert displays == {}
