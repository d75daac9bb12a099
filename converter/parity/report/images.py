"""Draw slices of outputs and histograms of errors, as HTML that needs no other file."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from html import escape

import numpy as np

from mlxport.converter.parity.report.pictures import (
    LEVELS,
    UNDEFINED,
    Histogram,
    Picture,
    Plane,
)

# From low to high; both keep their order to colour-blind eyes and in grey.
VIRIDIS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
BLUE_ORANGE = ("#0b4f8a", "#6aaed6", "#f7f7f7", "#f5a05a", "#a63c06")
_OUTSIDE = (255, 0, 255)  # what is NaN or infinite
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 180, 44, 34, 14
_RIGHT = 24  # half of the last label


def figures(pictures: Sequence[Picture]) -> str:
    """Return the slices side by side, with colour bars."""
    return "\n".join(map(_figure, pictures))


def histograms(found: Sequence[Histogram]) -> str:
    """Return the histograms as SVG, MLX's errors as bars and PyTorch's as a line."""
    return "\n".join(map(_histogram, found))


def _figure(picture: Picture) -> str:
    undefined = bytes([UNDEFINED])
    marked = any(undefined in plane.reference + plane.mlx for plane in picture.planes)
    place = f", index {list(picture.leading)}" if picture.leading else ""
    note = ". NaN and infinity are magenta" if marked else ""
    low, high = picture.limits
    values = _bar(VIRIDIS, low, high)
    heads = "".join(f'<th scope="col">{t}</th>' for t in ("PyTorch", "MLX", "MLX less PyTorch"))
    rows = "".join(_plane(plane, picture.name) for plane in picture.planes)
    differences = _bar(BLUE_ORANGE, -picture.largest, picture.largest)
    return (
        f"<figure><figcaption>{escape(picture.name)}{place}, where the error is largest: "
        f"{'central slices' if len(picture.planes) > 1 else 'the image'}{note}</figcaption>"
        f'<table class="slices"><thead><tr>{heads}</tr></thead><tbody>{rows}'
        f'<tr><td colspan="2">{values}</td><td>{differences}</td></tr></tbody></table>'
        f"{_stack(picture, heads)}</figure>"
    )


def _stack(picture: Picture, heads: str) -> str:
    """Return slices through a volume, of which the page's script shows one and a slider."""
    if not picture.stack:
        return ""
    slices = "".join(f"<tbody>{_plane(p, picture.name)}</tbody>" for p in picture.stack)
    table = f'<table class="slices"><thead><tr>{heads}</tr></thead>{slices}</table>'
    return f'<div class="stack">{table}</div>'


def _plane(plane: Plane, name: str) -> str:
    cells = [
        (plane.reference, VIRIDIS, "PyTorch's"),
        (plane.mlx, VIRIDIS, "MLX's"),
        (plane.difference, BLUE_ORANGE, "The difference in"),
    ]
    images = "".join(
        f'<td><img src="data:image/png;base64,{_png(pixels, plane.shape, colours)}" '
        f'width="{plane.shape[1]}" height="{plane.shape[0]}" '
        f'alt="{escape(f"{whose} {name} {plane.at}", quote=True)}"></td>'
        for pixels, colours, whose in cells
    )
    return f'<tr><th colspan="3" scope="rowgroup">{escape(plane.at)}</th></tr><tr>{images}</tr>'


def _bar(colours: Sequence[str], low: float, high: float) -> str:
    return (
        f'<div class="bar" role="img" aria-label="colours from {low:.3g} to {high:.3g}" '
        f'style="background:linear-gradient(to right,{",".join(colours)})"></div>'
        f'<div class="ends"><span>{low:.3g}</span><span>{high:.3g}</span></div>'
    )


def palette(colours: Sequence[str]) -> bytes:
    """Return the red, green and blue of every level."""
    stops = np.linspace(0, LEVELS, len(colours))
    channels = [[int(c[i : i + 2], 16) for c in colours] for i in (1, 3, 5)]
    ramp = np.stack([np.interp(np.arange(LEVELS + 1), stops, c) for c in channels], axis=-1)
    table = np.full((256, 3), _OUTSIDE, np.uint8)
    table[: LEVELS + 1] = ramp.round()
    return table.tobytes()


def _png(pixels: bytes, shape: tuple[int, int], colours: Sequence[str]) -> str:
    """Return an image with a palette, in base64; see the PNG specification, colour type 3."""
    rows, columns = shape
    lines = b"".join(b"\0" + pixels[r * columns : (r + 1) * columns] for r in range(rows))
    head = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", head), (b"PLTE", palette(colours)), (b"IDAT", zlib.compress(lines, 9)))
    chunks = b"".join(_chunk(kind, data) for kind, data in (*parts, (b"IEND", b"")))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _histogram(found: Histogram) -> str:
    bins = max(len(found.mlx), 1)
    most = max([*found.mlx, *found.torch, 1])
    width = (_WIDTH - _LEFT - _RIGHT) / bins
    floor = _HEIGHT - _BOTTOM

    def top(count: int) -> float:
        return round(floor - count / most * (floor - _TOP), 1)

    bars = [
        f'<rect x="{_LEFT + k * width + 1:.1f}" y="{top(n)}" width="{width - 2:.1f}" '
        f'height="{floor - top(n):.1f}" fill="var(--series-0)"><title>{n:,} in MLX</title></rect>'
        for k, n in enumerate(found.mlx)
        if n
    ]
    steps = " ".join(
        f"{_LEFT + x * width:.1f},{top(n)}" for k, n in enumerate(found.torch) for x in (k, k + 1)
    )
    line = f'<polyline points="{steps}" fill="none" stroke="var(--series-1)" stroke-width="3"/>'
    decades = [k for k in range(bins + 1) if (k * found.step).is_integer()]
    every = -(-len(decades) // 10)
    ticks = [
        f'<text x="{_LEFT + k * width:.1f}" y="{floor + 16}" text-anchor="middle">'
        f"1e{found.start + k * found.step:+.0f}</text>"
        for k in decades[::every]
    ]
    mlx, torch = found.exact
    return (
        f"<figure><figcaption>{escape(found.name)}: error of single positions, as a share of the "
        f"values' root mean square. Bars: MLX ({mlx:,} positions have none); line: PyTorch in its "
        f"own dtype ({torch:,} have none)</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" class="histogram" '
        f'aria-label="{escape(f"Histogram of the error of {found.name}", quote=True)}">'
        f'<text x="{_LEFT - 6}" y="{_TOP + 6}" text-anchor="end">{most:,}</text>'
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{floor}" y2="{floor}" stroke="var(--line)"/>'
        f"{''.join(bars)}{line}{''.join(ticks)}</svg></figure>"
    )
