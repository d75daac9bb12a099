"""What the docstring of model.py says of indices that nothing bounds."""

import mlx.core as mx
import pytest
import torch
from torch import nn

import mlxport
from mlxport.converter.graph.capture.table_guards import table_conditions


class LooksUp(nn.Module):
    """Looks up what a function of it, and of its input, computes."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.table = nn.Parameter(torch.arange(16.0))
        self.register_buffer("scores", torch.rand(4, generator=torch.Generator().manual_seed(0)))
        self.register_buffer("places", torch.tensor([3, 0, 5]))

    def forward(self, x):
        return x[:, :1] + self.table[self.function(self, x)].sum()


# what is looked up, the dynamic axes, whose values decide
CASES = {
    "the input": (lambda m, x: x.long().flatten(), None, "a value of x is"),
    "weights": (lambda m, x: (m.scores * 9).long(), None, "a value of self.scores is"),
    "input and weights": (lambda m, x: (x * m.scores).long(), None, "a value of x is"),
    "drawn": (lambda m, x: torch.rand(3).mul(4).long(), None, "a value of the numbers drawn is"),
    "sizes": (
        lambda m, x: (torch.arange(x.shape[0]) * 0.5).long(),
        0,
        "a value of the positions computed of sizes is",
    ),
    "known": (lambda m, x: m.places, None, None),
    "the place of the greatest": (lambda m, x: x.argmax().reshape(1), None, None),
    "places along an axis": (lambda m, x: x.argmin(1), None, None),
    "places in order": (lambda m, x: x.argsort(), None, None),
    "places turned round": (lambda m, x: 30 - (x.argmin(1) + 20), None, None),
    "places negated": (lambda m, x: -(x.argmin(1) + 20) + 30, None, None),
    "places divided by the input": (
        lambda m, x: x.argmin(1) // x.long()[:, 0],
        None,
        "a value of x is",
    ),
    "computed of nothing": (lambda m, x: (torch.arange(3) * 0.5).long(), None, None),
}


@pytest.mark.parametrize("name", CASES)
def test_model_py_says_whose_values_are_not_checked(name):
    function, dynamic, words = CASES[name]
    converted = mlxport.convert(
        LooksUp(function).eval(), torch.ones(2, 4), verify=False, dynamic=dynamic
    )
    said = " ".join(converted.source.split('"""')[1].split())
    assert ("MLX checks no index" in said) == (words is not None)
    assert words is None or words in said
    mx.eval(converted.model(mx.ones((2, 4))))


# places of which size of the table: what has to be
NEEDED = {
    "from 2 to 5": (lambda places: places, ["6 <= n"]),
    "negated": (lambda places: -places, ["5 <= n"]),
    "negated and back": (lambda places: 3 - -places, ["9 <= n"]),
}


@pytest.mark.parametrize(("function", "conditions"), NEEDED.values(), ids=NEEDED)
def test_a_table_of_any_size_has_the_rows_that_are_looked_up(function, conditions):
    class Table(nn.Module):
        def forward(self, x):
            return x[function(torch.tensor([2, 5]))]

    rows = torch.export.Dim("rows", min=2, max=4096)
    program = torch.export.export(
        Table(), (torch.ones(32, 3),), dynamic_shapes=({0: rows},), strict=False
    )
    given = [n for n in program.graph.nodes if n.op == "placeholder"][-1]
    symbol = str(given.meta["val"].shape[0])
    assert table_conditions(program, {symbol: "n"}) == conditions
