"""Numbers in which the bodies of otherwise equal modules differ: the sizes of heads, scales.

They become settings of one class, given to its constructor, in place of a class for each number.
Axes and indices are no such numbers: a body that differs in them computes something else.
"""

from __future__ import annotations

import ast
from collections.abc import Hashable, Iterator, Mapping, Sequence
from copy import deepcopy

from mlxport.converter.graph.ir.value import expression_structure
from mlxport.converter.graph.source.format import Code

MOST_SETTINGS = 4  # settings of a class; bodies that differ in more numbers are separate classes
_AXES = {"axis", "axes", "start_axis", "end_axis", "axis1", "axis2", "dtype"}


def skeleton(code: Code) -> Hashable:
    """Return what bodies share that are equal but for numbers."""
    copied = deepcopy(code)
    for number in _numbers(copied):
        number.value = f"<{type(number.value).__name__}>"
    return expression_structure([*copied], {})


def differences(codes: Sequence[Code]) -> dict[int, tuple[float, ...]] | None:
    """Return the numbers in which bodies of one skeleton differ: index -> value in each body.

    None where they differ in more numbers than a class may have settings.
    """
    columns = zip(*([n.value for n in _numbers(code)] for code in codes), strict=True)
    found = {i: column for i, column in enumerate(columns) if len(set(map(repr, column))) > 1}
    return found if len(set(map(repr, found.values()))) <= MOST_SETTINGS else None


def with_settings(code: Code, names: Mapping[int, str]) -> Code:
    """Return a body that reads some of its numbers from settings of its class.

    Args:
        code: its statements.
        names: index of a number -> the attribute that has it.
    """
    copied = deepcopy(code)
    at = {id(number): names[i] for i, number in enumerate(_numbers(copied)) if i in names}
    reading = _Reading(at)
    return tuple(reading.visit(item) for item in copied)


class _Reading(ast.NodeTransformer):
    def __init__(self, at: Mapping[int, str]) -> None:
        self.at = at

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        name = self.at.get(id(node))
        return node if name is None else ast.Attribute(ast.Name("self"), name)


def _numbers(code: Code) -> list[ast.Constant]:
    return [number for item in code for number in _free(item)]


def _free(node: ast.AST, listed: bool = False) -> Iterator[ast.Constant]:
    """Yield the numbers that say how large or how much: no axes, no indices.

    Args:
        node: where to look.
        listed: whether a bare integer counts: in a shape, in arithmetic, by keyword.
    """
    if isinstance(node, ast.Constant):
        if type(node.value) is float or (listed and type(node.value) is int):
            yield node
    elif isinstance(node, ast.Call):
        moves = isinstance(node.func, ast.Attribute) and node.func.attr == "transpose"
        yield from _free(node.func)
        for argument in node.args:
            if not (moves and isinstance(argument, ast.Constant)):
                yield from _free(argument)
        for keyword in node.keywords:
            if keyword.arg not in _AXES:
                yield from _free(keyword.value, True)
    elif isinstance(node, ast.Subscript):
        yield from _free(node.value)
        if not isinstance(node.slice, ast.Constant):
            yield from _free(node.slice)
    else:
        counts = (ast.Tuple, ast.BinOp, ast.Compare, ast.Slice, ast.UnaryOp)
        for child in ast.iter_child_nodes(node):
            yield from _free(child, isinstance(node, counts))
