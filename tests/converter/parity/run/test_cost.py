"""How far outputs and layers move when weights change, against the figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mlxport.converter.parity.run.cost import layer_costs, output_costs
from mlxport.converter.parity.verdict.reference_data import Call, Reference, ReferenceValue


def value(*numbers: float) -> ReferenceValue:
    values = np.array(numbers)
    return ReferenceValue(values.shape, "float32", values, values)


def reference(*outputs: ReferenceValue, calls: tuple[Call, ...] = ()) -> Reference:
    return Reference((), outputs, calls, {}, "float32")


BEFORE = value(3.0, 4.0)


@pytest.mark.parametrize(
    ("after", "error", "snr_db", "cosine"),
    [
        (BEFORE, 0.0, None, 1.0),
        (value(3.0, 4.5), 0.1, 20.0, 27 / (5 * 29.25**0.5)),
        (value(-4.0, 3.0), 2**0.5, -3.0103, 0.0),
    ],
    ids=["nothing moves", "a tenth", "a right angle"],
)
def test_of_outputs(
    after: ReferenceValue, error: float, snr_db: float | None, cosine: float
) -> None:
    (cost,) = output_costs(reference(BEFORE), reference(after), ["y"])
    assert cost.name == "y"
    assert (cost.error, cost.cosine) == pytest.approx((error, cosine), abs=1e-12)
    assert cost.snr_db == (None if snr_db is None else pytest.approx(snr_db, abs=1e-4))


def test_what_becomes_infinite_is_not_said_to_stay() -> None:
    assert output_costs(reference(BEFORE), reference(value(np.inf, 4.0)), ["y"]) == ()


def test_there_is_a_name_for_each_output() -> None:
    two = reference(BEFORE, BEFORE)
    with pytest.raises(ValueError, match="longer"):
        output_costs(two, two, ["y"])


def test_of_layers_in_the_order_of_the_calls() -> None:
    def calls(*outputs: ReferenceValue) -> tuple[Call, ...]:
        places = [("b", 0), ("a", 0), ("a", 1)]
        return tuple(
            Call(path, number, (output,))
            for (path, number), output in zip(places, outputs, strict=False)
        )

    before = reference(calls=calls(BEFORE, BEFORE, BEFORE))
    found = layer_costs(before, reference(calls=calls(value(3.0, 4.5), BEFORE)))
    assert [(cost.name, cost.error) for cost in found] == [("b", pytest.approx(0.1)), ("a", 0.0)]
    again = reference(calls=calls(BEFORE, BEFORE, value(0.0, 0.0)))
    assert [(cost.name, cost.error) for cost in layer_costs(before, again)][2] == ("a call 1", 1.0)


@pytest.mark.parametrize(
    ("old", "new"),
    [((), ()), ((), (BEFORE,)), ((BEFORE,), (BEFORE, BEFORE))],
    ids=["none", "none before", "another number"],
)
def test_what_a_layer_gives_otherwise_is_not_compared(
    old: tuple[ReferenceValue, ...], new: tuple[ReferenceValue, ...]
) -> None:
    before, after = (reference(calls=(Call("a", 0, outputs),)) for outputs in (old, new))
    assert layer_costs(before, after) == ()
