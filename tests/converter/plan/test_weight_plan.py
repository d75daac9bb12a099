from __future__ import annotations

import gc
import json
from typing import Any, ClassVar

import numpy as np
import pytest

from mlxport.converter.errors import ConversionError, PlanError, StateDictError
from mlxport.converter.plan.json_data import parse_json, to_data
from mlxport.converter.plan.steps import (
    FoldWeightNorm,
    Permute,
    Reshape,
    Tensors,
    conv_transpose_weight,
)
from mlxport.converter.plan.tensor import Tensor, TensorSpec
from mlxport.converter.plan.weight_plan import Entry, WeightPlan

PLAN = WeightPlan(
    entries=(
        Entry(("up.weight",), ("up.weight",), conv_transpose_weight(2)),
        Entry(("up.bias",), ("up.bias",)),
        Entry(("a", "b"), ("c", "d"), (Permute((1, 0)), Reshape((3, 2), (6,)))),
    ),
    ignored={"norm.num_batches_tracked": "counts batches"},
    aliases={"tied.weight": "up.bias"},
    constants={"grid": "made in the model's constructor"},
)


SPECS = {"a": TensorSpec("F32", (2,)), "b": TensorSpec("F32", (2,))}
A, B = Entry(("a",), ("a",)), Entry(("b",), ("b",))
PLANS: dict[str, tuple[WeightPlan, list[str]]] = {
    "nothing": (WeightPlan(()), []),
    "without specs": (WeightPlan((A, B)), []),
    "all specs": (WeightPlan((A, B), specs=SPECS, ties={"c": "a"}, aliases={"d": "b"}), []),
    "a source without a spec": (
        WeightPlan((A, Entry(("b", "x", "y"), ("b",))), specs=SPECS),
        ["plan.entries[1].sources: plan.specs has no x, y"],
    ),
    "a target twice": (
        WeightPlan((A, Entry(("b",), ("a",)))),
        ["plan.entries[1].targets: a stands there twice"],
    ),
    "a constant that is a target": (
        WeightPlan((A,), constants={"a": "made"}),
        ["plan.entries[0].targets: a stands there twice"],
    ),
    "no source": (
        WeightPlan((Entry((), ("a",)),)),
        ["plan.entries[0]: it has no sources or no targets"],
    ),
    "a tie to nothing": (
        WeightPlan((A,), ties={"c": "b"}),
        ["plan.ties['c']: 'b' is the source of no entry"],
    ),
    "an alias of nothing": (
        WeightPlan((A,), aliases={"c": "b"}),
        ["plan.aliases['c']: 'b' is the source of no entry"],
    ),
}


@pytest.mark.parametrize(("plan", "contradictions"), PLANS.values(), ids=PLANS)
def test_what_no_plan_can_say_is_named(plan: WeightPlan, contradictions: list[str]) -> None:
    assert [*plan.contradictions()] == contradictions


def tensor(*shape: int) -> Tensor:
    return Tensor(np.random.default_rng(0).random(shape).astype(np.float32), "F32")


def state() -> dict[str, Tensor]:
    state = {"up.weight": tensor(4, 3, 2), "up.bias": tensor(6), "a": tensor(2, 3)}
    state |= {"b": tensor(2, 3), "norm.num_batches_tracked": Tensor(np.array(7), "I64")}
    return state | {"tied.weight": state["up.bias"]}


def test_apply_gives_the_targets_in_order() -> None:
    source = state()
    result = dict(PLAN.apply(source))
    assert list(result) == ["up.weight", "up.bias", "c", "d"]
    assert result["up.weight"].shape == (6, 2, 2)
    assert np.array_equal(result["up.bias"].bits, source["up.bias"].bits)
    assert np.array_equal(result["c"].bits, source["a"].bits.T.reshape(-1))


def test_invert_restores_every_used_key_and_alias() -> None:
    source = state()
    restored = dict(PLAN.invert(dict(PLAN.apply(source))))
    assert set(restored) == set(source) - {"norm.num_batches_tracked"}
    for key, value in restored.items():
        assert value.dtype == source[key].dtype
        assert np.array_equal(value.bits, source[key].bits)


def test_ignored_keys_and_aliases_may_be_absent() -> None:
    source = state()
    del source["norm.num_batches_tracked"], source["tied.weight"]
    assert len(dict(PLAN.apply(source))) == 4


def test_apply_works_one_entry_at_a_time() -> None:
    source = state()
    results = PLAN.apply(source)
    assert next(results)[0] == "up.weight"
    del source["up.weight"]  # no longer needed
    assert [name for name, _ in results] == ["up.bias", "c", "d"]


def test_all_missing_and_unexpected_keys_are_listed() -> None:
    source = state()
    del source["a"], source["up.bias"]
    source |= {"head.weight": tensor(1), "head.bias": tensor(1)}
    with pytest.raises(StateDictError) as caught:
        dict(PLAN.apply(source))
    message = str(caught.value)
    assert "4 keys differ" in message
    for line in (
        "missing     a",
        "missing     up.bias",
        "unexpected  head.bias",
        "unexpected  head.weight",
    ):
        assert f"\n  {line}\n" in message


def test_nothing_is_given_before_the_keys_are_checked() -> None:
    source = state()
    del source["b"]  # of the last entry
    with pytest.raises(StateDictError):
        next(PLAN.apply(source))


class Join:
    """Two tensors to one: what a damaged plan could hold for an entry with two targets."""

    kind: ClassVar[str] = "join"

    def apply(self, tensors: Tensors) -> Tensors:
        return tensors[:1]

    def invert(self, tensors: Tensors) -> Tensors:
        return tensors[:1]


@pytest.mark.parametrize("direction", ["apply", "invert"])
def test_entry_with_another_number_of_results_is_damaged(direction: str) -> None:
    entry = Entry(("a", "b"), ("c", "d"), (Join(),))
    with pytest.raises(ConversionError, match=r"gives 1 tensors for 2 names .* damaged"):
        getattr(entry, direction)((tensor(2), tensor(2)))


def test_steps_run_in_order_and_back() -> None:
    entry = Entry(("x",), ("y",), (Permute((1, 0)), Reshape((3, 2), (6,))))
    (there,) = entry.apply((tensor(2, 3),))
    (back,) = entry.invert((there,))
    assert np.array_equal(back.bits, tensor(2, 3).bits)


def test_entry_renamed() -> None:
    entry = Entry(("a", "b"), ("c",), (Permute((0,)),))
    renamed = entry.renamed("enc.{}".format, "down.{}".format)
    assert renamed == Entry(("enc.a", "enc.b"), ("down.c",), (Permute((0,)),))


def test_json_round_trip() -> None:
    data: dict[str, Any] = json.loads(json.dumps(PLAN.to_json()))
    assert WeightPlan.from_json(data) == PLAN
    assert data["entries"][0]["steps"] == [{"kind": "transposed_conv_weight", "groups": 2}]
    assert data["ignored"] == {"norm.num_batches_tracked": "counts batches"}


def test_everything_that_cannot_be_restored_is_listed() -> None:
    def fold(name: str) -> Entry:
        return Entry((f"{name}_g", f"{name}_v"), (name,), (FoldWeightNorm(0),))

    plan = WeightPlan((fold("a"), Entry(("b",), ("b",)), fold("c")))
    source = {key: tensor(2, 3) for key in ("a_v", "b", "c_v")}
    source |= {key: tensor(2, 1) for key in ("a_g", "c_g")}
    with pytest.raises(ConversionError, match=r"(?s)a_g, a_v: .*c_g, c_v: ") as error:
        dict(plan.invert(dict(plan.apply(source))))
    assert len(str(error.value).splitlines()) == 3


@pytest.mark.parametrize("was_enabled", [True, False])
def test_data_are_built_without_a_search_for_cycles(was_enabled: bool) -> None:
    seen: list[bool] = []

    class Text(str):
        def __str__(self) -> str:
            seen.append(gc.isenabled())
            return "x"

    enabled = gc.isenabled()
    (gc.enable if was_enabled else gc.disable)()
    try:
        assert to_data([Text("x")]) == ["x"]
        with pytest.raises(ConversionError):
            parse_json("{")
        assert gc.isenabled() is was_enabled
    finally:
        (gc.enable if enabled else gc.disable)()
    assert seen == [False]


def test_entries_that_are_alike_are_outlined_once() -> None:
    class Counting:
        """A step of no kind that is known, so nothing is known of it."""

        calls = 0
        __hash__ = None  # type: ignore[assignment]

        def apply(self, tensors: Tensors) -> Tensors:
            Counting.calls += 1
            return tensors

        invert = apply

    turned = (Permute((1, 0)),)
    spec, other = TensorSpec("F32", (2, 3)), TensorSpec("F32", (4, 3))
    entries = (
        Entry(("a",), ("x",), turned),
        Entry(("b",), ("y",), (Permute((1, 0)),)),
        Entry(("c",), ("z",), turned),
        Entry(("a",), ("u",), (Counting(),)),
        Entry(("b",), ("v",), (Counting(),)),
    )
    found = WeightPlan(entries).target_specs({"a": spec, "b": spec, "c": other})
    assert {name: s.shape for name, s in found.items()} == {
        "x": (3, 2),
        "y": (3, 2),
        "z": (3, 4),
        "u": (2, 3),
        "v": (2, 3),
    }
    assert found["x"] is found["y"]
    assert Counting.calls == 2
    with pytest.raises(PlanError, match="gives 1 tensors for 2 names"):
        WeightPlan((*entries[:3], Entry(("b",), ("s", "t"), turned))).target_specs(
            {"a": spec, "b": spec, "c": other}
        )
