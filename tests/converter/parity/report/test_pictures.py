"""Slices and histograms: the right places, scales that hold, data that survives a file."""

import base64
import io
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from mlxport.converter.errors import ConversionError
from mlxport.converter.parity.report.images import (
    BLUE_ORANGE,
    VIRIDIS,
    figures,
    histograms,
    palette,
)
from mlxport.converter.parity.report.pictures import (
    LEVELS,
    UNDEFINED,
    Histogram,
    Picture,
    pictured,
)
from mlxport.converter.parity.verdict.reference_data import ReferenceValue
from mlxport.converter.plan.json_data import from_data, to_data


def value(reference, dtype="float32", native=None, **options):
    native = reference if native is None else native
    return ReferenceValue(
        reference.shape, dtype, reference.reshape(-1), native.reshape(-1), **options
    )


def pixels(plane, name):
    return np.frombuffer(getattr(plane, name), np.uint8).reshape(plane.shape)


def volume(shape=(2, 3, 6, 8, 10), seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


class TestPicture:
    def test_of_a_volume_are_its_three_central_slices(self):
        reference = volume()
        (picture,), _ = pictured(["output"], [reference], [value(reference)])
        assert [plane.at for plane in picture.planes] == ["[3, :, :]", "[:, 4, :]", "[:, :, 5]"]
        assert [plane.shape for plane in picture.planes] == [(8, 10), (6, 10), (6, 8)]
        low, high = picture.limits
        shown = low + pixels(picture.planes[1], "reference") / LEVELS * (high - low)
        expected = reference[(*picture.leading, slice(None), 4)]
        assert np.abs(shown - expected).max() <= (high - low) / LEVELS / 2 * 1.001
        assert picture.planes[1].mlx == picture.planes[1].reference
        assert set(picture.planes[1].difference) == {LEVELS // 2}

    def test_shows_the_batch_item_and_channel_with_the_largest_error(self):
        reference = volume()
        mlx = reference.copy()
        mlx[1, 2, 3, 4, 5] += 3.0
        (picture,), _ = pictured(["output"], [mlx], [value(reference)])
        assert picture.leading == (1, 2)
        assert picture.largest == pytest.approx(3.0)
        for plane, at in zip(picture.planes, [(4, 5), (3, 5), (3, 4)], strict=True):
            difference = pixels(plane, "difference")
            assert difference[at] == LEVELS
            assert np.count_nonzero(difference != LEVELS // 2) == 1

    def test_of_an_image_is_the_image(self):
        reference = volume((1, 3, 20, 30))
        (picture,), _ = pictured(["output"], [reference], [value(reference)])
        assert [(p.at, p.shape) for p in picture.planes] == [("[:, :]", (20, 30))]

    def test_of_something_large_is_small(self):
        reference = volume((1, 1000, 700))
        (picture,), _ = pictured(["output"], [reference], [value(reference)])
        assert picture.planes[0].shape == (167, 175)
        assert pixels(picture.planes[0], "reference")[1, 2] == pytest.approx(
            (reference[0, 6, 8] - picture.limits[0])
            / (picture.limits[1] - picture.limits[0])
            * LEVELS,
            abs=0.51,
        )

    @pytest.mark.parametrize(
        "shape",
        [(5,), (4, 9), (2, 3, 20), (1, 4, 2, 8), (0, 4, 8, 8)],
        ids=["a vector", "rows", "a short axis", "a flat image", "empty"],
    )
    def test_there_is_none_of(self, shape):
        reference = volume(shape)
        assert pictured(["output"], [reference], [value(reference)])[0] == ()

    @pytest.mark.parametrize("dtype", ["int64", "bool", "complex64"])
    def test_there_is_none_of_what_is_no_real_number(self, dtype):
        reference = volume((1, 8, 8)).astype(dtype)
        assert pictured(["output"], [reference], [value(reference, dtype)]) == ((), ())

    def test_there_is_none_of_another_shape_or_of_samples(self):
        reference = volume((1, 8, 8))
        part = value(reference, indices=np.arange(64))
        assert pictured(["a", "b"], [reference[:, :4], reference], [value(reference), part]) == (
            (),
            (),
        )

    def test_nan_and_infinity_are_marked_and_do_not_spoil_the_scale(self):
        reference = volume((1, 8, 8))
        mlx = reference.copy()
        mlx[0, 2, 3], mlx[0, 4, 4] = np.nan, np.inf
        (picture,), (histogram,) = pictured(["output"], [mlx], [value(reference)])
        marked = np.argwhere(pixels(picture.planes[0], "mlx") == UNDEFINED)
        assert marked.tolist() == [[2, 3], [4, 4]]
        assert UNDEFINED not in picture.planes[0].reference
        assert np.isfinite(picture.largest)
        assert histogram.exact == (62, 64)
        assert "magenta" in figures([picture])

    @given(arrays(np.float64, (1, 4, 5), elements=st.floats(width=32), fill=st.nothing()))
    def test_any_values_go_through_a_file(self, mlx):
        reference = volume((1, 4, 5))
        shown = pictured(["output"], [mlx], [value(reference)])
        text = json.dumps(to_data(shown), allow_nan=False)
        found = json.loads(text)
        assert from_data(tuple[Picture, ...], found[0]) == shown[0]
        assert from_data(tuple[Histogram, ...], found[1]) == shown[1]
        figures(shown[0])
        histograms(shown[1])

    @pytest.mark.parametrize("shape", [[4, 6], [3, 5]], ids=["too few", "too many"])
    def test_damaged_pixels_are_refused(self, shape):
        (picture,), _ = pictured(["output"], [volume((1, 4, 5))], [value(volume((1, 4, 5)))])
        data = to_data(picture)
        data["planes"][0]["shape"] = shape
        message = r"planes\[0\]: reference has 20 pixels, its shape"
        with pytest.raises(ConversionError, match=message):
            from_data(Picture, data)


class TestHistogram:
    def test_counts_errors_in_units_of_the_values(self):
        reference = np.full((1, 8), 100.0)
        mlx, native = reference.copy(), reference.copy()
        mlx[0, :3] += 1.0  # a hundredth
        mlx[0, 3] += 10.0
        native[0, 0] -= 5.0
        _, (found,) = pictured(["output"], [mlx], [value(reference, native=native)])
        assert found.start == -2
        assert found.mlx == (3, 0, 1)
        assert found.torch == (0, 1, 0)
        assert found.exact == (4, 7)
        assert "4 positions have none" in histograms([found])

    def test_without_any_error_it_says_so(self):
        reference = volume((1, 8, 8))
        _, (found,) = pictured(["output"], [reference], [value(reference)])
        assert (found.mlx, found.exact) == ((), (64, 64))
        histograms([found])

    def test_large_outputs_are_sampled(self):
        reference = volume((1, 400, 400))
        _, (found,) = pictured(["output"], [reference + 1e-3], [value(reference)])
        assert 60000 < sum(found.mlx) <= 65536


def test_images_are_pngs_in_the_colours_of_the_bar():
    reference = volume((1, 6, 9))
    (picture,), _ = pictured(["output"], [reference], [value(reference)])
    data = re.findall(r"base64,([^\"]+)\"", figures([picture]))
    images = [Image.open(io.BytesIO(base64.b64decode(one))) for one in data]
    assert [image.size for image in images] == [(9, 6)] * 3
    for image, name, colours in zip(
        images, ("reference", "mlx", "difference"), (VIRIDIS, VIRIDIS, BLUE_ORANGE), strict=True
    ):
        table = np.frombuffer(palette(colours), np.uint8).reshape(256, 3)
        expected = table[pixels(picture.planes[0], name)]
        assert (np.asarray(image.convert("RGB")) == expected).all()
    assert tuple(np.frombuffer(palette(VIRIDIS), np.uint8)[:3]) == (0x44, 0x01, 0x54)
