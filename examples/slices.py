"""Draw the central slices of volumes side by side, each with its colour bar."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Volume = NDArray[np.floating[Any]]

# Colours from low to high, evenly spaced. All three read the same to colour-blind eyes.
GREY = ("#000000", "#ffffff")
VIRIDIS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
BLUE_ORANGE = ("#0b4f8a", "#6aaed6", "#f7f7f7", "#f5a05a", "#a63c06")

SCALE = 6  # screen pixels per voxel
GAP = 18
TEXT = 15
BAR = 12
PLANES = ("axial", "coronal", "sagittal")


@dataclass(frozen=True)
class Panel:
    """One column of the picture.

    Attributes:
        title: what stands above it.
        volume: ``(D, H, W)``.
        colours: from low to high, as ``#rrggbb``.
        limits: values of the first and the last colour; values outside are clipped.
    """

    title: str
    volume: Volume
    colours: Sequence[str]
    limits: tuple[float, float]


def draw(panels: Sequence[Panel], heading: str, path: Path) -> None:
    """Write a PNG with a column for each panel and a row for each plane."""
    depth, height, width = panels[0].volume.shape
    tops = np.cumsum([3 * TEXT + 2 * GAP, height * SCALE + GAP, depth * SCALE + GAP])
    column = max(width, depth) * SCALE
    left = 5 * TEXT + GAP
    bottom = int(tops[-1]) + height * SCALE + GAP
    size = (left + len(panels) * (column + GAP), bottom + BAR + 2 * TEXT + GAP)
    page = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(TEXT)
    pen.text((GAP, GAP), heading, "black", font)
    for name, top in zip(PLANES, tops, strict=True):
        pen.text((GAP, int(top)), name, "black", font)
    for number, panel in enumerate(panels):
        x = left + number * (column + GAP)
        pen.text((x, int(tops[0]) - TEXT - GAP // 2), panel.title, "black", font)
        for plane, top in zip(central_slices(panel.volume), tops, strict=True):
            page.paste(coloured(plane, panel).resize(enlarged(plane), 0), (x, int(top)))
        draw_bar(page, panel, (x, bottom), column)
    page.save(path)


def draw_bar(page: Image.Image, panel: Panel, corner: tuple[int, int], width: int) -> None:
    """Draw a panel's colours with the values at both ends and in the middle."""
    x, y = corner
    low, high = panel.limits
    ramp = np.broadcast_to(np.linspace(low, high, width), (BAR, width))
    page.paste(coloured(ramp, panel), corner)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(TEXT)
    for share, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
        place = (x + share * width, y + BAR + TEXT // 3)
        pen.text(place, f"{low + share * (high - low):.2g}", "black", font, anchor)


def central_slices(volume: Volume) -> list[Volume]:
    """Cut a ``(D, H, W)`` volume through its centre: ``(H, W)``, ``(D, W)``, ``(H, D)``."""
    depth, height, width = volume.shape
    return [volume[depth // 2], volume[:, height // 2], volume[:, :, width // 2].T]


def coloured(values: Volume, panel: Panel) -> Image.Image:
    """Return an image with a pixel for each value, its colour taken from the panel's range."""
    low, high = panel.limits
    stops = np.linspace(low, high, len(panel.colours))
    channels = np.array([[int(c[i : i + 2], 16) for c in panel.colours] for i in (1, 3, 5)])
    pixels = np.stack([np.interp(values, stops, channel) for channel in channels], axis=-1)
    return Image.fromarray(pixels.round().astype(np.uint8))


def enlarged(plane: Volume) -> tuple[int, int]:
    """Return the width and height of a slice on the page."""
    rows, columns = plane.shape
    return columns * SCALE, rows * SCALE
