"""What pickle itself writes passes the check of its opcodes, in every protocol."""

import io
import pickle
from collections import OrderedDict
from typing import Any

import pytest

from mlxport.converter.checkpoint.formats.pickle_opcodes import UnsafePickleError, check_opcodes


class Node:
    """An object with attributes, which may refer to itself."""

    def __init__(self, before: Any = None) -> None:
        self.before, self.me = before, self


def chain(length: int) -> list[Node]:
    """Return nodes of which each refers to the one before: deep, though not by nesting."""
    nodes = [Node()]
    for _ in range(length):
        nodes.append(Node(nodes[-1]))
    return nodes


def nested(depth: int) -> tuple[Any, ...]:
    """Return a tuple in a tuple in a tuple …"""
    value: tuple[Any, ...] = ()
    for _ in range(depth):
        value = (value,)
    return value


OBJECTS = {
    "standard containers": {"a": [1, (2, 3), {4}, frozenset({5})], "b": OrderedDict(c=1.5)},
    "text and bytes of any length": ["x" * 5000, b"y" * 5000, bytearray(5000), 10**3000],
    "a list in itself": (lambda x: x.append(x) or x)([]),
    "a chain of objects": chain(3000),
    "tuples as deep as pickle goes": nested(200),
    "None": None,
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", OBJECTS.values(), ids=OBJECTS)
def test_what_pickle_writes_passes(value: Any, protocol: int) -> None:
    file = io.BytesIO(b"before" + pickle.dumps(value, protocol) + b"behind")
    file.seek(6)
    end = check_opcodes(file)
    assert (file.tell(), file.getvalue()[end:]) == (6, b"behind")


@pytest.mark.parametrize("depth", [999, 1001])
def test_nesting_is_counted(depth: int) -> None:
    file = io.BytesIO(b"\x80\x02)" + b"\x85" * depth + b".")
    if depth > 1000:
        with pytest.raises(UnsafePickleError, match="nested more than 1000 deep"):
            check_opcodes(file)
    else:
        check_opcodes(file)


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"a.", b"\x80\x02h\0.", b"t.", b"0.", b"2."])
def test_what_is_no_pickle_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".|^$"):
        check_opcodes(io.BytesIO(content))
