"""Records in JSON: what may be absent, and what no record of a conversion can say."""

from __future__ import annotations

from typing import Any

import pytest

from mlxport.converter.errors import ConversionError
from mlxport.converter.plan.record import Conversion, Layout, ModuleRecord
from mlxport.converter.plan.weight_plan import WeightPlan

LEAST = ("format", "version", "inputs", "modules", "plan")
LAYOUT = Layout(("n", 3), "float32", (0, 1))
MODEL = ModuleRecord("", "", (LAYOUT,), (LAYOUT,))


def test_what_is_absent_says_nothing() -> None:
    record = Conversion(inputs=(), modules=(), plan=WeightPlan(()))
    data = record.to_json()
    least = {key: value for key, value in data.items() if key in LEAST}
    assert Conversion.from_json(least) == Conversion.from_json(data) == record
    nothing = (record.versions, record.source, record.dynamic, record.code)
    assert [dict(mapping) for mapping in nothing] == [{}] * 4


@pytest.mark.parametrize("absent", ["inputs", "modules", "plan"])
def test_what_every_record_has_is_missed(absent: str) -> None:
    data = Conversion(inputs=(), modules=(), plan=WeightPlan(())).to_json()
    del data[absent]
    with pytest.raises(ConversionError, match=f"missing required field `{absent}`"):
        Conversion.from_json(data)


CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "a layer that is no module": ({"layers": ("pooling.2d",)}, r"layers\[0\]: 'pooling\.2d'"),
    "no model": ({"modules": (ModuleRecord("a", "a", (), ()),)}, "path '', stands there once"),
    "two models": ({"modules": (MODEL, MODEL)}, "path '', stands there once"),
    "no order of the axes": (
        {"modules": (ModuleRecord("", "", (Layout((2, 3), "float32", (0, 0)),), ()),)},
        r"modules\[0\]\.inputs\[0\]: order",
    ),
    "a size below 0": ({"dynamic": {"n": (-1, None)}}, r"dynamic\['n'\]: from -1 to None"),
    "no size": ({"dynamic": {"n": (3, 2)}}, r"dynamic\['n'\]: from 3 to 2"),
}


@pytest.mark.parametrize(("fields", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_is_named(fields: dict[str, Any], message: str) -> None:
    record = Conversion(**{"inputs": (), "modules": (), "plan": WeightPlan(()), **fields})
    with pytest.raises(ConversionError, match=f"contradicts itself:\n.*{message}"):
        Conversion.from_json(record.to_json())


@pytest.mark.parametrize("sizes", [(0, None), (0, 0), (2, 2), (2, 9)], ids=str)
def test_sizes_that_can_be_come_back(sizes: tuple[int, int | None]) -> None:
    record = Conversion(
        inputs=("x",),
        modules=(MODEL,),
        dynamic={"n": sizes},
        layers=("pooling.fractional",),
        plan=WeightPlan(()),
    )
    assert Conversion.from_json(record.to_json()) == record
