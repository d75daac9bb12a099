"""JSON data: what a broken field is called, what stands in a file, what has no form in JSON."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from mlxport.converter.errors import ConversionError
from mlxport.converter.plan.json_data import Real, from_data, indented_json, to_data

NAMES = ("a", "b.c", "d'e", "f", "g")


@dataclass(frozen=True)
class Table:
    """A mapping of lists of mappings, as places in a record are nested."""

    rows: Mapping[str, tuple[Mapping[str, int], ...]]


@pytest.mark.parametrize("row", NAMES)
@pytest.mark.parametrize("column", NAMES)
def test_a_broken_entry_is_found_among_others(row: str, column: str) -> None:
    data = {"rows": {key: [{}, dict.fromkeys(NAMES, 1)] for key in NAMES}}
    assert set(from_data(Table, data).rows) == set(NAMES)
    data["rows"][row][1][column] = "one"  # type: ignore[assignment]
    with pytest.raises(ConversionError) as caught:
        from_data(Table, data)
    assert str(caught.value) == f"rows[{row!r}][1][{column!r}]: Expected `int`, got `str`"


@dataclass(frozen=True)
class Numbers:
    """What may be left out, here and one level down."""

    values: tuple[Real, ...] = ()
    note: str | None = None
    below: "Mapping[str, Numbers] | None" = None


@pytest.mark.parametrize("number", [0.5, -0.0, 3.0, math.inf, -math.inf, math.nan], ids=str)
def test_numbers_come_back(number: float) -> None:
    data = to_data(Numbers((number,)))
    json.dumps(data, allow_nan=False)
    assert str(from_data(Numbers, data).values) == str((number,))


def test_none_is_left_out_by_name_at_every_level() -> None:
    data = to_data(Numbers(below={"x": Numbers()}), without_none=("note",))
    assert data == {"values": [], "below": {"x": {"values": [], "below": None}}}


TEXT = {
    "empty": {"a": [], "b": {}, "c": [[], [{}], [[1], [2, [3]]]]},
    "text": {"é\u2028\x7f": ['\x1b"\\/😀', "\ud800"]},
    "numbers": [1e-05, 1e22, -0.0, 1.5, 10**30, None, True],
    "not nested": "text",
}


@pytest.mark.parametrize("data", TEXT.values(), ids=TEXT)
def test_indented_text_is_what_json_writes(data: Any) -> None:
    assert indented_json(data) == json.dumps(data, indent=1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        indented_json([data, float("nan")])
