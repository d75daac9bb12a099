"""A picture of parity reports: the error of every layer, in the order computed, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from mlxport.converter.parity.text import label

if TYPE_CHECKING:
    from mlxport.converter.parity.report import ParityReport

_WIDTH, _HEIGHT = 1000, 260
_LEFT, _TOP, _BOTTOM = 60, 12, 24
_LOWEST = 0.1  # of the ratios drawn; what is smaller is drawn there
_SERIES = 4  # colours there are


def chart(reports: Mapping[str, ParityReport]) -> str:
    """Return one dot for each tensor of each report, and a line at the largest ratio that passes.

    The vertical axis is logarithmic. A dot's title says which layer it is and its ratio.
    """
    ratios = {
        name: [(label(e), e.ratio, bool(e.failing)) for e in (*report.entries, *report.outputs)]
        for name, report in reports.items()
    }
    limit = max(report.noise_multiple for report in reports.values())
    finite = [r for dots in ratios.values() for _, r, _ in dots if math.isfinite(r)]
    highest = 10 ** math.ceil(math.log10(max([10 * limit, *finite])))
    summary = (
        f"Ratio of error to noise of {max(map(len, ratios.values()))} tensors; limit {limit:g}"
    )
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(summary)}">',
        *_grid(highest),
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{_y(limit, highest)}" y2="{_y(limit, highest)}" '
        'stroke="var(--bad)" stroke-dasharray="6 4"/>',
        *(_dots(name, dots, number, highest) for number, (name, dots) in enumerate(ratios.items())),
        *(_legend(name, number) for number, name in enumerate(ratios) if len(ratios) > 1),
        "</svg>",
    ]
    return "\n".join(parts)


def _y(ratio: float, highest: float) -> float:
    low, high = math.log10(_LOWEST), math.log10(highest)
    height = min(max(math.log10(max(ratio, _LOWEST)), low), high) if ratio < highest else high
    return round(_TOP + (high - height) / (high - low) * (_HEIGHT - _TOP - _BOTTOM), 1)


def _grid(highest: float) -> list[str]:
    lines = []
    for power in range(round(math.log10(_LOWEST)), round(math.log10(highest)) + 1):
        y = _y(10.0**power, highest)
        text = f"{10.0**power:g}x"
        lines.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y}" y2="{y}" stroke="var(--line)"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end" font-size="12" '
            f'fill="currentColor">{text}</text>'
        )
    return lines


def _dots(name: str, dots: Sequence[tuple[str, float, bool]], number: int, highest: float) -> str:
    step = (_WIDTH - _LEFT - 20) / max(len(dots), 1)
    drawn = []
    for index, (title, ratio, failing) in enumerate(dots):
        color = "var(--bad)" if failing else f"var(--series-{number % _SERIES})"
        x = round(_LEFT + 10 + (index + 0.5) * step, 1)
        drawn.append(
            f'<circle cx="{x}" cy="{_y(ratio, highest)}" r="{5 if failing else 3.5}" '
            f'fill="{color}"><title>{escape(f"{title}: {ratio:.2g}x ({name})")}</title></circle>'
        )
    return "\n".join(drawn)


def _legend(name: str, number: int) -> str:
    x = _LEFT + 10 + 220 * number
    return (
        f'<circle cx="{x}" cy="{_HEIGHT - 8}" r="5" fill="var(--series-{number % _SERIES})"/>'
        f'<text x="{x + 10}" y="{_HEIGHT - 4}" font-size="12" fill="currentColor">'
        f"{escape(name)}</text>"
    )
