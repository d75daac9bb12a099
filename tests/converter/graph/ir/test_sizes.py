"""Sizes as expressions of Python."""

import ast

import pytest

from mlxport.converter.graph.ir.code import to_source
from mlxport.converter.graph.ir.sizes import tidy

# as torch prints it -> as people write it
SIZES = {
    "1 + n": "n + 1",
    "n + 1": "n + 1",
    "-1 + n": "n - 1",
    "n + -1": "n - 1",
    "-m + n": "n - m",
    "-1*m + n": "n - m",
    "-m + -n": "-m - n",
    "2*n": "2 * n",
    "2*n + 3*m": "2 * n + 3 * m",
    "n // 2": "n // 2",
    "n - 1": "n - 1",
    "max(1, -2 + n // 2)": "max(1, n // 2 - 2)",
}


@pytest.mark.parametrize(("printed", "written"), SIZES.items(), ids=SIZES)
def test_sums_are_written_as_people_do(printed: str, written: str) -> None:
    text = to_source(tidy(ast.parse(printed, mode="eval").body))
    assert text == written
    sizes = {"m": 7, "n": 13, "max": max}
    assert eval(text, sizes) == eval(printed, sizes)
