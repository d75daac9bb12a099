"""Where the chart's marks, lines and powers of ten stand."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from mlxport.converter.parity.report.chart import chart
from mlxport.converter.parity.report.report import ParityReport
from mlxport.converter.parity.verdict.compare import Verdict
from mlxport.converter.parity.verdict.entry import IN_PLACE, ParityEntry


def verdict(error: float | None, failed: bool = False) -> Verdict:
    problems = ("too far off",) if failed else ()
    ratio = None if error is None else error / 1e-6
    return Verdict(problems, (2,), "float32", compared=2, error=error, noise=1e-6, ratio=ratio)


def report(*verdicts: Verdict) -> ParityReport:
    entries = [ParityEntry(f"l{i}", verdicts={IN_PLACE: one}) for i, one in enumerate(verdicts)]
    return ParityReport(outputs=tuple(entries[-1:]), entries=tuple(entries[:-1]))


def powers(svg: str) -> dict[int, float]:
    """The power of ten of each line of the grid -> its height."""
    found = re.findall(r'y1="([\d.]+)" y2="\1" class="grid"/><text[^>]*>1e(-?\d+)<', svg)
    return {int(power): float(y) for y, power in found}


def dots(svg: str) -> list[tuple[float, float]]:
    return [
        (float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)
    ]


def test_marks_stand_at_their_power_of_ten() -> None:
    errors = [1e-6, 1e-5, 1e-7, 1e-8]
    svg = chart({"one": report(*map(verdict, errors))})
    assert [y for _, y in dots(svg)] == [powers(svg)[power] for power in (-6, -5, -7, -8)]


def test_marks_follow_one_another_from_left_to_right_within_the_lines() -> None:
    svg = chart({"one": report(*[verdict(1e-6)] * 5)})
    xs = [x for x, _ in dots(svg)]
    steps = {round(after - before, 1) for before, after in pairwise(xs)}
    assert len(xs) == 5
    assert len(steps) == 1
    assert steps.pop() > 0
    left, right = (float(n) for n in re.findall(r'x1="(\d+)" x2="(\d+)"', svg)[0])
    assert left < xs[0]
    assert xs[-1] < right
    limit = re.findall(r'points="([^"]+)" fill="none" class="limit"', svg)[0]
    ends = [float(pair.split(",")[0]) for pair in limit.split()]
    middles = [(begin + end) / 2 for begin, end in zip(ends[::2], ends[1::2], strict=True)]
    assert xs == pytest.approx(middles, abs=0.1)


@pytest.mark.parametrize("errors", [[1e-6], [1e-3, 1e-7], [1.0, 1e-15]], ids=str)
def test_all_of_it_lies_on_the_picture_above_its_caption(errors: list[float]) -> None:
    svg = chart({"one": report(*map(verdict, errors))})
    width, height = map(int, re.findall(r'viewBox="0 0 (\d+) (\d+)"', svg)[0])
    caption = float(re.findall(r'y="(\d+)" text-anchor="middle"', svg)[0])
    ends = [tuple(map(float, p.split(","))) for p in re.findall(r"[\d.]+,[\d.-]+", svg)]
    assert len(ends) == 4 * len(errors)  # of two lines
    for x, y in [*dots(svg), *ends]:
        assert 0 < x < width
        assert 0 < y < caption < height
    heights = [y for _, y in sorted(powers(svg).items())]
    assert heights == sorted(heights, reverse=True)
    assert 0 < heights[-1] < heights[0] < caption


def test_what_has_no_number_stands_highest_and_an_error_of_0_lowest() -> None:
    svg = chart({"one": report(verdict(1e-6), verdict(0.0), verdict(None, failed=True))})
    lines = sorted(powers(svg).values())
    assert dots(svg)[1][1] == lines[-1]
    (corners,) = re.findall(r'<polygon points="([^"]+)"', svg)
    ys = [float(corner.split(",")[1]) for corner in corners.split()]
    assert ys[1] == lines[0]
