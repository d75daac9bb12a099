"""Dataclasses to JSON data and back, with their types checked when they are read.

msgspec does the work by the types of their fields; here stands what JSON or msgspec has no form
for. Needs neither torch nor mlx.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import logging
import math
import re
import zlib
from abc import ABC
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from mlxport.converter.errors import ConversionError

_Data = TypeVar("_Data")

_logger = logging.getLogger(__name__)

# The default of a field that is left out of the JSON data where it was not given.
ABSENT: Any = msgspec.UNSET

Count = Annotated[int, msgspec.Meta(ge=0)]

_AS_IS = frozenset({str, int, bool, type(None)})
_NOT_FINITE = ("inf", "-inf", "nan")
_MOST_BYTES = 1 << 24
_PLACE = re.compile(r"\.(\w+)|\[(\d+|\.\.\.)\]")

if TYPE_CHECKING:
    Real = float
    Compressed = bytes
else:

    class Real(ABC):  # noqa: B024  # float counts as a subclass
        """A float; infinity and NaN, which JSON has not, are text."""

        @staticmethod
        def schema() -> dict[str, Any]:
            """Return the JSON schema."""
            return {"anyOf": [{"type": "number"}, {"enum": list(_NOT_FINITE)}]}

        @staticmethod
        def read(data: Any) -> float:
            """Return the number."""
            number = isinstance(data, (int, float)) and not isinstance(data, bool)
            if not number and data not in _NOT_FINITE:
                raise ValueError(f"Expected `float`, got {_kind(data)}")
            try:
                return float(data)
            except OverflowError as error:
                raise ValueError("Number out of range") from error

    Real.register(float)

    class Compressed(ABC):  # noqa: B024  # as bytes does here
        """Bytes; in JSON compressed by zlib, as base64."""

        @staticmethod
        def schema() -> dict[str, Any]:
            """Return the JSON schema."""
            return {"type": "string", "contentEncoding": "base64"}

        @staticmethod
        def read(data: Any) -> bytes:
            """Return the bytes; no more than a file may have, whatever the text claims."""
            if not isinstance(data, str):
                raise ValueError(f"Expected `str`, got {_kind(data)}")
            try:
                packed = base64.b64decode(data, validate=True)
                return zlib.decompressobj().decompress(packed, _MOST_BYTES)
            except (ValueError, zlib.error) as error:
                raise ValueError(f"not bytes compressed by zlib, in base64: {error}") from error

    Compressed.register(bytes)


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """Pause the search for cycles while data without any are built.

    Each time it looks at all objects there are: a quarter of the time that a record of 100,000
    tensors takes.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@collection_paused()
def to_data(value: Any, without_none: Collection[str] = ()) -> Any:
    """Return a dataclass as JSON data: dicts, lists, text and finite numbers.

    Args:
        value: a dataclass, or several.
        without_none: fields, of it or of dataclasses within, to leave out where they are None.
    """
    built = msgspec.to_builtins(value, builtin_types=(bytes,), enc_hook=_base)
    return _plain(built, without_none)


@collection_paused()
def from_data(cls: type[_Data], data: Any) -> _Data:
    """Build a dataclass from JSON data.

    Raises:
        ConversionError: a field is missing or has another type; the message names it.
    """
    try:
        return msgspec.convert(data, cls, dec_hook=_read)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        field = _field(cls, data, place.rstrip("`"), str(error))
        raise ConversionError(f"{field}: {what}" if field else what) from error
    except RecursionError as error:
        raise ConversionError("it is nested too deeply") from error


def named_format(data: Any) -> tuple[Any, Any]:
    """Return the format and the version that JSON data says it is of; None where it does not."""
    return (data.get("format"), data.get("version")) if isinstance(data, dict) else (None, None)


def read_json(path: Path) -> Any:
    """Return the JSON data in a file.

    Raises:
        OSError: the file cannot be read.
        ConversionError: it is not JSON, or no name that a file can have.
    """
    try:
        data = path.read_bytes()
    except ValueError as error:  # a NUL in it
        raise ConversionError(f"{str(path)!r} names no file: {error}") from error
    return parse_json(data)


@collection_paused()
def parse_json(text: str | bytes) -> Any:
    """Return JSON data from its text, in UTF-8 where it is bytes.

    Raises:
        ConversionError: it is not JSON.
    """
    try:
        return json.loads(text.decode() if isinstance(text, bytes) else text)
    except RecursionError as error:
        raise ConversionError("it is nested too deeply") from error
    except ValueError as error:
        raise ConversionError(f"it is not JSON: {error}") from error


@collection_paused()
def indented_json(data: Any) -> str:
    """Return the text of JSON data, a value on each line: no NaN, no infinity.

    What ``json.dumps(data, indent=1)`` gives, which takes ten times as long and, of a record of
    100,000 tensors, hundreds of megabytes.
    """
    text = json.dumps(data, allow_nan=False)
    try:
        return msgspec.json.format(text, indent=1)
    except msgspec.DecodeError as error:  # half of a surrogate pair, which msgspec does not read
        _logger.debug("written by the slow way: %s", error)
        return json.dumps(data, indent=1, allow_nan=False)


def schema_of(cls: type[Any]) -> dict[str, Any]:
    """Return the JSON schema of a dataclass; those of others within stand under ``$defs``."""
    return msgspec.json.schema(cls, schema_hook=_schema)


def _field(cls: Any, data: Any, place: str, message: str) -> str:
    """Return the field at a place as msgspec writes it, with the keys of mappings in it.

    msgspec writes ``[...]`` for every key. The one is looked for by halves: a mapping without it
    does not give the message again.
    """

    def is_among(keys: list[Any]) -> bool:
        fewer = {key: found[key] for key in keys}
        try:
            msgspec.convert(_replaced(data, path, fewer), cls, dec_hook=_read)
        except msgspec.ValidationError as error:
            return str(error) == message
        return False

    path: list[Any] = []
    found, text = data, ""
    for name, index in _PLACE.findall(place):
        if index == "...":
            keys = list(found)
            while len(keys) > 1:
                half = len(keys) // 2
                keys = keys[:half] if is_among(keys[:half]) else keys[half:]
            step, text = keys[0], f"{text}[{keys[0]!r}]"
        else:
            step = int(index) if index else name
            text += f"[{index}]" if index else f".{name}"
        path, found = [*path, step], found[step]
    return text.lstrip(".")


def _replaced(data: Any, path: list[Any], value: Any) -> Any:
    """Return JSON data with another value at a path."""
    if not path:
        return value
    copy = data.copy()
    copy[path[0]] = _replaced(data[path[0]], path[1:], value)
    return copy


def _schema(cls: Any) -> dict[str, Any]:
    schema: dict[str, Any] = cls.schema()
    return schema


def _read(cls: Any, data: Any) -> Any:
    return cls.read(data)


def _base(value: Any) -> Any:
    """Return what an instance of a subclass is as JSON data."""
    if isinstance(value, Mapping):
        return dict(value)
    for cls in (int, float, str, tuple):
        if isinstance(value, cls):
            return cls(value)  # type: ignore[arg-type]
    raise NotImplementedError(f"{type(value).__name__} has no form in JSON")


def _plain(value: Any, without_none: Collection[str]) -> Any:
    if isinstance(value, dict):
        return {
            key: item if type(item) in _AS_IS else _plain(item, without_none)
            for key, item in value.items()
            if item is not None or key not in without_none
        }
    if isinstance(value, (list, tuple)):
        if _AS_IS.issuperset(map(type, value)):
            return list(value)
        return [_plain(item, without_none) for item in value]
    if type(value) in _AS_IS:
        return value
    if isinstance(value, bytes):
        return base64.b64encode(zlib.compress(value, 9)).decode()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _kind(data: Any) -> str:
    names = {
        bool: "bool",
        int: "int",
        str: "str",
        list: "array",
        dict: "object",
        type(None): "null",
    }
    return f"`{names.get(type(data), type(data).__name__)}`"
