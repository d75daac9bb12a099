"""Sizes known only at run time, as torch.export's symbols give them.

A handler never sees the example's number of such a size: `Size` is no ``int``, and whatever would
need the number (a test, a range, a comparison that not all sizes answer alike) raises. So no
example size can be baked into the emitted model.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import sympy
import torch
from torch.utils._sympy.functions import FloorDiv, PythonMod
from torch.utils._sympy.printers import PythonPrinter

from mlxport.converter.graph.ir.code import Hole, substitute, to_source
from mlxport.converter.graph.ir.context import Unsupported
from mlxport.converter.graph.ir.value import Scalar, Value

SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)


class SizeUse(Hole):
    """Stands in an expression for a size, until a body says how it reads it.

    Attributes:
        key: the size in the symbols of torch.export.
        size: the size.
    """

    _fields: ClassVar[tuple[str, ...]] = ("key", "size")
    key: sympy.Basic
    size: Size

    def __init__(self, key: sympy.Basic, size: Size) -> None:
        super().__init__(key)
        self.size = size


class NotStatic(Unsupported):
    """A number was asked of a size that is known only at run time."""

    def __init__(self, size: Size) -> None:
        super().__init__(f"a number is needed where a dynamic size stands ({size})")
        self.size = size


class Size(Scalar):
    """A number that the emitted model computes from the shapes of its arrays.

    Two are equal where they agree at every size. Arithmetic gives another one, or an ``int`` where
    the symbols cancel out.

    Attributes:
        expr: what it is, in the symbols of torch.export.
        kind: the Python type it has at run time: int, float or bool.
    """

    def __init__(self, expr: sympy.Basic, kind: type = int) -> None:
        self.expr = expr
        self.kind = kind
        self.key = sympy.expand(expr) if isinstance(expr, sympy.Expr) else expr

    def to_ast(self) -> ast.expr:
        """Return the hole that a body fills with how it reads this size."""
        return SizeUse(self.expr, self)

    def __repr__(self) -> str:
        return size_text(self, {})

    # -- equality: at every size -----------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and bool(self.key == other.key)

    def __hash__(self) -> int:
        return hash(self.key)

    # -- arithmetic ------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Any:
        return _number(self.expr + _expr(other), self._kind(other))

    def __sub__(self, other: Any) -> Any:
        return _number(self.expr - _expr(other), self._kind(other))

    def __rsub__(self, other: Any) -> Any:
        return _number(_expr(other) - self.expr, self._kind(other))

    def __mul__(self, other: Any) -> Any:
        return _number(self.expr * _expr(other), self._kind(other))

    def __floordiv__(self, other: Any) -> Any:
        return _number(FloorDiv(self.expr, _expr(other)))

    def __mod__(self, other: Any) -> Any:
        return _number(PythonMod(self.expr, _expr(other)))

    def __neg__(self) -> Any:
        return _number(-self.expr)

    __radd__, __rmul__ = __add__, __mul__

    def _kind(self, other: Any) -> type:
        return float if float in (self.kind, getattr(other, "kind", type(other))) else int

    # -- what only a number answers --------------------------------------------------------------

    def __lt__(self, other: Any) -> bool:
        return self._decided(self.expr < _expr(other))

    def __le__(self, other: Any) -> bool:
        return self._decided(self.expr <= _expr(other))

    def __gt__(self, other: Any) -> bool:
        return self._decided(self.expr > _expr(other))

    def __ge__(self, other: Any) -> bool:
        return self._decided(self.expr >= _expr(other))

    def _decided(self, relation: Any) -> bool:
        if relation in (sympy.true, sympy.false):
            return bool(relation)
        raise NotStatic(self)

    def _static(self, *_: Any) -> Any:
        raise NotStatic(self)

    __bool__ = __index__ = __int__ = __float__ = __round__ = __truediv__ = _static
    __rtruediv__ = __rfloordiv__ = __rmod__ = __pow__ = __rpow__ = _static


def symbolic(value: Any) -> Any:
    """Return one of torch's symbolic numbers as a `Size`; a plain number as it is."""
    if not isinstance(value, SYMBOLIC):
        return value
    kind = {torch.SymInt: int, torch.SymFloat: float, torch.SymBool: bool}[type(value)]
    return _number(value.node.expr, kind)


def shape_of(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Return the shape of a captured tensor, a `Size` where torch.export has a symbol."""
    return tuple(symbolic(size) for size in tensor.shape)


def is_symbolic(node: torch.fx.Node) -> bool:
    """Whether a node gives a symbolic number and no tensor."""
    return isinstance(node.meta.get("val"), SYMBOLIC)


def is_never_negative(number: Any) -> bool:
    """Whether an integer or a size cannot be negative, whatever the sizes are."""
    return bool(number.expr.is_nonnegative) if isinstance(number, Size) else number >= 0


def ratio_of(a: Any, b: Any) -> sympy.Expr:
    """Return ``a / b`` of two integers or sizes, in lowest terms."""
    ratio: sympy.Expr = sympy.cancel(_expr(a) / _expr(b))
    return ratio


def length_of(size: Size) -> int:
    """Return how much there is to compute to get a size."""
    return int(size.expr.count_ops())


def size_text(size: Any, names: Mapping[str, str]) -> str:
    """Return a size or a plain number as people read it: ``n``, ``h // 2``.

    Args:
        size: the size.
        names: torch's symbol -> what to call it.
    """
    return to_source(size_tree(size, names))


def size_tree(size: Any, names: Mapping[str, str]) -> ast.expr:
    """Return a size or a plain number as an expression in the names of torch's symbols."""
    if not isinstance(size, Size):
        return ast.Constant(size)
    symbols = [str(symbol) for symbol in size.expr.free_symbols]
    return written(size.expr, {s: ast.Name(names.get(s, s)) for s in symbols})


def shape_text(shape: Iterable[Any], names: Mapping[str, str]) -> str:
    """Return a shape as people read it: ``(n, 1, h // 2, w)``."""
    sizes = [size_text(size, names) for size in shape]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def written(expr: sympy.Basic, names: Mapping[str, ast.expr]) -> ast.expr:
    """Return the Python expression of a symbolic one.

    Args:
        expr: what is computed.
        names: symbol -> the expression that reads it.

    Raises:
        Unsupported: something in it has no counterpart in Python.
    """
    try:
        tree = ast.parse(_Printer().doprint(expr), mode="eval").body
    except (NotImplementedError, SyntaxError, AttributeError) as error:
        raise Unsupported(f"the size {expr} cannot be written in Python") from error
    unknown = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} - {*names, *FUNCTIONS}
    if unknown:
        raise Unsupported(f"the size {expr} needs {sorted(unknown)}, which a model has not")
    return substitute(tidy(tree), names)


def tidy(tree: ast.expr) -> ast.expr:
    """Return an expression written as people do: ``n - 1`` for ``-1 + n``."""
    tidied: ast.expr = _Tidy().visit(tree)
    return tidied


# what the expression of a size may call
FUNCTIONS = ("abs", "float", "int", "math", "max", "min", "round")


class _Printer(PythonPrinter):
    """Torch's printer, with what it leaves to torch or to ``math`` written as plain Python."""

    def _helper_sqrt(self, expr: Any) -> str:
        return f"({self._print(expr)}) ** 0.5"

    def _print_TruncToInt(self, expr: Any) -> str:  # noqa: N802
        return f"int({self._print(expr.args[0])})"

    def _print_ToFloat(self, expr: Any) -> str:  # noqa: N802
        return f"float({self._print(expr.args[0])})"

    def _print_Where(self, expr: Any) -> str:  # noqa: N802
        test, then, otherwise = map(self._print, expr.args)
        return f"({then} if {test} else {otherwise})"

    def _print_Piecewise(self, expr: Any) -> str:  # noqa: N802
        *cases, (otherwise, _) = expr.args
        text: str = self._print(otherwise)
        for value, test in reversed(cases):
            text = f"({self._print(value)} if {self._print(test)} else {text})"
        return text


class _Tidy(ast.NodeTransformer):
    """Write sums as people do: ``n + 1`` for ``1 + n``, ``n - 1`` for ``-1 + n``."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        left, right = node.left, node.right
        if isinstance(node.op, ast.Mult) and _is_minus_one(left):
            return ast.UnaryOp(ast.USub(), right)
        if not isinstance(node.op, ast.Add):
            return node
        first_less = _negated(left) is not None and _negated(right) is None
        if first_less or isinstance(left, ast.Constant):
            left, right = right, left
        taken = _negated(right)
        return ast.BinOp(left, ast.Add(), right) if taken is None else _less(left, taken)


def _is_minus_one(tree: ast.expr) -> bool:
    negated = _negated(tree)
    return isinstance(negated, ast.Constant) and negated.value == 1


def _negated(tree: ast.expr) -> ast.expr | None:
    return tree.operand if isinstance(tree, ast.UnaryOp) else None


def _less(left: ast.expr, right: ast.expr) -> ast.expr:
    return ast.BinOp(left, ast.Sub(), right)


def symbols_of(values: Iterable[Value]) -> Iterable[tuple[Value, int, sympy.Basic]]:
    """Yield the symbols in the shapes of values, each with the value and its logical axis."""
    for value in values:
        for axis, size in enumerate(value.shape):
            if isinstance(size, Size):
                for symbol in sorted(size.expr.free_symbols, key=str):
                    yield value, axis, symbol


_AXES = {4: ("n", "c", "h", "w"), 5: ("n", "c", "d", "h", "w")}


def axis_names(ndim: int) -> tuple[str, ...]:
    """Return what the sizes of an input's axes are called: ``n``, ``c``, ``h``, ``w``."""
    return _AXES.get(ndim, ("n", *["length"] * (ndim - 1)))


def name_symbols(inputs: Iterable[Value]) -> dict[str, str]:
    """Name torch's symbols after the axes of the model's inputs: ``n``, ``d``, ``h``, ``w``."""
    names: dict[str, str] = {}
    for value, axis, symbol in symbols_of(inputs):
        wish = base = axis_names(value.ndim)[axis]
        number = 2
        while wish in names.values() and str(symbol) not in names:
            wish, number = f"{base}{number}", number + 1
        names.setdefault(str(symbol), wish)
    return names


def _expr(number: Any) -> Any:
    return number.expr if isinstance(number, Size) else sympy.sympify(number)


def _number(expr: Any, kind: type = int) -> Any:
    plain = sympy.expand(expr) if isinstance(expr, sympy.Expr) else expr
    if plain in (sympy.true, sympy.false) or getattr(plain, "is_number", False):
        return kind(plain)
    return Size(expr, kind)
