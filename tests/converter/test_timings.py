"""The clock of a conversion: stages by path, in order, their parts within them."""

import itertools
import time
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter import timings
from mlxport.converter.timings import Timings, measured, stage, timed


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by one second each time it is read."""
    ticks = itertools.count()
    monkeypatch.setattr(timings.time, "perf_counter", lambda: float(next(ticks)))


@pytest.mark.usefixtures("ticking")
def test_stages_are_counted_by_path_and_add_up() -> None:
    with measured() as clock:
        with stage("verify"), stage("alone"):
            pass
        with stage("write"):
            pass
        with stage("verify"):
            with stage("whole"):
                pass
            with stage("alone"):
                pass
    took = clock.timings()
    assert took.stages == {
        ("verify",): 3.0 + 5.0,
        ("verify", "alone"): 1.0 + 1.0,
        ("verify", "whole"): 1.0,
        ("write",): 1.0,
    }
    assert list(took.stages) == [
        ("verify",),
        ("verify", "alone"),
        ("verify", "whole"),
        ("write",),
    ]
    assert took.seconds == 13.0
    assert took.to_json()["stages"]["verify/alone"] == 2.0


def test_a_stage_that_fails_is_counted_and_closed() -> None:
    with measured() as clock:
        with pytest.raises(ZeroDivisionError), stage("capture"):
            _ = 1 / 0
        with stage("lower"):
            pass
    assert list(clock.timings().stages) == [("capture",), ("lower",)]


def test_nothing_is_counted_where_nothing_measures() -> None:
    with stage("capture"):
        pass
    with measured() as clock:
        pass
    assert clock.timings().stages == {}


def test_a_run_within_a_run_counts_its_own_stages() -> None:
    with measured() as outer, stage("verify"):
        with measured() as inner, stage("alone"):
            pass
        with stage("whole"):
            pass
    assert list(inner.timings().stages) == [("alone",)]
    assert list(outer.timings().stages) == [("verify",), ("verify", "whole")]


def test_stages_decorate() -> None:
    @stage("capture")
    def double(x: int) -> int:
        return 2 * x

    with measured() as clock:
        assert double(double(1)) == 4
    assert list(clock.timings().stages) == [("capture",)]


def test_timed_fills_in_the_result() -> None:
    @dataclass(frozen=True)
    class Result:
        value: int
        timings: Timings | None = None

    @timed
    def run(value: int) -> Result:
        with stage("capture"):
            time.sleep(0.001)
        return Result(value)

    result = run(3)
    assert result.value == 3
    assert result.timings is not None
    assert 0 < result.timings.stages[("capture",)] <= result.timings.seconds


def test_the_table() -> None:
    took = Timings(4.0, 5.5, {("verify",): 3.0, ("verify", "in place"): 1.0})
    assert took.to_text() == (
        "stage              s  share\n"
        "verify          3.00    75%\n"
        "  in place      1.00    25%\n"
        "other           1.00    25%\n"
        "in all          4.00   100%\n"
        "5.50 s of processor time"
    )


def test_a_conversion_tells_its_stages() -> None:
    result = mlxport.convert(nn.Linear(3, 2), torch.zeros(1, 3))
    assert result.timings is not None
    assert {path[0] for path in result.timings.stages} == {
        "imports",
        "capture",
        "sizes",
        "lower",
        "plan",
        "emit",
        "weights",
        "verify",
    }
    parts = {path[1] for path in result.timings.stages if path[0] == "verify" and len(path) > 1}
    assert parts == {"reference", "in place", "alone", "whole", "compiled", "metal table"}
