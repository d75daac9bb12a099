"""Numbers in which the bodies of otherwise equal modules differ: the sizes of heads, scales.

They become settings of one class, given to its constructor, in place of a class for each number.
Axes and places are no such numbers: a body that differs in them computes something else.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from mlxport.converter.graph.source.format import statement as lay_out

MOST_SETTINGS = 4  # settings of a class; bodies that differ in more numbers are told apart
_AXES = {"axis", "axes", "start_axis", "end_axis", "axis1", "axis2", "dtype"}
_MARGIN = 8

Text = tuple[str, ...]


def skeleton(text: Text) -> str | None:
    """Return what bodies share that differ in numbers alone; None where none may differ."""
    tree = _parsed(text)
    if _written(tree) != text:
        return None
    for number in _numbers(tree):
        number.value = type(number.value).__name__
    return ast.dump(tree)


def differences(texts: Sequence[Text]) -> dict[int, tuple[float, ...]] | None:
    """Return the numbers in which bodies of one skeleton differ: place -> value in each body.

    None where they differ in more than a class should be told.
    """
    columns = zip(*([n.value for n in _numbers(_parsed(text))] for text in texts), strict=True)
    found = {i: column for i, column in enumerate(columns) if len(set(map(repr, column))) > 1}
    return found if len(set(map(repr, found.values()))) <= MOST_SETTINGS else None


def with_settings(text: Text, names: Mapping[int, str]) -> Text:
    """Return a body that reads some of its numbers from settings of its class.

    Args:
        text: its lines.
        names: place of a number -> the attribute that holds it.
    """
    tree = _parsed(text)
    at = {id(number): names[i] for i, number in enumerate(_numbers(tree)) if i in names}
    return _written(_Reading(at).visit(tree))


class _Reading(ast.NodeTransformer):
    def __init__(self, at: Mapping[int, str]) -> None:
        self.at = at

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        name = self.at.get(id(node))
        return node if name is None else ast.Attribute(ast.Name("self"), name)


def _parsed(text: Text) -> ast.Module:
    return ast.parse(textwrap.dedent("\n".join(text)))


def _numbers(tree: ast.AST) -> list[ast.Constant]:
    return list(_free(tree))


def _free(node: ast.AST, listed: bool = False) -> Iterator[ast.Constant]:
    """Yield the numbers that say how large or how much: no axes, no places.

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


def _written(tree: ast.Module) -> Text:
    return tuple(_lines(tree.body, _MARGIN))


def _lines(statements: Sequence[ast.stmt], indent: int) -> Iterator[str]:
    for item in statements:
        if isinstance(item, ast.Assign):
            (target,) = item.targets
            name = ast.unparse(target)
            name = name[1:-1] if isinstance(target, ast.Tuple) else name
            yield from lay_out(f"{name} = ", item.value, indent)
        elif isinstance(item, ast.Return) and item.value is not None:
            yield from lay_out("return ", item.value, indent)
        elif isinstance(item, ast.For):
            yield from lay_out(f"for {ast.unparse(item.target)} in ", item.iter, indent, ":")
            yield from _lines(item.body, indent + 4)
        else:
            yield ast.unparse(item)  # which makes the text another one: such a body stays as it is
