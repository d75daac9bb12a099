"""A plan fitted to a checkpoint: entries of several sources, ties, numbers, other dtypes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlxport.converter.checkpoint.checkpoint import Checkpoint
from mlxport.converter.checkpoint.keys.bind import (
    OUTSIDE,
    as_the_model_has_them,
    bind,
    cast_floats,
    computed_dtypes,
    decode_float8,
    left_out,
)
from mlxport.converter.plan.steps import Cast, Reshape
from mlxport.converter.plan.tensor import STORAGE, Tensor, TensorSpec
from mlxport.converter.plan.weight_plan import Entry, WeightPlan


def checkpoint(**specs: TensorSpec) -> Checkpoint:
    tensors = {
        key: Tensor(np.zeros(spec.shape, STORAGE[spec.dtype]), spec.dtype)
        for key, spec in specs.items()
    }
    return Checkpoint(Path("x"), tensors, {key: key for key in tensors})


F32, F16, BF16, I64 = (TensorSpec(dtype, (2,)) for dtype in ("F32", "F16", "BF16", "I64"))
BOTH = Entry(("g", "v"), ("w",))
SPECS = {"g": F32, "v": F32}


def test_each_of_several_sources_is_cast_from_its_own_dtype() -> None:
    plan = WeightPlan((BOTH,), specs=SPECS)
    bound = bind(plan, {"g": "a", "v": "b"}, checkpoint(a=F32, b=F16))
    (entry,) = bound.entries
    assert entry.sources == ("a", "b")
    assert entry.steps == (Cast(("F32", "F16"), ("F32", "F32")),)
    (entry,) = bind(plan, {"g": "a", "v": "b"}, checkpoint(a=BF16, b=F32)).entries
    assert entry.steps == (Cast(("BF16", "F32"), ("F32", "F32")),)
    assert bind(plan, {"g": "a", "v": "b"}, checkpoint(a=F32, b=F32)).entries[0].steps == ()


def test_what_is_computed_keeps_the_dtype_that_the_plan_expects() -> None:
    plan = WeightPlan((BOTH,), specs=SPECS)
    (entry,) = bind(plan, {"g": "g", "v": "v"}, checkpoint(g=F16, v=F16), computed={"v"}).entries
    assert entry.steps == (Cast(("F16", "F32"), ("F32", "F32")),)


def test_a_cast_there_was_gives_way_to_the_one_needed() -> None:
    cast = Cast(("F16",), ("F32",))
    plan = WeightPlan((Entry(("a",), ("a",), (cast, Reshape((2,), (2, 1)))),), specs={"a": F16})
    again = bind(plan, {"a": "a"}, checkpoint(a=BF16)).entries[0].steps
    assert again == (Cast(("BF16",), ("F32",)), Reshape((2,), (2, 1)))
    none = bind(plan, {"a": "a"}, checkpoint(a=F32)).entries[0].steps
    assert none == (Reshape((2,), (2, 1)),)


def test_a_cast_of_several_is_of_each() -> None:
    specs = {"g": F16, "v": I64}
    (entry,) = cast_floats(WeightPlan((BOTH,), specs=specs), "float32").entries
    assert entry.steps == (Cast(("F16", "I64"), ("F32", "I64")),)
    assert computed_dtypes(entry, specs) == ("F32", "I64")
    assert computed_dtypes(BOTH, specs) == ("F16", "I64")
    assert cast_floats(WeightPlan((BOTH,), specs=SPECS), "float32").entries == (BOTH,)


def test_of_several_sources_only_float8_is_decoded() -> None:
    float8 = TensorSpec("F8_E4M3", (2,))
    plan, decoded = decode_float8(WeightPlan((BOTH,), specs={"g": F32, "v": float8}))
    assert plan.entries[0].steps == (Cast(("F32", "F8_E4M3"), ("F32", "BF16")),)
    assert decoded == ["v"]
    assert decode_float8(WeightPlan((BOTH,), specs=SPECS)) == (
        WeightPlan((BOTH,), specs=SPECS),
        [],
    )


SCALAR, ONE = TensorSpec("F32", ()), TensorSpec("F32", (1,))
WITHOUT = Reshape((1,), ())


def test_a_number_with_an_axis_loses_it_and_gets_it_back() -> None:
    plan = WeightPlan((Entry(("n",), ("n",)), Entry(("w",), ("w",))), specs={"n": SCALAR, "w": F32})
    bound = bind(plan, {"n": "n", "w": "w"}, checkpoint(n=ONE, w=F32))
    assert [entry.steps for entry in bound.entries] == [(WITHOUT,), ()]
    recorded = WeightPlan(bound.entries, specs={"n": ONE, "w": F32})
    again = as_the_model_has_them(recorded)
    assert again.entries == plan.entries
    assert again.specs == plan.specs


def test_what_is_tied_to_a_number_is_one_too() -> None:
    plan = WeightPlan(
        (Entry(("n",), ("n",), (WITHOUT,)), Entry(("m",), ("m",)), Entry(("w",), ("w",))),
        aliases={"alias": "n"},
        ties={"tied": "n"},
        ignored={"left": "why", "longer": "why"},
        specs={
            **dict.fromkeys(("n", "alias", "tied", "left"), ONE),
            **dict.fromkeys(("m", "w", "longer"), F32),
        },
    )
    specs = as_the_model_has_them(plan).specs
    assert {key for key, spec in specs.items() if spec.shape == ()} == {
        "n", "alias", "tied", "left",
    }  # fmt: skip
    assert specs["w"] == F32


def test_an_entry_of_several_with_a_number_is_a_fault_of_ours() -> None:
    plan = WeightPlan((BOTH,), specs={"g": SCALAR, "v": F32})
    with pytest.raises(AssertionError, match="several tensors"):
        bind(plan, {"g": "g", "v": "v"}, checkpoint(g=ONE, v=F32))


def test_what_the_plan_does_not_speak_of_is_ignored_with_the_reason() -> None:
    plan = WeightPlan(
        (Entry(("w",), ("w",)),),
        ignored={"known": "why"},
        aliases={"alias": "w"},
        specs={"w": F32},
    )
    given = checkpoint(**dict.fromkeys(("net.w", "net.other", "outside"), F32))
    bound = bind(plan, {"w": "net.w"}, given, prefix="net.")
    assert set(bound.ignored) == {"known", "net.other", "outside"}
    assert bound.ignored["outside"] == OUTSIDE != bound.ignored["net.other"]
    assert set(left_out(bound, given)) == {"net.other"}
    assert set(left_out(bound, given, {"net.other": "first name"})) == {"first name"}
