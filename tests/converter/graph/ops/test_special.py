"""Special functions against torch."""

import pytest
import torch

from mlxport.converter.graph.ir.context import Unsupported

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


def test_higher_orders_are_refused(lower_op):
    with pytest.raises(Unsupported, match="order 2"):
        lower_op(lambda x: torch.polygamma(2, x), torch.rand(3))
