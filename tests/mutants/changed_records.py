"""JSON data with some of its values, names or parts others."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

# What a terminal would obey.
OBEYED = "\x1b[2J\r\x07\x9b\x7f\u202e\u2066"


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every value and container, but for the whole."""
    keys = range(len(data)) if isinstance(data, list) else data if isinstance(data, dict) else ()
    for key in keys:
        yield (*path, key)
        yield from places(data[key], (*path, key))


INSTEAD = [None, "surprise", "", 7, -1, 0, 1, -0.5, 1e308, 2**31, 2**63, 10**400, True]
INSTEAD += [[], [1, "a"], [0, 0], [-1], [5, 5, 5, 5], {}, {"a": 1}, "../x", OBEYED, "nan", "F32"]


def changed(data: Any, draw: random.Random) -> Any:
    """Return a record with one to four of its values, keys or parts others."""
    data = copy.deepcopy(data)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        found = list(places(data))
        *above, last = draw.choice(found)
        inside = at(data, above)
        value, other = inside[last], at(data, draw.choice(found))
        how = draw.choice(["value", "value", "gone", "other", "number", "list", "key"])
        if how == "gone":
            del inside[last]
        elif how == "other":
            inside[last] = copy.deepcopy(other)
        elif how == "key" and isinstance(inside, dict):
            inside[draw.choice(["x", "", OBEYED, "a.b", str(last).upper()])] = inside.pop(last)
        elif how == "list" and isinstance(value, list) and value:
            inside[last] = draw.choice([value[::-1], value[:-1], [], [*value, value[-1]]])
        elif how == "number" and isinstance(value, (int, float)) and not isinstance(value, bool):
            inside[last] = value + draw.choice([-1, 1, 10, -100])
        else:
            inside[last] = copy.deepcopy(draw.choice(INSTEAD))
        if not data:
            break
    return data


def at(data: Any, path: Any) -> Any:
    for key in path:
        data = data[key]
    return data
