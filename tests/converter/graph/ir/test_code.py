import ast
import math

import pytest

from mlxport.converter.graph.ir.code import OMIT, call, expression, substitute, to_ast, to_source


@pytest.mark.parametrize(
    ("template", "operands", "source"),
    [
        ("x + y", {"x": ast.Name("a"), "y": 2}, "a + 2"),
        ("x * y", {"x": ast.parse("a + b", mode="eval").body, "y": -2.0}, "(a + b) * -2.0"),
        ("f(x, axis=axis)", {"x": ast.Name("a"), "axis": OMIT}, "f(a)"),
        ("f(x, axis=axis)", {"x": ast.Name("a"), "axis": -1}, "f(a, axis=-1)"),
        ("f(xs)", {"xs": [ast.Name("a"), ast.Name("b")]}, "f([a, b])"),
        ("f(xs)", {"xs": (1,)}, "f((1,))"),
        ("f(x)", {"x": 1e-05}, "f(1e-5)"),
        ("f(x)", {"x": 1e20}, "f(1e20)"),
        ("f(x)", {"x": math.inf}, "f(mx.inf)"),
        ("f(x)", {"x": -math.inf}, "f(-mx.inf)"),
        ("f(x)", {"x": math.nan}, "f(mx.nan)"),
        ("f(x)", {"x": True}, "f(True)"),
        ("f(x)", {"x": None}, "f(None)"),
        ("x[i]", {"x": ast.Name("a"), "i": (..., slice(1, None))}, "a[..., 1:]"),
    ],
)
def test_a_template_is_filled(template, operands, source):
    assert to_source(expression(template, operands)) == source


@pytest.mark.parametrize(
    "text",
    ['edge"; import os #', "a\nb", "\\", "'", "é\u2028", "😀", "\ud800", "\0\x7f"],
    ids=["quote", "line", "slash", "tick", "odd", "beyond U+FFFF", "surrogate", "control"],
)
def test_text_reaches_the_source_only_quoted(text):
    source = to_source(expression("f(mode)", {"mode": text}))
    assert ast.literal_eval(ast.parse(source, mode="eval").body.args[0]) == text


def test_an_operand_the_template_does_not_name_is_refused():
    with pytest.raises(KeyError, match="axis"):
        expression("f(x)", {"x": 1, "axis": 2})


def test_a_value_without_a_literal_is_refused():
    with pytest.raises(TypeError, match="object"):
        to_ast(object())


def test_templates_are_not_changed_by_filling():
    first = to_source(expression("x + y", {"x": 1, "y": 2}))
    second = to_source(expression("x + y", {"x": 3, "y": 4}))
    assert (first, second) == ("1 + 2", "3 + 4")


def test_substitution_leaves_the_original_alone():
    tree = call("f", ast.Name("%1"), ast.Name("%2"))
    changed = substitute(tree, {"%1": ast.Name("x")})
    assert (to_source(changed), to_source(tree)) == ("f(x, %2)", "f(%1, %2)")
