"""Plans of models with loading code of their own: what is refused, and by what name."""

from __future__ import annotations

from typing import Any

import pytest

from mlxport.converter.checkpoint.keys.loading import check_computed, check_derived
from mlxport.converter.errors import StateDictError
from mlxport.converter.plan.loading import Loading

CODE = ("net.Net._load_from_state_dict",)

MADE: dict[str, tuple[dict[str, Any], str]] = {
    "never run": ({"tried": False}, f"converted without a checkpoint.*\n.*{CODE[0]}"),
    "a tensor was made": (
        {"computed": {"a.w": "rescaled"}},
        r"the model's own code.*\n.*a\.w: rescaled",
    ),
    "the model was changed": (
        {"changed": ("a.scale",)},
        rf"own code.*\n.*a\.scale: changed by {CODE[0]}",
    ),
}


@pytest.mark.parametrize(("fields", "message"), MADE.values(), ids=MADE)
def test_what_a_plan_cannot_make_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(StateDictError, match=message):
        check_computed(Loading(**{"code": CODE, "tried": True, **fields}))


def test_code_that_made_nothing_is_let_pass() -> None:
    check_computed(Loading(CODE, modules={"a": "null"}, tried=True, read={"a.w": "0"}))


def test_what_was_computed_of_other_weights_is_refused() -> None:
    check_derived({})
    with pytest.raises(StateDictError, match=r"table: of a\.w, b\.w"):
        check_derived({"table": ["a.w", "b.w"]})
