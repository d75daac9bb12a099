"""Draw a chart of parity reports: error and noise of every layer, in the order computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from mlxport.converter.parity.verdict.precision import PRECISIONS

if TYPE_CHECKING:
    from mlxport.converter.parity.report.report import ParityReport
    from mlxport.converter.parity.verdict.compare import Verdict
    from mlxport.converter.parity.verdict.entry import ParityEntry

_WIDTH, _HEIGHT = 1000, 300
_LEFT, _TOP, _BOTTOM = 84, 16, 36  # room for labels twice as large, as in narrow windows
_DECADES = 12  # drawn below the highest value at most; what is smaller is drawn at the foot
_SERIES = 4  # colours there are


class _Point(NamedTuple):
    """What is drawn of one tensor; an error of None is one that has no number."""

    place: int
    title: str
    error: float | None
    noise: float
    limit: float
    failing: bool


def chart(reports: Mapping[str, ParityReport]) -> str:
    """Return the error of every tensor as a mark, with PyTorch's noise and the limit as lines.

    Both axes are as computed: from left to right the tensors in the order of execution, upwards
    the relative L2 error on a log scale. What fails is a diamond, what passes a dot. A mark's title
    says which tensor it is, its error, noise and ratio.

    Args:
        reports: by what to call them; of one and the same model. The lines are the first one's.
    """
    points = {name: list(_points(report, name)) for name, report in reports.items()}
    ground = next(iter(points.values()))
    numbers = [n for p in ground for n in (p.noise, p.limit)]
    numbers += [p.error for found in points.values() for p in found if p.error]
    scale = _Scale([n for n in numbers if n and math.isfinite(n)])
    count = max([len(found) for found in points.values()] + [1])
    step = (_WIDTH - _LEFT - 20) / count
    summary = f"Error and noise of {count} tensors in the order computed, on a log scale"
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" class="chart" role="img" '
        f'aria-label="{escape(summary)}">',
        *scale.grid(),
        _line([(p.place, p.limit) for p in ground], step, scale, 'class="limit"'),
        _line([(p.place, p.noise) for p in ground], step, scale, 'class="noise"'),
        *(_mark(p, step, scale, n) for n, found in enumerate(points.values()) for p in found),
        f'<text x="{(_LEFT + _WIDTH) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        "layers and outputs, in the order computed</text>",
        "</svg>",
    ]
    return "\n".join(parts)


def _points(report: ParityReport, name: str) -> Iterator[_Point]:
    for place, entry in enumerate((*report.entries, *report.outputs)):
        verdict = _drawn(entry)
        if verdict is None:
            continue
        precision = PRECISIONS.get(verdict.dtype)
        noise = max(verdict.noise or 0.0, precision.roundoff if precision else 0.0)
        ratio = "" if verdict.ratio is None else f", {verdict.ratio:.2g}x"
        off = "no number" if verdict.error is None else f"error {verdict.error:.2g}"
        title = f"{entry.label}: {off}, noise {noise:.2g}{ratio} ({name})"
        limit = verdict.noise_multiple * noise
        yield _Point(place, title, verdict.error, noise, limit, not verdict.passed)


def _drawn(entry: ParityEntry) -> Verdict | None:
    """Return an entry's worst verdict, if it was compared or failed."""
    verdicts = [v for v in entry.verdicts.values() if v.compared or not v.passed]
    return max(verdicts, key=lambda v: (not v.passed, v.ratio or 0.0), default=None)


class _Scale:
    """The vertical axis: powers of ten around the numbers there are."""

    def __init__(self, numbers: Sequence[float]) -> None:
        self.high = math.ceil(math.log10(max(numbers, default=1.0)) + 0.01)
        low = math.floor(math.log10(min(numbers, default=0.1)) - 0.3)
        self.low = min(max(low, self.high - _DECADES), self.high - 1)

    def y(self, value: float | None) -> float:
        """Return the place of a value; above all others where it has no number."""
        power = self.low if value == 0 else math.log10(value) if value is not None else self.high
        share = (self.high - min(max(power, self.low), self.high)) / (self.high - self.low)
        return round(_TOP + share * (_HEIGHT - _TOP - _BOTTOM), 1)

    def grid(self) -> Iterator[str]:
        """Yield a line for each power of ten, or for every other where there are many."""
        every = 1 if self.high - self.low < 10 else 2
        for power in range(self.low, self.high + 1, every):
            y = self.y(10.0**power)
            yield (
                f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y}" y2="{y}" class="grid"/>'
                f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">1e{power}</text>'
            )


def _x(place: int, step: float) -> float:
    return round(_LEFT + 10 + (place + 0.5) * step, 1)


def _line(values: Sequence[tuple[int, float]], step: float, scale: _Scale, attributes: str) -> str:
    """Return a line that is level over each tensor."""
    half = step / 2
    ends = " ".join(
        f"{round(_x(place, step) + side, 1)},{scale.y(value)}"
        for place, value in values
        if value and math.isfinite(value)
        for side in (-half, half)
    )
    return f'<polyline points="{ends}" fill="none" {attributes}/>'


def _mark(point: _Point, step: float, scale: _Scale, number: int) -> str:
    x, y = _x(point.place, step), scale.y(point.error)
    title = f"<title>{escape(point.title)}</title>"
    if point.failing:
        corners = f"{x},{y - 7} {x + 7},{y} {x},{y + 7} {x - 7},{y}"
        return f'<polygon points="{corners}" fill="var(--bad)" class="mark">{title}</polygon>'
    color = f"var(--series-{number % _SERIES})"
    return f'<circle cx="{x}" cy="{y}" r="3.5" fill="{color}" class="mark">{title}</circle>'


def legend(names: Sequence[str]) -> str:
    """Return what the marks and lines of a chart mean, as HTML that wraps.

    Args:
        names: of the reports, in the chart's order.
    """
    items = []
    for number, name in enumerate(names):
        meaning = f"error of MLX, {name}" if len(names) > 1 else "error of MLX"
        dot = f'<circle cx="15" cy="7" r="5" fill="var(--series-{number % _SERIES})"/>'
        items.append((dot, meaning))
    items += [
        ('<polygon points="15,0 22,7 15,14 8,7" fill="var(--bad)"/>', "fails"),
        ('<line x1="0" x2="30" y1="7" y2="7" class="noise"/>', "PyTorch's own noise"),
        ('<line x1="0" x2="30" y1="7" y2="7" class="limit"/>', "the most that passes"),
    ]
    marks = "".join(
        f'<li><svg viewBox="0 0 30 14" aria-hidden="true">{mark}</svg>{escape(meaning)}</li>'
        for mark, meaning in items
    )
    return f'<ul class="legend">{marks}</ul>'
