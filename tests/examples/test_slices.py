import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlxport.examples.slices import (
    BLUE_ORANGE,
    GREY,
    VIRIDIS,
    Panel,
    central_slices,
    coloured,
    draw,
)

VOLUME = np.random.default_rng(0).normal(size=(4, 6, 5))


def test_slices_go_through_the_centre() -> None:
    axial, coronal, sagittal = central_slices(VOLUME)
    assert np.array_equal(axial, VOLUME[2])
    assert np.array_equal(coronal, VOLUME[:, 3])
    assert np.array_equal(sagittal, VOLUME[:, :, 2].T)


@pytest.mark.parametrize("colours", [GREY, VIRIDIS, BLUE_ORANGE], ids=["grey", "viridis", "diff"])
def test_limits_take_the_first_and_the_last_colour(colours: tuple[str, ...]) -> None:
    panel = Panel("", VOLUME, colours, (-1.0, 3.0))
    image = coloured(np.array([[-9.0, -1.0, 3.0, 9.0]]), panel)
    ends = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.asarray(image)[0]]
    assert ends == [colours[0], colours[0], colours[-1], colours[-1]]


def test_no_difference_is_the_neutral_colour() -> None:
    panel = Panel("", VOLUME, BLUE_ORANGE, (-1e-6, 1e-6))
    assert coloured(np.zeros((1, 1)), panel).getpixel((0, 0)) == (247, 247, 247)


def test_draws_every_panel(tmp_path: Path) -> None:
    panels = [Panel("a", VOLUME, GREY, (-1, 1)), Panel("b", VOLUME, VIRIDIS, (-1, 1))]
    draw(panels, "two panels", tmp_path / "p.png")
    page = np.asarray(Image.open(tmp_path / "p.png"))
    for panel in panels:
        for plane in central_slices(VOLUME):
            pixel = np.asarray(coloured(plane, panel))
            count = (page == pixel[0, 0]).all(axis=-1).sum()
            assert count >= 36  # one voxel is 6 by 6 pixels
    assert not math.isclose(page.std(), 0)
