"""Terms of captured calls, and patterns that match them in any order of products and sums."""

import pytest
import torch

from mlxport.converter.graph.capture.idioms.terms import (
    Along,
    Terms,
    any_input,
    any_number,
    matches,
    product,
    summed,
)

X, EPS = any_input("x"), any_number("eps")


def term_of(function, *shapes, own=(), dtype=torch.float32):
    """Return the term of a function's result, and the nodes of its arguments."""

    class Module(torch.nn.Module):
        def forward(self, *tensors):
            return function(*tensors)

    inputs = tuple(torch.ones(shape, dtype=dtype) for shape in shapes)
    graph = torch.export.export(Module(), inputs, strict=False).graph
    given = [node for node in graph.nodes if node.op == "placeholder"]
    ops = [node for node in graph.nodes if node.op == "call_function"]
    output = next(node for node in graph.nodes if node.op == "output")
    names = {given[i]: f"own{i}" for i in own}
    return Terms(ops, names).of(output.args[0][0]), given


@pytest.mark.parametrize(
    ("function", "term"),
    [
        pytest.param(lambda x: x * 2 * x, lambda x: ("mul", 2.0, x, x), id="numbers in front"),
        pytest.param(lambda x: (x * 2) * (3 * x), lambda x: ("mul", 6.0, x, x), id="multiplied"),
        pytest.param(lambda x: (x + 1) + (x + 2), lambda x: ("add", 3.0, x, x), id="added"),
        pytest.param(lambda x: x * 2 / 2, lambda x: x, id="nothing is left"),
        pytest.param(lambda x: x - 1, lambda x: ("add", -1.0, x), id="minus a number"),
        pytest.param(lambda x: x - x, lambda x: ("sub", x, x), id="a difference"),
        pytest.param(lambda x: -x, lambda x: ("mul", -1.0, x), id="negative"),
        pytest.param(lambda x: x**2, lambda x: ("mul", 1.0, x, x), id="squared"),
        pytest.param(lambda x: x.square(), lambda x: ("mul", 1.0, x, x), id="square"),
        pytest.param(lambda x: x.pow(3), lambda x: ("mul", 1.0, x, x, x), id="cubed"),
        pytest.param(lambda x: x**-0.5, lambda x: ("rsqrt", x), id="power of a root"),
        pytest.param(lambda x: x / x.sqrt(), lambda x: ("mul", 1.0, x, ("rsqrt", x)), id="by root"),
        pytest.param(
            lambda x: x.sqrt().reciprocal(), lambda x: ("rsqrt", x), id="reciprocal of a root"
        ),
        pytest.param(lambda x: x.float().float(), lambda x: x, id="casts to the dtype there is"),
        pytest.param(lambda x: x.half().float(), lambda x: x, id="casts"),
        pytest.param(
            lambda x: x.mean(1, keepdim=True), lambda x: ("mean", -1, x), id="axis from the last"
        ),
        pytest.param(
            lambda x: x.var(0, correction=0, keepdim=True),
            lambda x: (
                "mean",
                -2,
                ("mul", 1.0, ("sub", x, ("mean", -2, x)), ("sub", x, ("mean", -2, x))),
            ),
            id="a variance",
        ),
    ],
)
def test_spellings_of_one_formula_are_one_term(function, term):
    got, (x,) = term_of(function, (2, 3))
    assert got == term(x)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: x.mean(1), id="an axis that is dropped"),
        pytest.param(lambda x: x.mean((0, 1), keepdim=True), id="two axes"),
        pytest.param(lambda x: x.var(1, keepdim=True), id="a variance by n - 1"),
        pytest.param(lambda x: x.mean(1, keepdim=True, dtype=torch.float64), id="in float64"),
        pytest.param(lambda x: x**2.5, id="another power"),
        pytest.param(lambda x: torch.add(x, x, alpha=2), id="alpha"),
    ],
)
def test_what_is_not_known_is_itself(function):
    got, _ = term_of(function, (2, 3))
    assert got[0].startswith("aten.")


@pytest.mark.parametrize(
    ("view", "axis"),
    [
        pytest.param(lambda w: w, -1, id="itself"),
        pytest.param(lambda w: w.float(), -1, id="cast"),
        pytest.param(lambda w: w[:, None, None], -3, id="indexed by None"),
        pytest.param(lambda w: w.view(1, -1, 1), -2, id="viewed"),
        pytest.param(lambda w: w.reshape(2, 3), None, id="folded"),
        pytest.param(lambda w: w[:3], None, id="a part"),
        pytest.param(lambda w: w.flip(0), None, id="turned round"),
    ],
)
def test_views_of_an_own_tensor(view, axis):
    got, _ = term_of(lambda w: view(w) * 2, (6,), own=[0])
    assert got[:2] == ("mul", 2.0)
    assert got[2] == Along(axis, "own0") if axis is not None else not isinstance(got[2], Along)


@pytest.mark.parametrize(
    ("pattern", "term", "found"),
    [
        (product(X, ("tanh", X)), ("mul", 1.0, ("tanh", 7), 7), 0),
        (product(2.0, EPS, ("tanh", EPS)), ("mul", 2.0, ("tanh", 3.0), 3.0), 1),
        (product(2.0, EPS, ("tanh", EPS)), ("mul", 2.0, ("tanh", 3.0), 4.0), 0),
        (product(2.0, EPS), ("mul", 2.0 + 1e-8, 3.0), 1),
        (product(2.0, EPS), ("mul", 2.01, 3.0), 0),
        (("sub", EPS, 1.0), ("sub", 1.0, 2.0), 0),
        (summed(EPS, ("tanh", 1.0)), ("add", 0.0, ("tanh", 1.0), 5.0), 1),
        (product(EPS, ("tanh", 1.0)), ("mul", 1.0, ("tanh", 1.0), 5.0, 6.0), 0),
    ],
)
def test_matching(pattern, term, found):
    assert bool(list(matches(pattern, term))) == found
