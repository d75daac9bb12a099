import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxport.converter.errors import ParityError
from mlxport.converter.parity.verdict.compare import judge
from mlxport.converter.parity.verdict.judgement import Judgement
from mlxport.converter.parity.verdict.precision import PRECISIONS


def truth(shape=(4, 50), scale=1.0):
    return np.random.default_rng(1).standard_normal(shape) * scale


def rounded(values, dtype):
    """Round float64 values to a dtype of which numpy may know nothing, and widen them again."""
    if dtype == "bfloat16":
        bits = np.asarray(values, np.float32).view(np.uint32)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
        return bits.view(np.float32).astype(np.float64)
    return np.asarray(values).astype(dtype).astype(np.float64)


DTYPES = ["float32", "float16", "bfloat16"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rounded_value_passes_as_one_rounding(dtype):
    reference = truth()
    native = rounded(reference, dtype)
    verdict = judge(native, reference, native, dtype=dtype)
    assert verdict.passed
    assert verdict.error == verdict.noise
    assert 0.1 < verdict.ratio <= 1  # a rounding loses at most the unit roundoff
    assert 0 < verdict.max_ulp <= 0.5
    assert verdict.compared == 200
    assert verdict.first is None


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6, 1e30])
@pytest.mark.parametrize("fault", [1e-3, 1e-4])
def test_a_fault_is_seen_at_any_scale(scale, fault):
    reference = truth(scale=scale)
    native = rounded(reference, "float32")
    verdict = judge(native * (1 + fault), reference, native, dtype="float32")
    assert not verdict.passed
    assert verdict.error == pytest.approx(fault, rel=1e-2)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6, 1e30])
def test_float32_rounding_passes_at_any_scale(scale):
    reference = truth(scale=scale)
    native = rounded(reference, "float32")
    assert judge(native * (1 + 4e-7), reference, native, dtype="float32").passed


@pytest.mark.parametrize(("multiple", "passed"), [(32, False), (40, True)])
def test_the_limit_is_the_multiple_of_the_noise(multiple, passed):
    reference = truth()
    native, actual = reference * (1 + 1e-5), reference * (1 + 36e-5)
    verdict = judge(actual, reference, native, dtype="float32", judgement=Judgement(multiple))
    assert verdict.ratio == pytest.approx(36)
    assert verdict.passed is passed


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("roundings", "passed"), [(7, True), (9, False)])
def test_where_torch_is_exact_one_rounding_is_the_noise(dtype, roundings, passed):
    reference = truth()
    actual = reference * (1 + roundings * PRECISIONS[dtype].roundoff)
    verdict = judge(actual, reference, reference, dtype=dtype)
    assert verdict.noise == 0
    assert verdict.passed is passed


def test_one_wrong_element_among_many_is_seen_and_named():
    reference = truth((64, 1024))
    native = rounded(reference, "float32")
    actual = native.copy()
    actual[3, 7] += 0.01
    verdict = judge(actual, reference, native, dtype="float32")
    assert not verdict.passed
    assert verdict.first == (3, 7)
    assert verdict.max_abs == pytest.approx(0.01, rel=1e-4)
    assert "first at (3, 7)" in verdict.problems[0]


@given(exponent=st.integers(-60, 60), seed=st.integers(0, 99), fault=st.floats(0, 1e-4))
def test_the_verdict_does_not_depend_on_scale(exponent, seed, fault):
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal(40)
    native = rounded(reference, "float32")
    actual = native * (1 + fault * rng.standard_normal(40))
    scale = 2.0**exponent
    one = judge(actual, reference, native, dtype="float32")
    two = judge(actual * scale, reference * scale, native * scale, dtype="float32")
    assert one.passed == two.passed
    assert one.ratio == pytest.approx(two.ratio, rel=1e-6)
    assert one.max_ulp == two.max_ulp


class TestNumbers:
    reference = np.array([1.0, -2.0, 4.0, 3.0])

    def test_ulp_is_the_spacing_at_the_largest_magnitude(self):
        actual = self.reference + np.array([0, 0, 2.0**-21, 0])  # float32 spacing in [4, 8)
        assert judge(actual, self.reference, self.reference, dtype="float32").max_ulp == 1

    def test_cosine_and_signal_to_noise(self):
        verdict = judge(self.reference * 1.1, self.reference, self.reference, dtype="float32")
        assert verdict.cosine == pytest.approx(1)
        assert verdict.snr_db == pytest.approx(20)
        assert verdict.error == pytest.approx(0.1)

    def test_cosine_of_an_opposite(self):
        verdict = judge(-self.reference, self.reference, self.reference, dtype="float32")
        assert verdict.cosine == pytest.approx(-1)
        assert not verdict.passed

    def test_an_exact_value_has_no_noise_at_all(self):
        verdict = judge(self.reference, self.reference, self.reference, dtype="float32")
        assert (verdict.error, verdict.ratio, verdict.snr_db) == (0, 0, float("inf"))

    @pytest.mark.parametrize("scale", [1e300, 1e-290, 5e-324])
    def test_nothing_overflows_or_vanishes(self, scale):
        reference = np.array([4.0, 3.0]) * scale
        verdict = judge(2 * reference, reference, reference, dtype="float64")
        assert verdict.error == pytest.approx(1)

    def test_infinitely_far_off_fails(self):
        big = np.array([1.7e308, 1.0])
        assert not judge(-big, big, big, dtype="float64").passed


class TestNonFinite:
    reference = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])

    def with_values(self, *pairs):
        values = self.reference.copy()
        for index, value in pairs:
            values[index] = value
        return values

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_alike_passes(self, value):
        odd = self.with_values(((1, 1), value))
        verdict = judge(odd, odd, odd, dtype="float32")
        assert verdict.passed
        assert verdict.compared == 5

    @pytest.mark.parametrize(
        ("torch_has", "mlx_has"),
        [(np.nan, 5.0), (5.0, np.nan), (np.inf, -np.inf), (np.inf, np.nan), (-np.inf, 1e38)],
    )
    def test_elsewhere_or_of_another_kind_fails(self, torch_has, mlx_has):
        native = self.with_values(((1, 1), torch_has))
        verdict = judge(self.with_values(((1, 1), mlx_has)), native, native, dtype="float32")
        assert not verdict.passed
        assert verdict.first == (1, 1)

    def test_overflow_in_the_models_dtype_is_torchs_own_value(self):
        reference = self.with_values(((0, 2), 1e6))
        native = self.with_values(((0, 2), np.inf))  # float16 ends at 65504
        verdict = judge(native, reference, native, dtype="float16")
        assert verdict.passed
        assert verdict.compared == 5
        assert not judge(reference, reference, native, dtype="float16").passed

    def test_a_fault_beside_a_nan_is_seen(self):
        native = self.with_values(((0, 0), np.nan))
        actual = self.with_values(((0, 0), np.nan), ((1, 2), 7.0))
        verdict = judge(actual, native, native, dtype="float32")
        assert not verdict.passed
        assert verdict.first == (1, 2)

    def test_all_nan_agrees_but_nothing_was_compared(self):
        nothing = np.full((2, 3), np.nan)
        verdict = judge(nothing, nothing, nothing, dtype="float32")
        assert verdict.passed
        assert verdict.compared == 0
        assert verdict.ratio is None


class TestZeroReference:
    zeros = np.zeros((2, 3))

    def test_zeros_pass(self):
        verdict = judge(self.zeros, self.zeros, self.zeros, dtype="float32")
        assert verdict.passed
        assert verdict.cosine is None
        assert verdict.snr_db is None

    def test_negative_zero_is_zero(self):
        assert judge(-self.zeros, self.zeros, self.zeros, dtype="float32").passed

    def test_anything_else_fails_where_torch_is_exact(self):
        assert not judge(self.zeros + 1e-9, self.zeros, self.zeros, dtype="float32").passed

    @pytest.mark.parametrize(("off", "passed"), [(2e-8, True), (1e-6, False)])
    def test_torchs_own_noise_is_the_measure(self, off, passed):
        native = self.zeros + 1e-8
        assert judge(self.zeros + off, self.zeros, native, dtype="float32").passed is passed


class TestExact:
    @pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
    def test_integers(self, dtype):
        values = np.arange(6).reshape(2, 3).astype(dtype)
        off = values.copy()
        off[1, 0] += 1
        assert judge(values, values, values, dtype=dtype).passed
        verdict = judge(off, values, values, dtype=dtype)
        assert not verdict.passed
        assert verdict.first == (1, 0)
        assert verdict.max_abs == 1
        assert verdict.ratio == float("inf")
        assert verdict.error == pytest.approx(1 / 6)

    def test_large_integers_are_not_rounded(self):
        values = np.array([2**53, 2**53 + 1])
        assert not judge(values[::-1], values, values, dtype="int64").passed

    def test_booleans(self):
        values = np.array([True, False])
        assert judge(values, values, values, dtype="bool").passed
        assert not judge(~values, values, values, dtype="bool").passed

    @pytest.mark.parametrize(("index", "passed"), [(3, True), (7, True), (5, False)])
    def test_where_torch_differs_from_float64_either_is_right(self, index, passed):
        reference, native = np.array([3]), np.array([7])
        assert judge(np.array([index]), reference, native, dtype="int64").passed is passed

    @pytest.mark.parametrize(("index", "same"), [(7, True), (3, False), (5, False)])
    def test_dynamo_asks_for_torchs_own(self, index, same):
        reference, native = np.array([3]), np.array([7])
        assert judge(np.array([index]), reference, native, dtype="int64").dynamo is same

    @pytest.mark.parametrize(("native", "noise"), [([3, 1, 2, 0], 0.0), ([3, 1, 2, 4], 0.25)])
    def test_the_noise_is_the_share_in_which_torch_differs(self, native, noise):
        reference, native = np.array([3, 1, 2, 0]), np.array(native)
        assert judge(native, reference, native, dtype="int64").noise == noise


class TestForm:
    def test_shape(self):
        value = truth((2, 3))
        verdict = judge(value.T, value, value, dtype="float32")
        assert verdict.problems == ("shape: PyTorch gives (2, 3), MLX (3, 2)",)
        assert verdict.ratio is None

    def test_same_values_in_another_shape(self):
        value = truth((2, 3))
        assert not judge(value.reshape(3, 2), value, value, dtype="float32").passed

    def test_dtype(self):
        value = truth((2, 3))
        verdict = judge(value, value, value, dtype="float32", actual_dtype="float16")
        assert not verdict.passed
        assert "dtype: PyTorch gives float32, MLX float16" in verdict.problems[0]
        assert verdict.ratio == 0  # the values are compared all the same

    def test_complex_for_real(self):
        value = truth((2, 3))
        assert not judge(value + 1j, value, value, dtype="float32").passed

    @pytest.mark.parametrize("dtype", ["float32", "int64", "complex64"])
    def test_empty(self, dtype):
        kind = {"float32": np.float64, "int64": np.int64, "complex64": np.complex128}[dtype]
        nothing = np.zeros((0, 3), kind)
        verdict = judge(nothing, nothing, nothing, dtype=dtype)
        assert verdict.passed
        assert verdict.compared == 0
        assert not judge(nothing.T, nothing, nothing, dtype=dtype).passed

    def test_scalar(self):
        value = np.array(2.5)
        assert judge(value, value, value, dtype="float32").passed
        verdict = judge(value + 1, value, value, dtype="float32")
        assert not verdict.passed
        assert verdict.first == ()

    def test_complex(self):
        reference = truth((3, 4)) + 1j * truth((3, 4))
        actual = reference.copy()
        assert judge(actual, reference, reference, dtype="complex64").passed
        actual[2, 1] += 1j
        verdict = judge(actual, reference, reference, dtype="complex64")
        assert not verdict.passed
        assert verdict.first == (2, 1, 1)

    def test_an_unknown_dtype_is_refused(self):
        with pytest.raises(ParityError, match="float8_e4m3fn"):
            judge(truth(), truth(), truth(), dtype="float8_e4m3fn")

    def test_own_of_another_shape_is_refused(self):
        with pytest.raises(ParityError, match="differ in shape"):
            judge(truth(), truth(), truth((2, 2)), dtype="float32")


class TestSamples:
    whole = truth((5, 6, 7))
    indices = np.array([3, 50, 100, 200])

    def judge(self, actual, shape=(5, 6, 7)):
        sampled = self.whole.reshape(-1)[self.indices]
        return judge(actual, sampled, sampled, dtype="float32", shape=shape, indices=self.indices)

    def test_are_taken_from_the_whole_value(self):
        assert self.judge(self.whole).passed
        assert self.judge(np.asfortranarray(self.whole)).passed
        assert self.judge(self.whole).compared == 4

    def test_the_index_is_that_in_the_tensor(self):
        actual = self.whole.copy()
        actual.reshape(-1)[100] += 1
        assert self.judge(actual).first == np.unravel_index(100, (5, 6, 7))

    def test_of_complex_values(self):
        whole = self.whole + 2j * self.whole
        actual = whole.copy()
        actual.reshape(-1)[50] += 1
        sampled = whole.reshape(-1)[self.indices]
        verdict = judge(
            actual, sampled, sampled, dtype="complex64", shape=whole.shape, indices=self.indices
        )
        assert verdict.first == (*np.unravel_index(50, (5, 6, 7)), 0)

    def test_the_shape_is_that_of_the_tensor(self):
        assert not self.judge(self.whole.transpose(2, 1, 0)).passed


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_formats_are_numpys(dtype):
    info, precision = np.finfo(dtype), PRECISIONS[dtype]
    assert precision.roundoff == info.eps / 2
    assert precision.tiniest == info.smallest_subnormal
    for magnitude in (0.0, 1e-7, 1.0, 3.0, 1000.0):
        value = info.dtype.type(magnitude)
        assert precision.spacing(float(value)) == np.spacing(value)


class TestMoved:
    """What fails by PyTorch's noise is judged by how far its values move."""

    def verdict(self, error: float, moved: float, multiple: float = 8.0):
        reference = truth()
        size = np.linalg.norm(reference)
        native, actual = reference * (1 + 1e-6), reference * (1 + error)
        judgement = Judgement(multiple)
        return judge(
            actual, reference, native, dtype="float32", moved=moved * size, judgement=judgement
        )

    def test_four_times_that_pass(self):
        verdict = self.verdict(39e-6, 1e-5)
        assert verdict.passed
        assert verdict.noise == pytest.approx(1e-5)
        assert verdict.ratio == pytest.approx(3.9)

    def test_more_fails_by_the_noise(self):
        verdict = self.verdict(41e-6, 1e-5)
        assert not verdict.passed
        assert verdict.ratio == pytest.approx(41)

    def test_a_multiple_below_four_is_of_one_run(self):
        assert self.verdict(19e-6, 1e-5, multiple=4).passed
        assert not self.verdict(19e-6, 1e-5, multiple=3.9).passed

    def test_what_passes_by_the_noise_keeps_it(self):
        assert self.verdict(7e-6, 1e-5).noise == pytest.approx(1e-6)


# Powers of two, so that every quotient is exact: PyTorch is off by 2**-10.
REFERENCE, NATIVE = np.array([0.0, 1.0]), np.array([2.0**-10, 1.0])
JUST_ABOVE = 1 + 2.0**-30


@pytest.mark.parametrize("multiple", [1, 2, 8, 32, 1000])
def test_a_ratio_equal_to_the_multiple_passes(multiple):
    judgement = Judgement(multiple)
    actual = np.array([multiple * 2.0**-10, 1.0])
    verdict = judge(actual, REFERENCE, NATIVE, dtype="float32", judgement=judgement)
    assert verdict.passed
    assert verdict.ratio == multiple
    actual[0] *= JUST_ABOVE
    assert not judge(actual, REFERENCE, NATIVE, dtype="float32", judgement=judgement).passed


@pytest.mark.parametrize("moved", [2.0**-11, 2.0**-10, 2.0**-9, 2.0**-8])
def test_the_farther_of_noise_and_movement_is_what_counts(moved):
    """8 times the noise, or 4 times the movement where that is more."""
    farthest = max(8 * 2.0**-10, 4 * max(moved, 2.0**-10))
    for factor, passed in ((1, True), (JUST_ABOVE, False)):
        actual = np.array([farthest * factor, 1.0])
        verdict = judge(actual, REFERENCE, NATIVE, dtype="float32", moved=moved)
        assert verdict.passed == passed
    assert verdict.noise == 2.0**-10  # what does not pass is shown as it was judged first


@pytest.mark.parametrize(("multiple", "passed"), [(4, True), (3.999, False)])
def test_movement_counts_from_its_own_multiple_on(multiple, passed):
    actual = np.array([2.0**-6, 1.0])
    judgement = Judgement(multiple)
    verdict = judge(actual, REFERENCE, NATIVE, dtype="float32", moved=2.0**-8, judgement=judgement)
    assert verdict.passed == passed


def test_one_rounding_is_the_least_noise():
    """Of a reference of one element of 1: half a unit, and the least number there is."""
    one = np.array([1.0])
    for factor, passed in ((1, True), (JUST_ABOVE, False)):
        least = 8 * (2.0**-24 + 2.0**-149) * factor
        assert judge(one + least, one, one, dtype="float32").passed == passed


@pytest.mark.parametrize("place", [None, 3], ids=["all finite", "one not a number"])
def test_samples_of_a_view_are_those_of_a_copy(place: int | None) -> None:
    whole = truth((6, 5, 4))
    if place is not None:
        whole.flat[place] = np.nan
    view = np.asfortranarray(whole * (1 + 1e-6))
    indices = np.arange(0, whole.size, 3)
    sampled = whole.reshape(-1)[indices]
    options = {"dtype": "float32", "shape": whole.shape, "indices": indices}
    found = judge(view, sampled, sampled, **options)
    assert found == judge(np.ascontiguousarray(view), sampled, sampled, **options)
    assert not found.passed
    assert found.compared == indices.size - (place is not None)
    assert found.nonfinite == (place is not None)
