"""Check what a pickle would make an unpickler do, before one sees it.

Unpicklers believe what they read: they make room for every entry of the memo up to the one that is
named, hash a tuple however deep it is nested, which ends the process where the stack ends, and
some take a time that grows with the square of a name's length.
"""

from __future__ import annotations

import pickle
import pickletools
from dataclasses import dataclass
from typing import Any, BinaryIO

# pickle.dumps recurses as deep as what it writes, and Python lets it no deeper by default.
_DEEPEST = 1_000
_LONGEST_NAME = 1_000

_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"}
_CHANGES = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}


class UnsafePickleError(pickle.UnpicklingError):
    """A pickle asks for more than an unpickler can do."""


def check_opcodes(file: BinaryIO) -> int:
    """Check the pickle at a file's position, which stays where it is.

    Returns:
        The position behind it.

    Raises:
        UnsafePickleError: an entry of the memo is numbered higher than there are opcodes, tuples
            are nested, or the name of a global is, longer than any that pickle writes.
        ValueError: the pickle is cut short, or none.
    """
    start = file.tell()
    machine = _Machine()
    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name in _PUTS and int(argument or 0) > number:
            raise UnsafePickleError(f"entry {argument} of the memo after {number} opcodes")
        machine.step(opcode, argument)
    end = file.tell()
    file.seek(start)
    return end


@dataclass(eq=False)
class _Item:
    """What is known of an object that the pickle makes.

    Attributes:
        depth: how deep tuples are nested in it; what has no hash, or one that does not look
            inside, counts as what it holds.
        length: of it, where it is text.
    """

    depth: int = 0
    length: int = 0


class _Machine:
    """The stack and the memo of an unpickler, with what is known of each object in its place."""

    def __init__(self) -> None:
        self._stack: list[_Item | None] = []  # None is a mark
        self._memo: dict[Any, _Item] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Do what an opcode does.

        Raises:
            UnsafePickleError: see `check_opcodes`.
            ValueError: there is not on the stack, or not in the memo, what the opcode takes.
        """
        name = opcode.name
        if name in _PUTS:
            key = len(self._memo) if name == "MEMOIZE" else argument
            self._memo[key] = self._top()
        elif name in _GETS:
            if argument not in self._memo:
                raise ValueError(f"no entry {argument} in the memo")
            self._stack.append(self._memo[argument])
        elif name == "DUP":
            self._stack.append(self._top())
        elif name == "MARK":
            self._stack.append(None)
        else:
            taken = self._taken(opcode)
            self._check_name(name, argument, taken)
            self._stack += self._given(opcode, argument, taken)

    def _top(self) -> _Item:
        if not self._stack or self._stack[-1] is None:
            raise ValueError("nothing on the stack")
        return self._stack[-1]

    def _taken(self, opcode: pickletools.OpcodeInfo) -> list[_Item]:
        """Take from the stack what an opcode takes, the lowest first."""
        before = opcode.stack_before
        above: list[_Item] = []
        item: _Item | None = _Item()
        count = len(before)
        if pickletools.markobject in before:
            count = before.index(pickletools.markobject)
            while self._stack and (item := self._stack.pop()) is not None:
                above.append(item)
            if item is not None:
                raise ValueError(f"{opcode.name} finds no mark on the stack")
        below = self._stack[len(self._stack) - count :] if count else []
        items = [item for item in below if item is not None]
        if len(items) < count:
            # POP takes a mark, too
            if opcode.name == "POP" and self._stack:
                self._stack.pop()
                return []
            raise ValueError(f"{opcode.name} takes {count} objects from the stack")
        del self._stack[len(self._stack) - count :]
        return [*items, *reversed(above)]

    def _given(
        self, opcode: pickletools.OpcodeInfo, argument: Any, taken: list[_Item]
    ) -> list[_Item]:
        """Return what an opcode puts on the stack."""
        deepest = max((item.depth for item in taken), default=0)
        if opcode.name in _CHANGES:
            if opcode.name != "BUILD":
                taken[0].depth = deepest
            return taken[:1]
        if opcode.name in _TUPLES and (deepest := deepest + 1) > _DEEPEST:
            raise UnsafePickleError(f"tuples nested more than {_DEEPEST} deep")
        length = len(argument) if isinstance(argument, (str, bytes)) else 0
        return [_Item(deepest, length) for _ in opcode.stack_after]

    @staticmethod
    def _check_name(name: str, argument: Any, taken: list[_Item]) -> None:
        """Check the length of a global's name."""
        lengths = []
        if name in ("GLOBAL", "INST"):
            lengths = [len(argument)]
        elif name == "STACK_GLOBAL":
            lengths = [item.length for item in taken]
        if sum(lengths) > _LONGEST_NAME:
            raise UnsafePickleError(f"a global with a name of {sum(lengths)} characters")
