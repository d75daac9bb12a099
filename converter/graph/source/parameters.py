"""Find the constructor arguments that the classes of the emitted model need.

Instances of one class agree in all but the arguments of the constructors they call, and some
numbers in their bodies. Each in which they differ becomes an argument of the class; those that
always agree become one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mlxport.converter.graph.ir.naming import attribute_name
from mlxport.converter.graph.source.attributes import Built, ClassGroup, Parameter, slots
from mlxport.converter.graph.source.body_numbers import differences, with_settings

# Names a number by its values in all instances, as their torch modules call it.
Namer = Callable[[tuple[Any, ...]], str]


def parametrise(group: ClassGroup, name_of: Namer) -> None:
    """Give a class a constructor argument for each value in which its instances differ.

    Args:
        group: the class.
        name_of: names what its body reads.
    """
    rows = [list(slots(instance)) for instance in group.instances]
    wanted = [
        dict.fromkeys(key for built in column for key in built.kwargs)
        for column in zip(*rows, strict=True)
    ]
    for row in rows:
        for built, keys in zip(row, wanted, strict=True):
            built.kwargs = {k: built.kwargs.get(k, built.defaults.get(k)) for k in keys}
            if built.group is not None:
                instance = next(i for i in built.group.instances if i.path == built.hints[0])
                built.args, built.hints = list(instance.arguments), list(built.group.parameters)
    chosen: dict[str, tuple[Any, ...]] = {}
    for column in zip(*rows, strict=True):
        _fill_column(column, chosen)
    _fill_body(group, name_of, chosen)
    for index, instance in enumerate(group.instances):
        instance.arguments = [values[index] for values in chosen.values()]
    group.parameters = list(chosen)


def _fill_column(column: Sequence[Built], chosen: dict[str, tuple[Any, ...]]) -> None:
    """Replace the values in which one attribute's constructor differs by parameters."""
    first = column[0]
    for i in range(len(first.args)):
        values = tuple(built.args[i] for built in column)
        if len(set(map(repr, values))) > 1:
            hint = first.hints[i] if i < len(first.hints) else "size"
            first.args[i] = Parameter(_name_for(values, hint, chosen))
    for key in list(first.kwargs):
        values = tuple(built.kwargs[key] for built in column)
        if len(set(map(repr, values))) > 1:
            first.kwargs[key] = Parameter(_name_for(values, key, chosen))
        elif key in first.defaults and values[0] == first.defaults[key]:
            del first.kwargs[key]


def _fill_body(group: ClassGroup, name_of: Namer, chosen: dict[str, tuple[Any, ...]]) -> None:
    """Replace the numbers in which the bodies of a class differ by settings."""
    codes = [instance.code for instance in group.instances]
    different = differences(codes)
    if not different:
        return
    attributes = {}
    for index, values in different.items():
        parameter = _name_for(values, name_of(values), chosen)
        attribute = attribute_name(parameter)
        while attribute in group.instances[0].attributes:
            attribute += "_"
        attributes[index] = attribute
        group.settings[attribute] = parameter
    group.code = with_settings(codes[0], attributes)


def _name_for(values: tuple[Any, ...], hint: str, chosen: dict[str, tuple[Any, ...]]) -> str:
    """Return the parameter that has these values in the instances, adding one if there is none."""
    for name, known in chosen.items():
        if repr(known) == repr(values):  # 1, 1.0 and True are equal but not the same argument
            return name
    name, n = hint, 2
    while name in chosen:
        name, n = f"{hint}{n}", n + 1
    chosen[name] = values
    return name
