"""Write the arguments of ``forward`` that a conversion fixes: taken, and checked, by the MLX model.

They were no tensors, so the captured program holds for their values alone. A call that gives them
as it did is the same call; one that gives another value is refused.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Collection, Iterator, Mapping

from mlxport.converter.graph.ir.body import Body
from mlxport.converter.graph.ir.code import to_ast, to_source
from mlxport.converter.graph.ir.naming import argument_name
from mlxport.converter.graph.source.size_checks import if_any, raise_error
from mlxport.converter.plan.structure import Signature, Structure


def argument_list(
    signature: Signature, body: Body, by_name: Collection[str], cached: str = ""
) -> tuple[list[str], list[str]]:
    """Return the parameters of the model's ``__call__`` behind ``self``, and the lines that check.

    Args:
        signature: what the torch model takes.
        body: the body of the model itself.
        by_name: arguments of ``forward`` that have no place of their own in the call.
        cached: the argument that is a cache, which may be left out; none if empty.
    """
    fixed = _names(signature, body)
    formals = iter(body.parameters)
    rows = [
        (name, s, None if name in fixed else next(formals))
        for name, s in signature.arguments.items()
    ]
    last = max((i for i, row in enumerate(rows) if row[2] and not row[2].keyword), default=-1)
    placed: list[str] = []
    named: list[str] = []
    checks: list[str] = []
    for i, (name, structure, formal) in enumerate(rows):
        if formal is not None and name == cached:
            named.append(f"{formal.name}: {formal.annotation} | None = None")
        elif formal is not None and formal.keyword and name not in by_name:
            # Python wants a default behind the fixed argument that stands before it
            placed.append(f"{formal.name}: {formal.annotation} | None = None")
            checks += _check_given(formal.name)
            checks += _checks_within(formal.name, structure)
        elif formal is not None:
            (named if formal.keyword else placed).append(f"{formal.name}: {formal.annotation}")
            checks += _checks_within(formal.name, structure)
        else:
            default = to_source(_default(structure))
            written = f"{fixed[name]}: {_kind(structure)} = {default}"
            (named if name in by_name or i < last else placed).append(written)
            checks += _check(fixed[name], structure)
    placed += [f"{formal.name}: {formal.annotation}" for formal in formals]
    return [*placed, *(["*", *named] if named else [])], checks


def _names(signature: Signature, body: Body) -> Mapping[str, str]:
    """Return the fixed arguments and what the model calls them; none hides what is imported."""
    taken = {*(formal.name for formal in body.parameters), *body.imported, "mx", "nn", "self"}
    names: dict[str, str] = {}
    for name, structure in signature.arguments.items():
        if not structure.tensors(name):
            wanted = argument_name(name)
            while wanted in taken:
                wanted += "_"
            names[name] = wanted
            taken.add(wanted)
    return names


def _kind(structure: Structure) -> str:
    if structure.kind == "constant":
        return "None" if structure.value is None else type(structure.value).__name__
    return structure.kind


def _default(structure: Structure) -> ast.expr:
    if structure.kind == "constant":
        return to_ast(structure.value)
    items = [_default(item) for item in structure.items]
    if structure.kind == "dict":
        return ast.Dict([ast.Constant(key) for key in structure.keys], items)
    return ast.List(items) if structure.kind == "list" else ast.Tuple(items)


def _check(code: str, structure: Structure, name: str = "") -> Iterator[str]:
    """Yield the lines that refuse another value of an expression, which goes by a name."""
    value = structure.value if structure.kind == "constant" else ()
    if isinstance(value, float) and math.isnan(value):
        return  # which equals nothing
    text = to_source(_default(structure))
    differs = f"{code} is not None" if value is None else f"{code} != {text}"
    yield from if_any([ast.parse(differs, mode="eval").body])
    yield from raise_error(f"converted for {name or code}={text}: convert again for another")


def _check_given(name: str) -> list[str]:
    missing = ast.parse(f"{name} is None", mode="eval").body
    return [*if_any([missing]), *raise_error(f"missing argument: {name}", "TypeError")]


def _checks_within(place: str, structure: Structure) -> Iterator[str]:
    """Yield the lines that refuse other values beside the tensors of a container."""
    if structure.kind not in ("tuple", "list", "dict"):
        return
    keys = structure.keys if structure.kind == "dict" else range(len(structure.items))
    for key, item in zip(keys, structure.items, strict=True):
        label = f"{place}[{to_source(ast.Constant(key))}]"
        if item.tensors(""):
            yield from _checks_within(label, item)
        elif structure.kind == "dict":
            default = to_source(_default(item))
            code = f"{place}.get({to_source(ast.Constant(key))}, {default})"
            yield from _check(code, item, label)
        else:
            yield from _check(label, item)
