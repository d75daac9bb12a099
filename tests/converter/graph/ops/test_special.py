"""Special functions against torch."""

import pytest
import torch

FUNCTIONS = {
    "erfc": torch.erfc,
    "erfcx": torch.special.erfcx,
    "lgamma": torch.lgamma,
    "digamma": torch.digamma,
    "trigamma": lambda x: torch.polygamma(1, x),
    "polygamma 0": lambda x: torch.polygamma(0, x),
    "i0": torch.special.i0,
    "i0e": torch.special.i0e,
    "i1": torch.special.i1,
    "i1e": torch.special.i1e,
    "k0": torch.special.modified_bessel_k0,
    "k1e": torch.special.scaled_modified_bessel_k1,
    "j0": torch.special.bessel_j0,
    "j1": torch.special.bessel_j1,
    "y0": torch.special.bessel_y0,
    "y1": torch.special.bessel_y1,
    "spherical j0": torch.special.spherical_bessel_j0,
    "airy": torch.special.airy_ai,
    "ndtri": lambda x: torch.special.ndtri(x / 4),
    "gammaln": torch.special.gammaln,
    "ndtr": torch.special.ndtr,
    "log_ndtr": torch.special.log_ndtr,
    "multigammaln": lambda x: torch.special.multigammaln(x + 2, 2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values(name, assert_op_parity):
    assert_op_parity(FUNCTIONS[name], torch.rand(2, 3, 4, 5) * 3 + 0.1)


@pytest.mark.parametrize("name", ["erfc", "lgamma", "i0"])
def test_integers_give_float32(name, assert_op_parity):
    assert_op_parity(FUNCTIONS[name], torch.arange(1, 5))


BINARY = {
    "zeta": torch.special.zeta,
    "chebyshev t": torch.special.chebyshev_polynomial_t,
    "shifted chebyshev w": torch.special.shifted_chebyshev_polynomial_w,
    "hermite h": torch.special.hermite_polynomial_h,
    "hermite he": torch.special.hermite_polynomial_he,
    "laguerre": torch.special.laguerre_polynomial_l,
    "legendre": torch.special.legendre_polynomial_p,
}


@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_arrays(name, assert_op_parity):
    x, n = torch.rand(2, 3, 4, 5) * 2 + 1.1, torch.randint(1, 6, (3, 1, 5))
    assert_op_parity(BINARY[name], x, n.float())
    assert_op_parity(BINARY[name], n, x.round())


@pytest.mark.parametrize("name", BINARY)
def test_functions_of_an_array_and_a_number(name, assert_op_parity, lower_op):
    x = torch.rand(2, 3, 4) + 1.5
    assert_op_parity(lambda x: BINARY[name](x, 3), x)
    assert_op_parity(lambda n: BINARY[name](2.5, n), torch.arange(1.0, 6))
    if name != "zeta":  # its degree stands in the text
        assert ", 3" in lower_op(lambda x: BINARY[name](x, 3), x).source


@pytest.mark.parametrize("order", [2, 3])
def test_derivatives_of_higher_order(order, assert_op_parity):
    assert_op_parity(lambda x: torch.polygamma(order, x), torch.rand(2, 3, 4) + 0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["gammainc", "gammaincc"])
def test_incomplete_gamma_functions(name, dtype, assert_op_parity):
    shape, bound = torch.rand(2, 3, 4, 5) * 12, torch.rand(3, 1, 5) * 12
    function = getattr(torch.special, name)
    assert_op_parity(function, shape, bound, dtype=dtype)
    assert_op_parity(function, bound, shape, dtype=dtype)
